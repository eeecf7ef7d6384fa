"""A sweep of real runs: cut, continued, and compared with a run that no sweep made."""

import json
import signal
import subprocess
import sys
import time

import pytest
from helpers import ROOT, excerpt, python
from interruptions import assert_equal_runs

STEPS = ("--training.steps=40", "--training.eval_every=20", "--training.save_every=10", "--training.log_every=10")


def sweep(folder, space, flags, *more):
    """The command of a sweep with these flags, without those that the space has."""
    flags = [flag for flag in flags if not any(f"{key}=" in flag for key in space["grid"])]
    (folder / "space.yaml").write_text(json.dumps(space), encoding="utf-8")
    arguments = [f"--space={folder / 'space.yaml'}", f"--output={folder / 'sweep'}", "--strategy=cpu", *more]
    return ["scripts/sweep.py", *arguments, *flags]


def cut_at_first_log_line(command, output):
    """Start a sweep and send it SIGTERM when a run has written a line. Returns (exit code, what it wrote)."""
    process = subprocess.Popen(
        [sys.executable, *command], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    deadline = time.monotonic() + 600
    while not list(output.glob("runs/*/*/metrics.jsonl")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=600)
    return process.returncode, out


@pytest.fixture(scope="module")
def swept(flags, tmp_path_factory):
    """(folder of a sweep that was cut once and went on, what its second command printed, the command)."""
    folder = tmp_path_factory.mktemp("swept")
    space = {
        "grid": {"optimizer.learning_rate": [1e-3, 1e-6]},
        "halving": {"first_steps": 20, "factor": 2},
    }
    command = sweep(folder, space, [*flags, *STEPS], "--seeds=0,1", "--parallel=2")
    code, out = cut_at_first_log_line(command, folder / "sweep")
    assert code == 75, excerpt(out)
    assert "0 of 4 runs finished" in out
    done = python(*command, timeout=900, check=True)
    return folder / "sweep", done.stdout, command


def test_a_sweep_that_was_cut_goes_on_to_its_end(swept):
    output, printed, _ = swept
    found = json.loads((output / "sweep.json").read_text())
    assert found["metric"] == "accuracy"
    assert [each["status"] for each in found["trials"]] == ["finished", "at step 20"]
    assert [each["settings"]["optimizer.learning_rate"] for each in found["trials"]] == [1e-3, 1e-6]
    chosen = found["chosen"]
    values = [run["validation"] for run in found["trials"][0]["runs"]]
    assert chosen["validation"]["mean"] == pytest.approx(sum(values) / 2)
    assert (chosen["validation"]["n"], chosen["validation"]["min"]) == (2, min(values))
    assert chosen["test"]["accuracy"]["n"] == 2
    assert "chosen  --optimizer.learning_rate=0.001" in printed
    assert (output / "sweep.png").stat().st_size > 5000
    assert list(output.glob("tensorboard/*/seed_1/*tfevents*"))


def test_a_run_that_paused_at_a_rung_equals_one_of_no_sweep(swept, flags, tmp_path):
    (model_dir,) = swept[0].glob("runs/learning-rate-0-001-*/seed_1")
    alone = [*flags, *STEPS, "--optimizer.learning_rate=0.001", "--seed=1", "--strategy=cpu"]
    python("-m", "trainer.task", *alone, f"--model_dir={tmp_path / 'alone'}", check=True)
    assert_equal_runs(model_dir, tmp_path / "alone")


def test_the_same_command_again_trains_nothing(swept):
    output, printed, command = swept
    before = {path: path.stat().st_mtime_ns for path in output.glob("runs/**/*") if path.is_file()}
    assert python(*command, check=True).stdout == printed
    assert {path: path.stat().st_mtime_ns for path in output.glob("runs/**/*") if path.is_file()} == before


def test_a_sweep_of_another_configuration_is_refused(swept):
    done = python(*swept[2], "--data.batch_size=8")
    assert done.returncode == 1
    assert "--output must be new" in done.stderr
    assert "data.batch_size: 16 in the sweep, 8 here" in done.stderr


def test_a_trial_that_fails_is_listed_and_the_others_finish(flags, tmp_path):
    space = {"grid": {"model.dropout": [0.1], "data.seq_length": [9999, 24]}}
    done = python(*sweep(tmp_path, space, flags, "--training.steps=2", "--training.eval_every=2"), timeout=900)
    assert done.returncode == 1, excerpt(done.stderr)
    assert "data.seq_length must be at most the encoder's" in done.stdout
    found = json.loads((tmp_path / "sweep/sweep.json").read_text())
    assert [each["status"] for each in found["trials"]] == ["finished", "failed"]
    assert found["chosen"]["settings"]["data.seq_length"] == 24


def test_nothing_is_trained_of_a_space_with_an_error(flags, tmp_path):
    space = {"grid": {"optimizer.learning_rate": [1e-3, -1], "data.batch_size": [16]}}
    done = python(*sweep(tmp_path, space, flags, "--seeds=0,one"))
    assert done.returncode == 2
    assert "--seeds must be integers" in done.stderr
    space["grid"]["data.batch_size"] = [0]
    done = python(*sweep(tmp_path, space, flags))
    assert done.returncode == 2
    for named in ("optimizer.learning_rate", "data.batch_size"):
        assert named in done.stderr
    assert not (tmp_path / "sweep").exists()

"""scripts/glue.py as a user calls it: cut, continued, and called once more."""

import json
import shutil
import signal
import subprocess
import sys
import time
import zipfile

import pytest
from fakes.glue_files import MNLI, write_glue
from helpers import ROOT, excerpt, python

from trainer.config import loading

WAIT_S = 900
KEYS = ("training.steps=6", "training.log_every=2", "training.save_every=2", "data.batch_size=8", "data.seq_length=24")
QUIET = ("logging.tensorboard=off", "logging.progress=off", "logging.report=off")


@pytest.fixture
def command(tiny, tmp_path):
    """(the arguments of the script, the output folder)."""
    where = [f"--glue_dir={write_glue(tmp_path / 'glue_data', train=40)}", f"--output={tmp_path / 'out'}"]
    settings = [f"--set={key}" for key in (*KEYS, *QUIET)]
    return ["scripts/glue.py", *where, f"--encoder={tiny}", "--strategy=cpu", *settings], tmp_path / "out"


def test_runs_are_continued_scored_and_predicted(command):
    arguments, output = command
    arguments = [*arguments, "--tasks=mnli,qqp,ax", "--seeds=0,1"]
    first = output / "runs/mnli/seed_0/result.json"
    with (output.parent / "log").open("w") as log:
        process = subprocess.Popen([sys.executable, *arguments], cwd=ROOT, stdout=log, stderr=log)
        end = time.monotonic() + WAIT_S
        while not (first.exists() and (output / "runs/mnli/seed_1/config.yaml").exists()):
            assert process.poll() is None, excerpt((output.parent / "log").read_text())
            assert time.monotonic() < end
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_S) == 75, excerpt((output.parent / "log").read_text())
    assert "Run the same command again to continue." in (output.parent / "log").read_text()
    assert not (output / "submission.zip").exists()
    before = first.read_bytes()

    done = python(*arguments, check=True, timeout=900)
    assert first.read_bytes() == before
    assert "note: GLUE's server asks for all files; missing: CoLA.tsv" in done.stdout
    table = done.stdout.partition("dev of GLUE with")[2].splitlines()
    shown = ("mnli accuracy", "mnli mismatched accuracy", "qqp f1", "qqp accuracy")
    assert tuple(line.split("  ")[0] for line in table[2:6]) == shown
    results = json.loads((output / "results.json").read_text())
    assert results["best_seed"].keys() == {"mnli", "qqp"}
    assert {score["name"] for score in results["dev"]} == {"mnli", "mnli mismatched", "qqp"}
    manifest = json.loads((output / "data/qqp/dataset.json").read_text())
    assert {name: split["examples"] for name, split in manifest["splits"].items()} == {
        "train": 36,
        "validation": 4,
        "test": 12,
    }
    assert manifest["removed"]["bad_rows"] == 1

    with zipfile.ZipFile(output / "submission.zip") as archive:
        files = {name: archive.read(name).decode().splitlines() for name in archive.namelist()}
    assert list(files) == ["QQP.tsv", "MNLI-m.tsv", "MNLI-mm.tsv", "AX.tsv"]
    for name, (header, *lines) in files.items():
        indexes, labels = zip(*(line.split("\t") for line in lines), strict=True)
        assert header == "index\tprediction"
        assert indexes == tuple(map(str, range(8)))
        assert set(labels) <= set(MNLI if name != "QQP.tsv" else ("0", "1"))


def test_a_setting_that_a_started_run_does_not_have_is_refused(command, finished_run):
    arguments, output = command
    run = output / "runs/rte/seed_0"
    run.mkdir(parents=True)
    for name in ("config.yaml", "result.json"):  # What says that a run is there, and with which settings.
        shutil.copy(finished_run / name, run)
    before = loading.load_config(str(run / "config.yaml")).optimizer.learning_rate
    done = python(*arguments, "--tasks=rte", "--seeds=0", "--set=optimizer.learning_rate=0.123")
    assert done.returncode in (1, 2)
    assert f"optimizer.learning_rate: {before} in the run, 0.123 here" in done.stderr
    assert f"The run in {run} must end without an error" in done.stderr
    assert "Traceback" not in done.stderr


def test_every_wrong_flag_is_reported_at_once(tmp_path):
    wrong = ("--tasks=snli,ax", "--seeds=0,a", "--set=seed=3", "--set=data.seq=1")
    done = python("scripts/glue.py", f"--glue_dir={tmp_path}", f"--output={tmp_path}/out", *wrong)
    assert (done.returncode, done.stdout) == (2, "")
    for words in ("--tasks must be among", "have mnli too", "--seeds", "--set seed", "data.seq_length"):
        assert words in done.stderr
    assert not (tmp_path / "out").exists()


def test_tasks_that_are_not_there_are_named_before_anything_is_done(tmp_path):
    (write_glue(tmp_path / "glue_data", 4, 4, 4) / "CoLA/test.tsv").unlink()
    done = python("scripts/glue.py", f"--glue_dir={tmp_path}/glue_data", f"--output={tmp_path}/out", "--tasks=cola,rte")
    assert (done.returncode, done.stdout) == (1, "")
    assert "--glue_dir must hold CoLA/test.tsv" in done.stderr
    assert not (tmp_path / "out").exists()

"""The commands as a user types them, each in its own process, with generated texts and a tiny encoder."""

import csv
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT, excerpt, review
from interruptions import assert_equal_tensors, read_metrics, read_newest_checkpoint, reproducible

STEPS = 120


def run(*arguments, code=0, limit=""):
    """Run a command of the project after the shell command `limit`. Returns its standard output and error."""
    command = [sys.executable, *map(str, arguments)]
    if limit:
        command = ["bash", "-c", f'{limit}; exec "$@"', "bash", *command]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    output = done.stdout + done.stderr
    assert done.returncode == code, excerpt(output)
    assert "Traceback" not in output, excerpt(output)
    return output


def task(*arguments, **options):
    return run("-m", "trainer.task", *arguments, **options)


def settings(**values):
    return [f"--set={key.replace('__', '.')}={value}" for key, value in values.items()]


def write_rows(path, rows, header):
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


def prepare(source, encoder, output, *arguments):
    run(
        "scripts/prepare_data.py",
        "--task=csv",
        f"--source={source}",
        f"--encoder={encoder}",
        f"--output={output}",
        *arguments,
    )
    return output


@pytest.fixture(scope="module")
def reviews(tiny, tmp_path_factory):
    """A prepared data set of 400 reviews."""
    folder = tmp_path_factory.mktemp("reviews")
    rng = random.Random(0)
    rows = [(f"{i}: {review(rng, i % 2 == 0)}", "positive" if i % 2 == 0 else "negative") for i in range(400)]
    write_rows(folder / "reviews.csv", rows, ("text", "label"))
    return prepare(folder / "reviews.csv", tiny, folder / "data")


@pytest.fixture(scope="module")
def job(tiny, reviews):
    """The flags of the job that the tests run, without its model_dir."""
    return [
        f"--encoder={tiny}",
        f"--data_dir={reviews}",
        "--strategy=cpu",
        *settings(training__steps=STEPS, training__log_every=7, training__save_every=20, training__eval_every=50),
        *settings(
            data__batch_size=16, data__seq_length=32, data__truncation="head_tail", optimizer__learning_rate="2e-3"
        ),
        *settings(optimizer__ema=0.9, optimizer__layer_decay=0.9, training__label_smoothing=0.05),
    ]


@pytest.fixture(scope="module")
def uninterrupted(job, tmp_path_factory):
    model_dir = tmp_path_factory.mktemp("uninterrupted") / "model"
    output = task(*job, f"--model_dir={model_dir}")
    assert "finished: 120 steps" in output
    return model_dir


def test_a_run_learns_and_writes_the_documented_files(uninterrupted):
    result = json.loads((uninterrupted / "result.json").read_text())
    assert result["test"]["accuracy"] > 0.9
    assert result["test"]["examples"] == 40
    assert result["steps"] == STEPS
    assert result["encoder"]["path"] == "native"
    assert [row["step"] for row in read_metrics(uninterrupted, "validation")] == [50, 100, 120]
    assert [row["step"] for row in read_metrics(uninterrupted, "train")] == [*range(7, STEPS, 7), STEPS]
    assert sum(row["examples"] for row in read_metrics(uninterrupted, "train")) == STEPS * 16
    (test,) = read_metrics(uninterrupted, "test")
    assert test["loss"] == result["test"]["loss"]


def wait_for(condition, process, timeout_s=600):
    deadline = time.monotonic() + timeout_s
    while not condition() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process.poll() is None, "the process ended before it could be stopped"


def start(job, model_dir):
    command = [sys.executable, "-m", "trainer.task", *job, f"--model_dir={model_dir}"]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def test_a_killed_and_a_stopped_run_resume_bit_for_bit(job, uninterrupted, tmp_path):
    model_dir = tmp_path / "model"
    codes = []
    for step, number in ((20, signal.SIGKILL), (60, signal.SIGTERM)):
        process = start(job, model_dir)
        wait_for((model_dir / f"checkpoints/ckpt-{step}.index").exists, process)
        process.send_signal(number)
        codes.append(process.wait(60))
    assert codes == [-signal.SIGKILL, 75]
    task(*job, f"--model_dir={model_dir}")
    assert_equal_tensors(model_dir / "checkpoints", uninterrupted / "checkpoints")
    lines, expected_lines = ([reproducible(line) for line in read_metrics(run)] for run in (model_dir, uninterrupted))
    assert lines == expected_lines
    seconds = [line["seconds"] for line in read_metrics(model_dir, "train")]
    assert seconds == sorted(seconds)


def modification_times(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def test_a_finished_run_is_not_trained_again(job, uninterrupted):
    before = modification_times(uninterrupted)
    assert "nothing to do" in task(*job, f"--model_dir={uninterrupted}")
    assert modification_times(uninterrupted) == before


def test_another_configuration_for_the_same_model_dir_is_rejected(job, uninterrupted):
    output = task(*job, "--set=model.dropout=0.3", f"--model_dir={uninterrupted}", code=1)
    assert "model.dropout: None in the run, 0.3 here" in output


def test_a_second_run_in_a_model_dir_in_use_is_rejected(job, tmp_path):
    first = start(job, tmp_path / "model")
    try:
        wait_for((tmp_path / "model/config.yaml").exists, first)
        assert f'"pid": "{first.pid}"' in task(*job, f"--model_dir={tmp_path}/model", code=1)
    finally:
        first.kill()
        first.wait()


@pytest.mark.long
def test_a_run_that_ended_because_of_a_full_disk_can_resume(job, uninterrupted, tmp_path):
    # A limit on the size of a file, in KB, has the effect of a full disk: small files fit, checkpoints do not.
    output = task(*job, f"--model_dir={tmp_path}/model", code=1, limit="ulimit -f 200")
    assert "error:" in output
    assert "too large" in output.lower() or "no space" in output.lower()
    assert not (tmp_path / "model/result.json").exists()
    task(*job, f"--model_dir={tmp_path}/model")
    assert_equal_tensors(tmp_path / "model/checkpoints", uninterrupted / "checkpoints")


def test_a_loss_that_is_not_finite_stops_the_run(job, tmp_path):
    diverging = settings(optimizer__learning_rate="1e30", optimizer__warmup_fraction=0, training__save_every=1)
    output = task(*job, *diverging, f"--model_dir={tmp_path}/model", code=1)
    assert "not, at step" in output
    assert "optimizer.learning_rate" in output
    tensors = read_newest_checkpoint(tmp_path / "model/checkpoints")
    assert all(np.isfinite(value).all() for value in tensors.values() if value.dtype.kind == "f")


def test_pairs_of_texts_train_and_predict(tiny, tmp_path):
    rng = random.Random(1)
    with open(tmp_path / "pairs.jsonl", "w") as file:
        for _ in range(120):
            first, second = rng.random() < 0.5, rng.random() < 0.5
            row = {"a": review(rng, first), "b": review(rng, second), "same": int(first == second)}
            file.write(json.dumps(row) + "\n")
    data = prepare(
        tmp_path / "pairs.jsonl",
        tiny,
        tmp_path / "data",
        "--text_column=a",
        "--text_pair_column=b",
        "--label_column=same",
    )
    assert "pairs of texts" in run("scripts/prepare_data.py", f"--inspect={data}")
    values = settings(training__steps=3, data__batch_size=8, data__seq_length=24, data__truncation="tail")
    task(f"--encoder={tiny}", f"--data_dir={data}", f"--model_dir={tmp_path}/model", *values)
    output = run(
        "scripts/predict.py", f"--model={tmp_path}/model/export", "--format=jsonl", "a superb film\tan awful film"
    )
    (row,) = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    assert set(row["scores"]) == {"0", "1"}
    assert "two texts" in run("scripts/predict.py", f"--model={tmp_path}/model/export", "one text alone", code=1)


@pytest.mark.long
def test_regression_is_trained_evaluated_and_predicted(tiny, tmp_path):
    rng = random.Random(2)
    rows = [(review(rng, i % 3 > 0), f"{(i % 3) * 1.5 + rng.random():.3f}") for i in range(200)]
    write_rows(tmp_path / "ratings.csv", rows, ("sentence", "rating"))
    data = prepare(tmp_path / "ratings.csv", tiny, tmp_path / "data", "--text_column=sentence", "--label_column=rating")
    values = settings(training__steps=60, data__batch_size=16, data__seq_length=48, optimizer__learning_rate="2e-3")
    task(f"--encoder={tiny}", f"--data_dir={data}", f"--model_dir={tmp_path}/model", *values)
    result = json.loads((tmp_path / "model/result.json").read_text())
    assert result["validation"]["pearson"] > 0.5
    assert {"spearman", "mean_squared_error"} <= result["test"].keys()
    output = run("scripts/predict.py", f"--model={tmp_path}/model/export", "--format=jsonl", "a superb film")
    assert '"score":' in output
    output = task("--mode=evaluate", "--baseline", f"--model_dir={tmp_path}/model")
    assert "baseline" in output
    assert "pearson" in output


def test_a_run_of_one_replica_can_be_resumed_with_four(job, uninterrupted, tmp_path):
    """Batches and dropout masks are those of one replica, so that the results differ by rounding alone."""
    model_dir = tmp_path / "model"
    process = start(job, model_dir)
    wait_for((model_dir / "checkpoints/checkpoint").exists, process)
    process.kill()
    process.wait()
    four = [flag for flag in job if not flag.startswith("--strategy")] + ["--strategy=mirrored", "--virtual_devices=4"]
    task(*four, f"--model_dir={model_dir}")
    tensors, expected = (read_newest_checkpoint(run / "checkpoints") for run in (model_dir, uninterrupted))
    keys = [key for key in expected if expected[key].dtype.kind == "f" and "total" not in key]
    assert max(float(np.max(np.abs(tensors[key] - expected[key]))) for key in keys) < 1e-4
    for line, expected_line in zip(read_metrics(model_dir), read_metrics(uninterrupted), strict=True):
        assert all(line[key] == expected_line[key] for key in ("step", "split", "examples"))
        assert abs(line["loss"] - expected_line["loss"]) < 1e-3


def test_data_of_another_vocabulary_is_rejected_at_the_start(make_encoder, reviews, tmp_path):
    output = task(
        f"--encoder={make_encoder('tiny_albert')}", f"--data_dir={reviews}", f"--model_dir={tmp_path}/model", code=1
    )
    assert "vocabulary" in output
    assert "--encoder" in output
    assert not Path(tmp_path / "model").exists()

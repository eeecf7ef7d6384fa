"""The commands as a user types them, each in a process of its own, on generated texts and a tiny encoder."""

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
import tensorflow as tf
from helpers import ROOT, review

STEPS = 120


def run(*arguments, code=0, limit=""):
    """Run a command of the project, `limit` before it in its shell; returns its standard output and error together."""
    command = [sys.executable, *map(str, arguments)]
    if limit:
        command = ["bash", "-c", f'{limit}; exec "$@"', "bash", *command]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    output = done.stdout + done.stderr
    assert done.returncode == code, f"{output[:3000]}\n...\n{output[-3000:]}"
    assert "Traceback" not in output, output[-3000:]
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


def lines(model_dir, split=None):
    rows = [json.loads(line) for line in (model_dir / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if split in (None, row["split"])]


def tensors(model_dir):
    """The last checkpoint's tensors by key."""
    reader = tf.train.load_checkpoint(tf.train.latest_checkpoint(str(model_dir / "checkpoints")))
    return {k: np.asarray(reader.get_tensor(k)) for k in reader.get_variable_to_shape_map() if "OBJECT_GRAPH" not in k}


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
    """The flags of the job that the tests run, its model_dir aside."""
    return [
        f"--encoder={tiny}",
        f"--data_dir={reviews}",
        "--strategy=cpu",
        *settings(training__steps=STEPS, training__log_every=7, training__save_every=20, training__eval_every=50),
        *settings(
            data__batch_size=16, data__seq_length=32, data__truncation="head_tail", optimizer__learning_rate="2e-3"
        ),
    ]


@pytest.fixture(scope="module")
def undisturbed(job, tmp_path_factory):
    model_dir = tmp_path_factory.mktemp("undisturbed") / "model"
    output = task(*job, f"--model_dir={model_dir}")
    assert "finished: 120 steps" in output
    return model_dir


def test_the_run_learns_and_writes_what_the_contracts_promise(undisturbed):
    result = json.loads((undisturbed / "result.json").read_text())
    assert result["test"]["accuracy"] > 0.9
    assert result["test"]["examples"] == 40
    assert result["steps"] == STEPS
    assert result["encoder"]["path"] == "native"
    assert [row["step"] for row in lines(undisturbed, "validation")] == [50, 100, 120]
    assert [row["step"] for row in lines(undisturbed, "train")] == [*range(7, STEPS, 7), STEPS]
    assert sum(row["examples"] for row in lines(undisturbed, "train")) == STEPS * 16
    (test,) = lines(undisturbed, "test")
    assert test["loss"] == result["test"]["loss"]


def wait_for(condition, child, seconds=120):
    end = time.monotonic() + seconds
    while not condition() and child.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    assert child.poll() is None, "it ended before it could be stopped"


def test_a_run_killed_and_stopped_ends_bit_for_bit_as_one_never_stopped(job, undisturbed, tmp_path):
    model_dir = tmp_path / "model"
    command = [sys.executable, "-m", "trainer.task", *job, f"--model_dir={model_dir}"]
    codes = []
    for step, number in ((20, signal.SIGKILL), (60, signal.SIGTERM)):
        child = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        wait_for((model_dir / f"checkpoints/ckpt-{step}.index").exists, child)
        child.send_signal(number)
        codes.append(child.wait(60))
    assert codes == [-signal.SIGKILL, 75]
    task(*job, f"--model_dir={model_dir}")

    left, right = tensors(undisturbed), tensors(model_dir)
    assert left.keys() == right.keys()
    assert [key for key in left if not np.array_equal(left[key], right[key])] == []
    clocks = ("seconds", "examples_per_second")
    assert [{k: v for k, v in row.items() if k not in clocks} for row in lines(undisturbed)] == [
        {k: v for k, v in row.items() if k not in clocks} for row in lines(model_dir)
    ]
    seconds = [row["seconds"] for row in lines(model_dir, "train")]
    assert seconds == sorted(seconds)


def test_a_finished_run_started_again_trains_nothing(job, undisturbed):
    before = {
        path: path.stat().st_mtime_ns for path in undisturbed.rglob("*") if path.is_file() and path.name != ".lock"
    }
    assert "nothing to do" in task(*job, f"--model_dir={undisturbed}")
    assert before == {
        path: path.stat().st_mtime_ns for path in undisturbed.rglob("*") if path.is_file() and path.name != ".lock"
    }


def test_another_configuration_on_the_same_model_dir_is_refused_by_name(job, undisturbed):
    output = task(*job, "--set=model.dropout=0.3", f"--model_dir={undisturbed}", code=1)
    assert "model.dropout: None there, 0.3 here" in output


def test_a_second_run_on_a_model_dir_in_use_is_refused_naming_the_first(job, tmp_path):
    command = [sys.executable, "-m", "trainer.task", *job, f"--model_dir={tmp_path}/model"]
    first = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        wait_for((tmp_path / "model/config.yaml").exists, first)
        assert f'"pid": "{first.pid}"' in task(*job, f"--model_dir={tmp_path}/model", code=1)
    finally:
        first.kill()
        first.wait()


def test_a_full_disk_ends_the_run_with_a_message_and_the_same_command_goes_on(job, undisturbed, tmp_path):
    # A bound on a file's size, in KB, stands in for the disk's: small files still fit, no checkpoint does.
    output = task(*job, f"--model_dir={tmp_path}/model", code=1, limit="ulimit -f 200")
    assert "error:" in output
    assert "too large" in output.lower() or "no space" in output.lower()
    assert not (tmp_path / "model/result.json").exists()
    task(*job, f"--model_dir={tmp_path}/model")
    left, right = tensors(undisturbed), tensors(tmp_path / "model")
    assert all(np.array_equal(left[key], right[key]) for key in left)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step(job, tmp_path):
    blown = settings(optimizer__learning_rate="1e30", optimizer__warmup_fraction=0, training__save_every=1)
    output = task(*job, *blown, f"--model_dir={tmp_path}/model", code=1)
    assert "not, at step" in output
    assert "optimizer.learning_rate" in output
    kept = tensors(tmp_path / "model")
    assert all(np.isfinite(value).all() for value in kept.values() if value.dtype.kind == "f")


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


def test_a_number_is_predicted_and_reported_as_one(tiny, tmp_path):
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


def test_a_family_that_is_not_rebuilt_trains_through_the_hub_and_says_what_that_costs(make_encoder, tmp_path):
    encoder = make_encoder("tiny_albert")
    rng = random.Random(3)
    rows = [(review(rng, i % 2 == 0), "abc"[i % 3]) for i in range(90)]
    write_rows(tmp_path / "three.tsv", [], ())
    (tmp_path / "three.tsv").write_text("text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in rows))
    data = prepare(tmp_path / "three.tsv", encoder, tmp_path / "data")
    values = settings(training__steps=2, data__batch_size=8, data__seq_length=32, precision="bfloat16")
    output = task(f"--encoder={encoder}", f"--data_dir={data}", f"--model_dir={tmp_path}/model", *values)
    assert "hub.KerasLayer" in output
    result = json.loads((tmp_path / "model/result.json").read_text())
    assert result["encoder"]["path"] == "hub"
    assert result["precision"] == "float32"
    assert "text" in run("scripts/predict.py", f"--model={tmp_path}/model/export", "--format=jsonl", "a superb film")


def test_a_run_begun_by_one_replica_is_ended_by_four_as_by_one(job, undisturbed, tmp_path):
    """Batches and the masks of dropout, which stays on, are those of one replica: a difference is of rounding alone."""
    model_dir = tmp_path / "model"
    command = [sys.executable, "-m", "trainer.task", *job, f"--model_dir={model_dir}"]
    child = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    wait_for((model_dir / "checkpoints/checkpoint").exists, child)
    child.kill()
    child.wait()
    four = [flag for flag in job if not flag.startswith("--strategy")] + ["--strategy=mirrored", "--virtual_devices=4"]
    task(*four, f"--model_dir={model_dir}")
    left, right = tensors(undisturbed), tensors(model_dir)
    floats = [key for key in left if left[key].dtype.kind == "f" and "total" not in key]
    assert max(float(np.max(np.abs(left[key] - right[key]))) for key in floats) < 1e-4
    for ours, theirs in zip(lines(model_dir), lines(undisturbed), strict=True):
        assert (ours["step"], ours["split"], ours["examples"]) == (theirs["step"], theirs["split"], theirs["examples"])
        assert abs(ours["loss"] - theirs["loss"]) < 1e-3


def test_data_of_another_vocabulary_is_refused_before_anything_is_written(make_encoder, reviews, tmp_path):
    output = task(
        f"--encoder={make_encoder('tiny_albert')}", f"--data_dir={reviews}", f"--model_dir={tmp_path}/model", code=1
    )
    assert "vocabulary" in output
    assert "--encoder" in output
    assert not Path(tmp_path / "model").exists()

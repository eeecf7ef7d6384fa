"""The command itself, each time in a process of its own."""

import json
import os
import re
import shutil
import time

import numpy as np
import pytest
import sklearn.metrics
from helpers import python, task

from trainer.config import schema
from trainer.data import tasks
from trainer.evals import baseline
from trainer.runtime import help_text
from trainer.storage import fs


def test_help_answers_at_once_without_tensorflow():
    began = time.monotonic()
    done = python("-X", "importtime", "-m", "trainer.task", "--help")
    assert time.monotonic() - began < 2
    assert "--model_dir" in done.stdout
    assert "--virtual_devices" in done.stdout
    assert "python -m trainer.task --mode=evaluate" in done.stdout
    assert not [line for line in done.stderr.splitlines() if line.endswith(("tensorflow", "numpy"))]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--no_such_flag"], "--no_such_flag must be a flag"),
        (["--mode=tune"], "--mode must be one of train, evaluate, report, export, inspect_batches. Received: tune."),
        (["--split=dev"], "--split must be one of train, validation, test. Received: dev."),
        (["--virtual_devices=two"], "--virtual_devices must be an integer. Received: two."),
        (["--model_dir=m", "runs/mine"], "Every argument must be a flag, --name=value. Received: runs/mine."),
        ([], "--model_dir must name the run's folder. Received: none."),
    ],
)
def test_a_bad_flag_ends_with_2(arguments, words):
    done = task(*arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_every_configuration_error_is_reported_and_nothing_is_written(tmp_path):
    bad = ("optimizer.learning_rat=1", "data.seq_length=many", "training.epochs")
    done = task(f"--model_dir={tmp_path / 'run'}", *(f"--set={key}" for key in bad))
    assert done.returncode == 2
    for words in (
        "optimizer.learning_rate",
        "data.seq_length",
        "'many'",
        "--set must",
        "'training.epochs'",
    ):
        assert words in done.stderr
    assert not (tmp_path / "run").exists()


def test_every_wrong_value_of_a_key_s_flag_is_reported(tmp_path):
    done = task("--data.seq_length", "7.5", "--seed=x", f"--model_dir={tmp_path / 'run'}")
    assert done.returncode == 2
    for words in ("data.seq_length", "'7.5'", "seed", "'x'"):
        assert words in done.stderr
    assert not (tmp_path / "run").exists()


def test_every_unknown_flag_is_reported_with_the_nearest_one(tmp_path):
    done = task("--optimizer.learning_rat=1", "--data.batch=2", "--seed=1", f"--model_dir={tmp_path / 'run'}")
    assert done.returncode == 2
    for words in ("--optimizer.learning_rat ", "--optimizer.learning_rate", "--data.batch ", "--data.batch_size"):
        assert words in done.stderr
    assert "--seed" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_help_documents_every_key_with_its_default():
    text = " ".join(task("--help").stdout.split())
    for key, default in schema.DEFAULTS.items():
        shown = help_text.describe_values("", default).strip()
        assert re.search(
            rf" --{key}=VALUE {re.escape(schema.DESCRIPTIONS[key])} (Allowed values: [^.]*\. )?{shown}", text
        )


# --- Modes ---------------------------------------------------------------------------------------


def test_evaluate_takes_no_other_configuration(finished_run):
    done = task("--mode=evaluate", f"--model_dir={finished_run}", "--set=seed=1", "--config=configs/smoke.yaml")
    assert done.returncode == 2
    for flag in ("--seed", "--config"):
        assert f"{flag} must be left out where the configuration is that of the run" in done.stderr


def test_an_unknown_strategy_is_told_the_valid_ones(flags, tmp_path):
    done = task(*flags, f"--model_dir={tmp_path / 'run'}", "--strategy=horovod")
    assert done.returncode == 2
    assert "--strategy must be one of auto, cpu, one_device, mirrored" in done.stderr
    assert "Received: horovod." in done.stderr
    assert not (tmp_path / "run/checkpoints").exists()


def test_a_finished_run_is_not_run_again(flags, finished_run):
    before = {
        path: path.stat().st_mtime_ns for path in finished_run.rglob("*") if path.is_file() and path.name != ".lock"
    }
    done = task(*flags, f"--model_dir={finished_run}")
    assert done.returncode == 0
    assert f"{finished_run} holds this run, finished: nothing to do." in done.stderr
    assert "finished: 100 steps in" in done.stdout
    assert all(path.stat().st_mtime_ns == then for path, then in before.items())


def test_what_is_no_encoder_ends_with_1(flags, finished_run, tmp_path):
    done = task(*flags, f"--encoder={finished_run}/export", f"--model_dir={tmp_path}/run")
    assert done.returncode == 1
    assert "--encoder must be a text encoder" in done.stderr
    assert f"{finished_run}/export" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_second_run_on_the_same_model_dir_is_refused(flags, tmp_path):
    folder = str(tmp_path / "run")
    with fs.exclusive_lock(folder):
        done = task(*flags, f"--model_dir={folder}")
    assert done.returncode == 1
    assert f"--model_dir must be used by one run at a time. Received: {folder}, held by" in done.stderr


def test_evaluate_prints_the_encoder_and_the_baseline_beside_each_other(evaluated, prepared, tiny, finished_run):
    printed, _ = evaluated
    where, header, encoder, bag, *by_class = printed.splitlines()
    assert where == f"test of {prepared}"
    shown = ["loss", *(name for name in tasks.METRICS["classification"] if name != "loss")]
    assert header.split() == ["examples", *" ".join(shown).replace("_", " ").split()]
    assert encoder.startswith(str(tiny))
    assert bag.startswith(baseline.BASELINE_NAME)
    result = json.loads((finished_run / "result.json").read_text())["test"]
    figures, of_baseline = (line.split()[-len(shown) - 1 :] for line in (encoder, bag))
    assert figures == ["30", *(f"{result[name]:.4f}" for name in shown)]
    assert of_baseline[0] == "30"
    assert float(of_baseline[1 + shown.index("accuracy")]) >= 0.8
    assert [line.split(" ")[0] for line in by_class].count("negative") == 2  # Its scores and its confusion.


def test_the_report_of_a_finished_run_is_written_by_its_own_mode(finished_run, tmp_path):
    folder = shutil.copytree(
        finished_run, tmp_path / "run", ignore=shutil.ignore_patterns("report.html", "tensorboard")
    )
    done = task("--mode=report", f"--model_dir={folder}")
    assert done.returncode == 0, done.stderr
    assert f"{folder}/report.html written" in done.stdout.splitlines()
    assert (folder / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_the_predictions_give_the_results_metrics(evaluated, finished_run):
    _, rows = evaluated
    result = json.loads((finished_run / "result.json").read_text())["test"]
    labels, scores = np.array([row["label"] for row in rows]), np.array([row["scores"] for row in rows])
    guesses = scores.argmax(axis=1)
    positive = json.loads((finished_run / "identity.json").read_text())["positive_class"]
    index = ["negative", "positive"].index(positive)
    assert len({row["id"] for row in rows}) == result["examples"] == 30
    assert result == pytest.approx(
        {
            "examples": 30,
            "loss": np.mean([row["loss"] for row in rows]),
            "accuracy": sklearn.metrics.accuracy_score(labels, guesses),
            "precision": sklearn.metrics.precision_score(labels, guesses, pos_label=index),
            "recall": sklearn.metrics.recall_score(labels, guesses, pos_label=index),
            "f1": sklearn.metrics.f1_score(labels, guesses, pos_label=index),
            "macro_f1": sklearn.metrics.f1_score(labels, guesses, average="macro"),
            "matthews": sklearn.metrics.matthews_corrcoef(labels, guesses),
            "roc_auc": sklearn.metrics.roc_auc_score(labels, scores[:, 1]),
            "average_precision": sklearn.metrics.average_precision_score(labels == index, scores[:, index]),
        },
        abs=1e-6,
    )
    scores /= scores.sum(axis=1, keepdims=True)  # float32 rounds
    assert sklearn.metrics.log_loss(labels, scores) == pytest.approx(result["loss"], abs=1e-6)


def test_export_works_from_a_model_dir_alone(finished_run, tmp_path):
    folder = shutil.copytree(finished_run, tmp_path / "run", ignore=shutil.ignore_patterns("export"))
    done = task("--mode=export", f"--model_dir={folder}")
    assert done.returncode == 0, done.stderr
    assert f"{folder}/export written; its scores are within" in done.stdout
    assert (folder / "export/saved_model.pb").exists()
    assert (folder / "export/assets/vocab.txt").exists()


def inspected(*arguments) -> list[dict]:
    done = task("--mode=inspect_batches", *arguments)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_inspect_batches_prints_the_ids_of_the_next_batches(flags, finished_run, tmp_path):
    new = inspected(*flags, "--steps=18", f"--model_dir={tmp_path / 'new'}")
    assert [row["step"] for row in new] == list(range(1, 19))
    assert {len(row["ids"]) for row in new} == {16}
    first_epoch = [i for row in new[:15] for i in row["ids"]]
    assert len(set(first_epoch)) == 240
    assert not (tmp_path / "new").exists()
    begun = shutil.copytree(finished_run / "checkpoints", tmp_path / "begun/checkpoints")
    (begun / "checkpoint").write_text('model_checkpoint_path: "ckpt-40"\nall_model_checkpoint_paths: "ckpt-40"\n')
    going_on = inspected(*flags, "--steps=1000", f"--model_dir={tmp_path / 'begun'}")
    assert [row["step"] for row in going_on] == list(range(41, 101))


def test_a_model_dir_without_a_run_cannot_be_evaluated(tmp_path):
    done = task("--mode=evaluate", f"--model_dir={tmp_path}")
    assert done.returncode in (1, 2)
    assert "--model_dir must hold a run" in done.stderr
    assert str(tmp_path) in done.stderr
    assert "Traceback" not in done.stderr


# --- Several machines -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"TF_CONFIG": '{"cluster": '}, 'TF_CONFIG must be JSON such as {"cluster": {"worker": ["host:port", ...]}'),
        (
            {"TF_CONFIG": '{"sparseCluster": {"worker": {"1": "a:1"}}, "task": {"type": "worker", "index": 1}}'},
            "TF_CONFIG must describe the workers in `cluster` alone. Received: sparseCluster.",
        ),
    ],
    ids=["broken", "sparse"],
)
def test_a_cluster_that_cannot_be_ends_with_2_before_anything_is_written(flags, tmp_path, environment, words):
    folder = tmp_path / "run"
    done = task(*flags, f"--model_dir={folder}", "--strategy=auto", env={**os.environ, **environment})
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {words}")
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert not folder.exists()


def test_evaluation_is_of_one_machine(finished_run):
    before = {path: path.stat().st_mtime_ns for path in finished_run.rglob("*")}
    broken = {**os.environ, "TF_CONFIG": "left over from the training"}
    done = task("--mode=evaluate", f"--model_dir={finished_run}", "--strategy=multi_worker", env=broken)
    assert done.returncode == 2
    assert "--strategy must" in done.stderr
    assert "multi_worker" in done.stderr
    assert {path: path.stat().st_mtime_ns for path in finished_run.rglob("*")} == before

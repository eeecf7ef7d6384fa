"""Texts with several labels: prepared, trained, killed, resumed, evaluated, exported and predicted."""

import csv
import json

import numpy as np
import pyarrow.parquet
import pytest
import tensorflow as tf
from helpers import TOPICS, python, write_topics
from interruptions import JobCommand, assert_equal_runs, read_metrics

from trainer.data import manifests, records
from trainer.export import predict
from trainer.train import run_files, warm_start

pytestmark = pytest.mark.long

NAMES = tuple(TOPICS)
KEYS = (
    *("training.steps=150", "training.log_every=10", "training.save_every=20", "training.eval_every=50"),
    *("data.batch_size=16", "data.seq_length=24", "optimizer.learning_rate=1e-3", "logging.progress=off"),
)


@pytest.fixture(scope="module")
def data(tiny, tmp_path_factory):
    """A data set of 500 texts with lists of labels, and what its preparation printed."""
    folder = tmp_path_factory.mktemp("topics")
    source = write_topics(folder / "topics.jsonl", 500)
    where = ["--task=csv", f"--source={source}", f"--encoder={tiny}", f"--output={folder / 'data'}"]
    done = python("scripts/prepare_data.py", *where, "--multi_label", check=True)
    return folder / "data", done.stdout


@pytest.fixture(scope="module")
def flags(tiny, data):
    return [f"--encoder={tiny}", f"--data_dir={data[0]}", "--strategy=cpu", *(f"--set={key}" for key in KEYS)]


@pytest.fixture(scope="module")
def finished(flags, tmp_path_factory):
    """The model_dir of the finished run, and what it printed."""
    model_dir = tmp_path_factory.mktemp("runs") / "run"
    done = python("-m", "trainer.task", *flags, f"--model_dir={model_dir}", check=True)
    return model_dir, done.stdout


@pytest.fixture(scope="module")
def evaluated(finished, tmp_path_factory):
    """What --mode=evaluate prints with the baseline, and the predictions that it writes."""
    path = tmp_path_factory.mktemp("evaluated") / "predictions.jsonl"
    arguments = [f"--model_dir={finished[0]}", "--baseline", f"--predictions={path}"]
    done = python("-m", "trainer.task", "--mode=evaluate", *arguments, check=True)
    return done.stdout, [json.loads(line) for line in path.read_text().splitlines()]


def read_thresholds(model_dir):
    return json.loads((model_dir / "decision.json").read_text())["label_thresholds"]


def read_test(data):
    manifest = manifests.read_manifest(str(data[0]))
    return records.read_split(str(data[0]), manifest, "test", with_text=True)


def test_the_data_set_says_what_was_decided(data):
    folder, printed = data
    manifest = manifests.read_manifest(str(folder))
    assert (manifest.kind, manifest.labels) == ("multi_label", NAMES)
    assert "csv, multi_label" in printed
    assert " without a label)" in printed
    assert "  labels: 3 labels in 500 rows, " in printed
    done = python("scripts/prepare_data.py", f"--inspect={folder}", check=True)
    assert "example " in done.stdout


def test_each_label_is_ranked_above_chance_and_measured(data, finished):
    model_dir, printed = finished
    result = json.loads((model_dir / "result.json").read_text())
    assert result["best_metric"] == "micro_f1"
    # So few steps of random weights do not bring a rare label above 0.5, but above a threshold of its own.
    measured = result["decision"]["test"]
    assert result["test"]["micro_f1"] == pytest.approx(measured["with"]["micro_f1"])
    assert measured["with"]["micro_f1"] > max(0.6, measured["without"]["micro_f1"])
    assert list(result["decision"]["thresholds"].values()) == read_thresholds(model_dir)
    share = manifests.read_manifest(str(data[0])).splits["test"]
    for name, scores in result["test_classes"]["by_class"].items():
        assert scores["support"] == share.label_counts[name]
        assert scores["average_precision"] > 1.5 * share.label_counts[name] / share.examples
    assert result["test"].keys() >= {"macro_f1", "average_precision", "micro_average_precision", "subset_accuracy"}
    assert result["test_classes"]["by_class"].keys() == set(NAMES)
    assert "by validation micro f1" in printed
    assert "test by label" in printed
    assert all("accuracy" not in line for line in read_metrics(model_dir, "train"))
    assert (model_dir / "history.png").exists()


def test_a_killed_run_ends_bit_for_bit_like_one_that_was_not(flags, finished, tmp_path):
    model_dir = JobCommand(flags, 1).run_interrupted(tmp_path / "run", "training", "SIGTERM")
    assert_equal_runs(model_dir, finished[0])


def test_an_evaluation_has_the_labels_of_each_text_and_a_baseline(data, finished, evaluated):
    printed, rows = evaluated
    result, test = json.loads((finished[0] / "result.json").read_text()), read_test(data)
    limits = np.float32(read_thresholds(finished[0]))
    assert "baseline: TF-IDF + linear" in printed
    assert "tiny by label" in printed
    assert f"{result['test']['micro_f1']:.4f}" in printed
    assert [row["id"] for row in rows] == test.ids
    for row, labels in zip(rows, test.labels, strict=True):
        assert row["label_names"] == [name for name, one in zip(NAMES, labels, strict=True) if one]
        assert row["predicted"] == [name for name, above in zip(NAMES, row["scores"] > limits, strict=True) if above]


def test_the_export_returns_the_labels_above_their_thresholds(data, finished, evaluated):
    saved, signature = predict.load_export(str(finished[0] / "export"))
    test = read_test(data)
    outputs = signature(text=tf.constant(test.texts))
    scores, logits = outputs["scores"].numpy(), outputs["logits"].numpy().astype(np.float64)
    assert scores == pytest.approx(1 / (1 + np.exp(-logits)), abs=1e-6)
    assert scores == pytest.approx(np.array([row["scores"] for row in evaluated[1]]), abs=1e-4)
    own = saved.thresholds.numpy().tolist()
    assert own == read_thresholds(finished[0])
    for thresholds in (own, [0.0, 1.0, 0.3]):
        saved.thresholds.assign(thresholds)
        labels = signature(text=tf.constant(test.texts))["labels"].numpy()
        assert labels.tolist() == [
            [name.encode() if score > limit else b"" for name, score, limit in zip(NAMES, row, thresholds, strict=True)]
            for row in scores
        ]
    assert signature(text=tf.constant([], tf.string))["labels"].shape == (0, 3)


def test_predictions_can_be_data_again(tiny, data, finished, evaluated, tmp_path):
    test = read_test(data)
    with (tmp_path / "in.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["text"], *([text] for text in test.texts), [""]])
    expected = [row["predicted"] for row in evaluated[1]]
    arguments = [f"--model={finished[0] / 'export'}", f"--input={tmp_path / 'in.csv'}"]
    done = python("scripts/predict.py", *arguments, "--format=jsonl", check=True)
    printed = [json.loads(line) for line in done.stdout.splitlines()]
    assert [sorted(row["labels"]) for row in printed[:-1]] == expected
    assert printed[-1]["labels"] is None
    assert printed[0]["scores"].keys() == set(NAMES)
    for suffix in (".csv", ".parquet"):
        output = tmp_path / f"out{suffix}"
        python("scripts/predict.py", *arguments, f"--output={output}", check=True)
        where = ["--task=csv", f"--source={output}", f"--encoder={tiny}", f"--output={tmp_path / suffix}"]
        flags = ["--multi_label", "--label_column=labels", "--bad_rows=skip"]
        python("scripts/prepare_data.py", *where, *flags, check=True)
        manifest = manifests.read_manifest(str(tmp_path / suffix))
        found = {}
        for split in manifest.splits:
            columns = records.read_split(str(tmp_path / suffix), manifest, split)
            names = [[manifest.labels[i] for i in np.flatnonzero(row)] for row in columns.labels]
            found |= dict(zip(columns.ids, names, strict=True))
        assert [found[row] for row in range(len(expected))] == expected
    assert pyarrow.parquet.read_table(tmp_path / "out.parquet")["labels"].to_pylist()[-1] is None


def test_a_new_run_takes_the_head_of_the_same_labels(finished):
    parents = [warm_start.read_parent(str(finished[0] / name)) for name in ("best", "export")]
    assert [(parent.labels, parent.several_labels) for parent in parents] == [(NAMES, True)] * 2
    files = run_files.resolve_run_files(str(finished[0]))
    assert run_files.read_identity(files)["kind"] == "multi_label"


def test_what_does_not_suit_several_labels_is_refused(flags, data, finished, prepared, tmp_path):
    more = ["--data.positive_class=price", "--training.best_metric=accuracy", f"--model_dir={tmp_path / 'run'}"]
    done = python("-m", "trainer.task", *flags, *more)
    assert done.returncode == 2
    assert "data.positive_class must be left out" in done.stderr
    assert "training.best_metric must be one of micro_f1, " in done.stderr
    done = python("-m", "trainer.task", "--mode=evaluate", f"--model_dir={finished[0]}", f"--data_dir={prepared}")
    assert done.returncode == 1
    assert "must have several labels a text" in done.stderr


def test_a_classifier_of_token_ids_has_a_threshold_for_each_label(finished, tmp_path):
    model_dir, _ = finished
    arguments = [f"--model_dir={model_dir}", f"--output={tmp_path / 'out'}", "--format=litert_int8"]
    python("scripts/export_classifier.py", *arguments, check=True)
    described = json.loads((tmp_path / "out/classifier.json").read_text())
    assert described["scores"] == "sigmoid"
    assert list(described["label_thresholds"].values()) == pytest.approx(read_thresholds(model_dir))
    assert tuple(described["label_thresholds"]) == NAMES
    assert described["metrics"]["test"]["metric"] == "micro_f1"

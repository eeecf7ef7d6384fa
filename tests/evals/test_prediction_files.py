import dataclasses
import json
import os

import numpy as np
import pytest

from trainer.errors import UserError
from trainer.evals import prediction_files
from trainer.evals.metrics import Predictions
from trainer.evals.prediction_files import PredictionSource

CLASSES = PredictionSource("f" * 64, "test", "classification", ("no", "yes"))


def predictions(ids, labels, logits):
    return Predictions(ids, np.array(labels), np.array(logits, np.float32), np.full(len(ids), 0.5, np.float32))


def test_classes_are_read_as_they_were_written(tmp_path):
    path = str(tmp_path / "predictions.parquet")
    made = predictions([7, "a/b.txt"], np.array([1, 0], np.int32), [[0, 1], [0, 3]])
    prediction_files.write_predictions(path, made, CLASSES)
    kept = prediction_files.read_predictions(path)
    assert kept.source == CLASSES
    assert [json.loads(each) for each in kept.ids] == [7, "a/b.txt"]
    assert (kept.labels.tolist(), kept.predicted.tolist(), kept.losses.tolist()) == ([1, 0], [1, 1], [0.5, 0.5])


def test_numbers_are_read_as_they_were_written(tmp_path):
    path = str(tmp_path / "predictions.parquet")
    source = PredictionSource("f" * 64, "test", "regression", ())
    prediction_files.write_predictions(path, predictions([0], np.array([1.5], np.float32), [[1.25]]), source)
    kept = prediction_files.read_predictions(path)
    assert (kept.labels.tolist(), kept.predicted.tolist()) == ([1.5], [1.25])


def test_several_labels_are_read_as_they_were_decided(tmp_path):
    path = str(tmp_path / "predictions.parquet")
    source = PredictionSource("f" * 64, "test", "multi_label", ("a", "b"))
    labels, logits = np.array([[True, False], [True, True]]), [[0, 1], [-1, 3]]
    thresholds = np.array([0.4, 0.8], np.float32)
    made = dataclasses.replace(predictions([0, 1], labels, logits), label_thresholds=thresholds)
    prediction_files.write_predictions(path, made, source)
    kept = prediction_files.read_predictions(path)
    assert np.array_equal(kept.labels, made.labels)
    assert kept.predicted.tolist() == [[True, False], [False, True]]
    assert kept.right.tolist() == [True, False]


def test_pandas_reads_the_scores(tmp_path):
    import pyarrow.parquet

    path = str(tmp_path / "predictions.parquet")
    prediction_files.write_predictions(path, predictions([0], np.array([1], np.int32), [[0, 0]]), CLASSES)
    assert pyarrow.parquet.read_table(path)["scores"].to_pylist() == [[0.5, 0.5]]


def test_a_hundred_thousand_predictions_are_a_small_file(tmp_path):
    path, count = str(tmp_path / "predictions.parquet"), 100_000
    logits = np.random.default_rng(0).normal(size=(count, 2))
    made = predictions(list(range(count)), np.zeros(count, np.int32), logits)
    prediction_files.write_predictions(path, made, CLASSES)
    assert os.path.getsize(path) < 2_500_000


@pytest.mark.parametrize("content", [b"", b"PAR1 and no more", b"PAR1PAR1"])
def test_another_file_is_named(tmp_path, content):
    path = tmp_path / "predictions.parquet"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"predictions\.parquet must be a file of predictions"):
        prediction_files.read_predictions(str(path))

"""Metrics of several labels compared with scikit-learn's own of label indicators."""

import dataclasses
import warnings

import numpy as np
import pytest
import sklearn.metrics

from trainer.data import tasks
from trainer.evals import metrics, multi_label_metrics
from trainer.evals.metrics import Predictions

NAMES = ("a", "b", "c", "d")


def predictions(rows=200, seed=0, never=()) -> Predictions:
    rng = np.random.default_rng(seed)
    labels = rng.random((rows, 4)) < (0.5, 0.3, 0.1, 0.02)
    labels[:, list(never)] = False
    logits = (labels * 1.5 + rng.normal(size=(rows, 4)) - 0.8).astype(np.float32)
    return Predictions(list(range(rows)), labels, logits, rng.random(rows, np.float32))


def measure(found: Predictions, thresholds=None):
    return metrics.compute_metrics(dataclasses.replace(found, label_thresholds=thresholds), "multi_label")


@pytest.mark.parametrize("thresholds", [None, np.array([0.5, 0.3, 0.8, 0.0], np.float32)])
@pytest.mark.parametrize("never", [(), (3,), (1, 2)])
def test_the_metrics_are_scikit_learns(thresholds, never):
    found = predictions(never=never)
    labels, scores = found.labels.astype(int), 1 / (1 + np.exp(-found.logits.astype(np.float64)))
    chosen = (scores > (0.5 if thresholds is None else thresholds)).astype(int)
    present = labels.any(axis=0)
    expected = {
        "examples": 200,
        "loss": found.losses.astype(np.float64).mean(),
        "micro_f1": sklearn.metrics.f1_score(labels, chosen, average="micro"),
        "macro_f1": sklearn.metrics.f1_score(labels, chosen, average="macro", zero_division=0),
        "average_precision": sklearn.metrics.average_precision_score(labels[:, present], scores[:, present]),
        "micro_average_precision": sklearn.metrics.average_precision_score(labels, scores, average="micro"),
        "subset_accuracy": sklearn.metrics.accuracy_score(labels, chosen),
    }
    assert measure(found, thresholds) == pytest.approx(expected, abs=1e-6)
    assert list(measure(found))[2:] == [name for name in tasks.METRICS["multi_label"] if name != "loss"]


def test_what_is_undefined_is_left_out_and_nothing_warns():
    found = predictions(never=(0, 1, 2, 3))
    nothing = Predictions(found.ids, found.labels, np.full_like(found.logits, -5), found.losses)
    broken = Predictions(found.ids, predictions().labels, np.full_like(found.logits, np.nan), found.losses)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "average_precision" not in measure(found)
        assert measure(nothing)["micro_f1"] == 0
        assert measure(nothing)["subset_accuracy"] == 1
        assert measure(broken)["micro_f1"] == 0
        assert "micro_average_precision" not in measure(broken)


def test_one_label_alone_is_measured():
    found = predictions()
    one = Predictions(found.ids, found.labels[:, :1], found.logits[:, :1], found.losses)
    scores = measure(one)
    assert scores["micro_f1"] == scores["macro_f1"]
    assert scores["average_precision"] == scores["micro_average_precision"]


def test_each_label_has_its_scores():
    found = predictions(never=(3,))
    described = metrics.describe_classes(found, NAMES)
    assert described.keys() == {"by_class"}
    p, r, f, n = sklearn.metrics.precision_recall_fscore_support(found.labels, found.predicted, zero_division=0)
    for column, (name, values) in enumerate(described["by_class"].items()):
        assert name == NAMES[column]
        expected = {"precision": p[column], "recall": r[column], "f1": f[column], "support": n[column]}
        if n[column]:
            of_label = sklearn.metrics.average_precision_score(found.labels[:, column], found.scores[:, column])
            expected["average_precision"] = of_label
        assert values == pytest.approx(expected, abs=1e-6)
    assert multi_label_metrics.compute_micro_f1(found.labels, found.labels) == 1


def test_rows_of_predictions_have_the_names_of_labels():
    labels = np.array([[True, False, True], [False, False, False]])
    logits = np.array([[3, 1, -1], [-1, -2, -3]], np.float32)
    found = Predictions([5, "x"], labels, logits, np.array([0.5, 0.25], np.float32))
    first, second = metrics.prediction_rows(found, NAMES[:3])
    assert (first["id"], first["label"], first["label_names"], first["predicted"]) == (
        5,
        [0, 2],
        ["a", "c"],
        ["a", "b"],
    )
    assert first["scores"] == pytest.approx([0.9526, 0.7311, 0.2689], abs=1e-4)
    assert (second["label_names"], second["predicted"], second["loss"]) == ([], [], 0.25)
    (_, of_thresholds) = metrics.prediction_rows(
        dataclasses.replace(found, label_thresholds=np.array([0.2, 0.2, 0.2], np.float32)), NAMES[:3]
    )
    assert of_thresholds["predicted"] == ["a"]

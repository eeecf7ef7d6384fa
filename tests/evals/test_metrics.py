"""Metrics against formulas written out by hand."""

import math

import numpy as np
import pytest

from trainer.evals import metrics
from trainer.evals.metrics import Predictions

RNG = np.random.default_rng(0)


def predictions(labels, logits) -> Predictions:
    logits = np.array(logits, np.float32)
    labels = np.array(labels, np.int32 if logits.shape[1] > 1 else np.float32)
    return Predictions(list(range(len(labels))), labels, logits, RNG.random(len(labels), np.float32))


def classify(labels, logits):
    return metrics.compute_metrics(predictions(labels, logits), "classification")


def regress(labels, values):
    return metrics.compute_metrics(predictions(labels, np.array(values)[:, np.newaxis]), "regression")


def ratio(a, b) -> float:
    return a / b if b else 0.0


def by_hand(labels, guesses, positive):
    """(precision, recall, F1) of one class."""
    both = sum(g == positive == y for g, y in zip(guesses, labels, strict=True))
    precision, recall = ratio(both, sum(guesses == positive)), ratio(both, sum(labels == positive))
    return precision, recall, ratio(2 * precision * recall, precision + recall)


def auc_by_hand(positive, scores) -> float:
    """The share of pairs, one of the class and one not, that the scores order rightly; a tie is half."""
    pairs = [
        (a, b)
        for a, p in zip(scores, positive, strict=True)
        for b, q in zip(scores, positive, strict=True)
        if p and not q
    ]
    return sum((a > b) + (a == b) / 2 for a, b in pairs) / len(pairs)


def correlation_by_hand(x, y) -> float:
    x, y = x - x.mean(), y - y.mean()
    return float((x * y).sum() / math.sqrt((x * x).sum() * (y * y).sum()))


def ranks(values):
    """From 1; equals share the mean of their places."""
    return np.array([(values < v).sum() + ((values == v).sum() + 1) / 2 for v in values])


def test_two_classes_are_measured_by_class_1():
    labels = RNG.integers(0, 2, 60)
    logits = np.round(RNG.normal(size=(60, 2)), 1)  # rounded: some scores tie
    logits[:, 1] += labels
    found = classify(labels, logits)
    precision, recall, f1 = by_hand(labels, logits.argmax(1), 1)
    auc = auc_by_hand(labels == 1, predictions(labels, logits).scores[:, 1])
    expected = dict(
        accuracy=np.mean(logits.argmax(1) == labels), precision=precision, recall=recall, f1=f1, roc_auc=auc
    )
    assert list(found)[:2] == ["examples", "loss"]
    assert found["examples"] == 60
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-9)


def test_many_classes_are_measured_by_the_mean_of_all_though_one_is_never_guessed():
    labels = np.arange(80) % 4
    logits = RNG.normal(size=(80, 4)) + 1.5 * np.eye(4)[labels]
    logits[:, 3] = -9  # never guessed, but ranked
    found = classify(labels, logits)
    each = [by_hand(labels, logits.argmax(1), c) for c in range(4)]
    scores = predictions(labels, logits).scores
    auc = np.mean([auc_by_hand(labels == c, scores[:, c]) for c in range(4)])
    precision, recall, f1 = np.mean(each, axis=0)
    expected = dict(
        accuracy=np.mean(logits.argmax(1) == labels), precision=precision, recall=recall, f1=f1, roc_auc=auc
    )
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-6)


def test_scores_are_probabilities_or_the_values():
    logits = np.array([[0.0, math.log(3)], [1000.0, 0.0]])
    assert predictions([0, 1], logits).scores == pytest.approx(np.array([[0.25, 0.75], [1.0, 0.0]]))
    assert predictions([0.5], [[2.5]]).scores.tolist() == [[2.5]]


def test_numbers_are_measured_by_both_correlations_and_the_squared_error():
    labels = np.round(RNG.normal(size=50), 1)  # rounded: some tie
    values = np.round(np.exp(labels) + RNG.normal(size=50), 1)
    found = regress(labels, values)
    assert found["pearson"] == pytest.approx(correlation_by_hand(values, labels), abs=1e-6)
    assert found["spearman"] == pytest.approx(correlation_by_hand(ranks(values), ranks(labels)), abs=1e-6)
    assert found["mean_squared_error"] == pytest.approx(((values - labels) ** 2).mean(), rel=1e-5)


def test_a_correlation_does_not_suffer_from_a_large_mean():
    labels = RNG.normal(size=200).astype(np.float32)
    values = (10_000 + labels).astype(np.float32)
    expected = correlation_by_hand(values.astype(np.float64), labels.astype(np.float64))
    assert regress(labels, values)["pearson"] == pytest.approx(expected, abs=1e-9)


def test_the_loss_is_the_mean_over_all_examples():
    given = predictions([0, 1, 1], [[1, 0], [0, 1], [1, 0]])
    assert metrics.compute_metrics(given, "classification")["loss"] == pytest.approx(sum(map(float, given.losses)) / 3)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("labels", "logits"),
    [
        ([1, 1, 1], [[0, 1], [0, 1], [1, 0]]),  # one class only
        ([0], [[1, 0]]),  # one example
        ([0, 1, 1], [[1, 0, 0], [0, 1, 0], [0, 1, 0]]),  # the third class has no example
    ],
)
def test_a_metric_that_the_labels_leave_undefined_is_left_out_in_silence(labels, logits):
    found = classify(labels, logits)
    assert "roc_auc" not in found
    assert found["accuracy"] == pytest.approx(np.mean(np.argmax(logits, 1) == labels))
    assert all(math.isfinite(value) for value in found.values())


@pytest.mark.filterwarnings("error")
def test_a_class_that_is_never_guessed_has_precision_0_in_silence():
    found = classify([0, 1], [[1, 0], [1, 0]])
    assert (found["precision"], found["recall"], found["f1"]) == (0, 0, 0)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("labels", "values"), [([1, 2, 3], [5, 5, 5]), ([2, 2, 2], [1, 2, 3]), ([1], [1])])
def test_a_model_that_always_answers_the_same_has_correlation_0_in_silence(labels, values):
    found = regress(labels, values)
    assert (found["pearson"], found["spearman"]) == (0, 0)


def test_rows_are_plain_values_in_order():
    given = Predictions(
        ["a.txt", 7], np.array([1, 0], np.int32), np.zeros((2, 2), np.float32), np.array([0.5, 0.25], np.float32)
    )
    assert list(metrics.prediction_rows(given)) == [
        {"id": "a.txt", "label": 1, "scores": [0.5, 0.5], "loss": 0.5},
        {"id": 7, "label": 0, "scores": [0.5, 0.5], "loss": 0.25},
    ]

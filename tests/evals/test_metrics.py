"""Metrics compared with their formulas, written out in Python."""

import dataclasses
import math

import numpy as np
import pytest
import sklearn.metrics

from trainer.data import tasks
from trainer.data.label_scale import RatingRange
from trainer.evals import metrics
from trainer.evals.metrics import Predictions, Threshold

RNG = np.random.default_rng(0)


def predictions(labels, logits) -> Predictions:
    logits = np.array(logits, np.float32)
    labels = np.array(labels, np.int32 if logits.shape[1] > 1 else np.float32)
    return Predictions(list(range(len(labels))), labels, logits, RNG.random(len(labels), np.float32))


def classify(labels, logits, positive=None):
    return metrics.compute_metrics(predictions(labels, logits), "classification", positive)


def regress(labels, values):
    return metrics.compute_metrics(predictions(labels, np.array(values)[:, np.newaxis]), "regression")


def ratio(a, b) -> float:
    return a / b if b else 0.0


def expected_precision_recall_f1(labels, predicted, positive):
    """(precision, recall, F1) of one class."""
    both = sum(g == positive == y for g, y in zip(predicted, labels, strict=True))
    precision, recall = ratio(both, sum(predicted == positive)), ratio(both, sum(labels == positive))
    return precision, recall, ratio(2 * precision * recall, precision + recall)


def expected_auc(positive, scores) -> float:
    """The share of pairs of an example of the class and another one whose scores are in order; a tie counts half."""
    pairs = [
        (a, b)
        for a, p in zip(scores, positive, strict=True)
        for b, q in zip(scores, positive, strict=True)
        if p and not q
    ]
    return sum((a > b) + (a == b) / 2 for a, b in pairs) / len(pairs)


def expected_correlation(x, y) -> float:
    x, y = x - x.mean(), y - y.mean()
    return float((x * y).sum() / math.sqrt((x * x).sum() * (y * y).sum()))


def ranks(values):
    """Ranks from 1; equal values share the mean of their ranks."""
    return np.array([(values < v).sum() + ((values == v).sum() + 1) / 2 for v in values])


def expected_average_precision(positive, scores) -> float:
    """The mean of the precision at each example of the class, in the order of the scores, which differ."""
    found = np.cumsum(positive[np.argsort(-scores)])
    ranked = positive[np.argsort(-scores)]
    return float(np.mean((found / np.arange(1, len(scores) + 1))[ranked]))


@pytest.mark.parametrize(
    ("kind", "labels"),
    [("classification", [0, 1, 2]), ("regression", [1.0, 2.0, 5.0]), ("multi_label", np.eye(3, dtype=bool))],
)
def test_every_metric_that_is_computed_can_select_the_best(kind, labels):
    logits = RNG.normal(size=(3, 1 if kind == "regression" else 3)).astype(np.float32)
    p = Predictions([0, 1, 2], np.array(labels), logits, np.zeros(3, np.float32))
    measured = metrics.compute_metrics(p, kind, rating_range=RatingRange(1, 5))
    assert measured.keys() - {"examples"} == set(tasks.METRICS[kind])


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("positive", [0, 1])
def test_the_metrics_are_those_of_the_positive_class(classes, positive):
    labels = RNG.integers(0, classes, 60)
    logits = RNG.normal(size=(60, classes)) + 0.5 * np.eye(classes)[labels]
    logits = np.round(logits, 1)  # So that some scores tie.
    measured = classify(labels, logits, positive)
    predicted = logits.argmax(1)
    precision, recall, f1 = expected_precision_recall_f1(labels, predicted, positive)
    auc = expected_auc(labels == positive, predictions(labels, logits).scores[:, positive])
    macro_f1 = np.mean([expected_precision_recall_f1(labels, predicted, c)[2] for c in range(classes)])
    expected = dict(accuracy=np.mean(predicted == labels), precision=precision, recall=recall, f1=f1, macro_f1=macro_f1)
    assert list(measured)[:2] == ["examples", "loss"]
    assert measured["examples"] == 60
    assert {name: measured[name] for name in expected} == pytest.approx(expected, abs=1e-9)
    assert measured["roc_auc"] == pytest.approx(auc, abs=1e-9)


def test_without_a_positive_class_metrics_are_means_over_the_classes():
    labels = np.arange(80) % 4
    logits = RNG.normal(size=(80, 4)) + 1.5 * np.eye(4)[labels]
    logits[:, 3] = -9  # Never predicted, but ranked.
    measured = classify(labels, logits)
    each = [expected_precision_recall_f1(labels, logits.argmax(1), c) for c in range(4)]
    scores = predictions(labels, logits).scores
    auc = np.mean([expected_auc(labels == c, scores[:, c]) for c in range(4)])
    average_precision = np.mean([expected_average_precision(labels == c, scores[:, c]) for c in range(4)])
    precision, recall, f1 = np.mean(each, axis=0)
    expected = dict(accuracy=np.mean(logits.argmax(1) == labels), precision=precision, recall=recall, f1=f1)
    expected |= dict(macro_f1=f1, roc_auc=auc, average_precision=average_precision)
    assert {name: measured[name] for name in expected} == pytest.approx(expected, abs=1e-6)


def expected_matthews(labels, predicted, classes) -> float:
    """Gorodkin's correlation of K classes, from the sums of their confusion (Comput. Biol. Chem. 28, 2004, eq. 8)."""
    confusion = np.array([[sum((labels == k) & (predicted == m)) for m in range(classes)] for k in range(classes)])
    true, guessed, total = confusion.sum(1), confusion.sum(0), confusion.sum()
    covariance = np.trace(confusion) * total - true @ guessed
    return covariance / math.sqrt((total**2 - guessed @ guessed) * (total**2 - true @ true))


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_matthews_correlation_is_that_of_all_classes(classes):
    labels = RNG.integers(0, classes, 70)
    logits = RNG.normal(size=(70, classes)) + np.eye(classes)[labels]
    predicted = logits.argmax(1)
    measured = classify(labels, logits)["matthews"]
    assert measured == pytest.approx(expected_matthews(labels, predicted, classes), abs=1e-9)
    if classes == 2:  # Matthews, Biochim. Biophys. Acta 405, 1975.
        tp, tn = (sum((labels == c) & (predicted == c)) for c in (1, 0))
        fp, fn = sum((labels == 0) & (predicted == 1)), sum((labels == 1) & (predicted == 0))
        root = math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
        assert measured == pytest.approx((tp * tn - fp * fn) / root, abs=1e-9)


@pytest.mark.filterwarnings("error")
def test_matthews_correlation_of_one_answer_is_0():
    assert (
        classify([0, 1, 1], [[0, 1]] * 3)["matthews"] == classify([1, 1, 1], [[0, 1], [1, 0], [0, 1]])["matthews"] == 0
    )


def test_a_model_that_never_finds_the_rare_class_does_not_shine():
    measured = classify([0] * 19 + [1], [[2.0, 0.0]] * 20, positive=1)
    assert measured["accuracy"] == 0.95
    assert (measured["precision"], measured["recall"], measured["f1"]) == (0, 0, 0)
    assert measured["macro_f1"] == pytest.approx((2 * 0.95 / 1.95) / 2)
    assert (measured["roc_auc"], measured["average_precision"]) == pytest.approx((0.5, 0.05))


def test_classes_are_described_by_name():
    labels, logits = [0, 0, 0, 1], [[1, 0], [1, 0], [0, 1], [0, 1]]
    described = metrics.describe_classes(predictions(labels, logits), ("ok", "fraud"))
    assert described == {
        "by_class": {
            "ok": {"precision": 1.0, "recall": pytest.approx(2 / 3), "f1": pytest.approx(0.8), "support": 3},
            "fraud": {"precision": 0.5, "recall": 1.0, "f1": pytest.approx(2 / 3), "support": 1},
        },
        "confusion": {"ok": {"ok": 2, "fraud": 1}, "fraud": {"fraud": 1}},
    }


def test_a_class_without_an_example_is_described_too():
    described = metrics.describe_classes(predictions([0, 1], [[1, 0, 0], [1, 0, 0]]), ("a", "b", "c"))
    assert described["by_class"]["c"] == {"precision": 0, "recall": 0, "f1": 0, "support": 0}
    assert described["confusion"] == {"a": {"a": 1}, "b": {"a": 1}, "c": {}}


@pytest.mark.parametrize("kind", ["likeliest", "threshold", "several"])
def test_labels_change_when_scores_move_by_more_than_their_margin(kind):
    found = predictions(RNG.integers(0, 3, 50), RNG.normal(size=(50, 3)))
    if kind == "threshold":
        found = dataclasses.replace(predictions([0] * 50, RNG.normal(size=(50, 2))), threshold=Threshold(0, 0.3))
    if kind == "several":
        limits = np.array([0.2, 0.5, 0.8], np.float32)
        found = dataclasses.replace(found, labels=np.zeros([50, 3], bool), label_thresholds=limits)
    scores, predicted = found.scores.astype(np.float64), found.predicted

    def decide(scores):
        if kind == "threshold":
            return np.where(scores[:, 0] > np.float32(0.3), 0, 1)
        return scores > limits if kind == "several" else scores.argmax(axis=1)

    # Each score moves to where it makes another label likelier.
    against = predicted if kind == "several" else np.arange(scores.shape[1]) == predicted[:, np.newaxis]
    for share, changes in ((0.99, False), (1.01, True)):
        margins = found.margins if kind == "several" else found.margins[:, np.newaxis]
        moved = scores + share * margins * np.where(against, -1, 1)
        assert (decide(moved) != predicted).all() == (decide(moved) != predicted).any() == changes
    assert found.margins.shape == predicted.shape


def test_scores_are_probabilities_or_values():
    logits = np.array([[0.0, math.log(3)], [1000.0, 0.0]])
    assert predictions([0, 1], logits).scores == pytest.approx(np.array([[0.25, 0.75], [1.0, 0.0]]))
    assert predictions([0.5], [[2.5]]).scores.tolist() == [[2.5]]


def test_regression_metrics_match_their_formulas():
    labels = np.round(RNG.normal(size=50), 1)  # Rounded, so that some values tie.
    values = np.round(np.exp(labels) + RNG.normal(size=50), 1)
    measured = regress(labels, values)
    assert measured["pearson"] == pytest.approx(expected_correlation(values, labels), abs=1e-6)
    assert measured["spearman"] == pytest.approx(expected_correlation(ranks(values), ranks(labels)), abs=1e-6)
    assert measured["mean_squared_error"] == pytest.approx(((values - labels) ** 2).mean(), rel=1e-5)


def test_a_correlation_is_exact_for_a_large_mean():
    labels = RNG.normal(size=200).astype(np.float32)
    values = (10_000 + labels).astype(np.float32)
    expected = expected_correlation(values.astype(np.float64), labels.astype(np.float64))
    assert regress(labels, values)["pearson"] == pytest.approx(expected, abs=1e-9)


def test_the_loss_is_the_mean_over_all_examples():
    predicted = predictions([0, 1, 1], [[1, 0], [0, 1], [1, 0]])
    assert metrics.compute_metrics(predicted, "classification")["loss"] == pytest.approx(
        sum(map(float, predicted.losses)) / 3
    )


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("labels", "logits"),
    [
        ([1, 1, 1], [[0, 1], [0, 1], [1, 0]]),  # Only one class has examples.
        ([0], [[1, 0]]),  # There is only one example.
        ([0, 1, 1], [[1, 0, 0], [0, 1, 0], [0, 1, 0]]),  # The third class has no example.
    ],
)
def test_an_undefined_metric_is_left_out_without_a_warning(labels, logits):
    measured = classify(labels, logits)
    assert not {"roc_auc", "average_precision"} & measured.keys()
    assert measured["accuracy"] == pytest.approx(np.mean(np.argmax(logits, 1) == labels))
    assert all(math.isfinite(value) for value in measured.values())


@pytest.mark.filterwarnings("error")
def test_a_class_that_is_never_predicted_has_precision_0():
    measured = classify([0, 1], [[1, 0], [1, 0]], positive=1)
    assert (measured["precision"], measured["recall"], measured["f1"]) == (0, 0, 0)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("labels", "values"), [([1, 2, 3], [5, 5, 5]), ([2, 2, 2], [1, 2, 3]), ([1], [1])])
def test_constant_predictions_or_labels_have_correlation_0(labels, values):
    measured = regress(labels, values)
    assert (measured["pearson"], measured["spearman"]) == (0, 0)


def test_prediction_rows_are_json_values_in_order():
    predicted = Predictions(
        ["a.txt", 7], np.array([1, 0], np.int32), np.zeros((2, 2), np.float32), np.array([0.5, 0.25], np.float32)
    )
    assert list(metrics.prediction_rows(predicted, ("bad", "good"))) == [
        {"id": "a.txt", "label": 1, "label_name": "good", "predicted": "bad", "scores": [0.5, 0.5], "loss": 0.5},
        {"id": 7, "label": 0, "label_name": "bad", "predicted": "bad", "scores": [0.5, 0.5], "loss": 0.25},
    ]
    number = Predictions([0], np.array([90.5], np.float32), np.array([[90.0]], np.float32), np.array([0.25]))
    assert list(metrics.prediction_rows(number, ())) == [{"id": 0, "label": 90.5, "scores": [90.0], "loss": 0.25}]


def rate(labels, values):
    p = predictions(labels, np.array(values, np.float32)[:, np.newaxis])
    return metrics.compute_metrics(p, "regression", rating_range=RatingRange(1, 5))


def test_ratings_are_rounded_into_the_range_of_their_labels():
    labels, values = [1, 2, 3, 5, 5, 4], [-7.0, 2.4, 3.6, 4.6, 9.0, 4.49]
    rated = [1, 2, 4, 5, 5, 4]
    measured = rate(labels, values)
    assert measured["accuracy"] == pytest.approx(5 / 6)
    expected = sklearn.metrics.cohen_kappa_score(labels, rated, weights="quadratic", labels=range(1, 6))
    assert measured["quadratic_kappa"] == pytest.approx(expected)
    assert list(measured) == [
        *("examples", "loss", "pearson", "spearman", "mean_squared_error", "accuracy", "quadratic_kappa"),
    ]


def test_the_kappa_counts_ratings_that_do_not_occur():
    """scikit-learn, not told the ratings, takes 1, 2 and 5 for neighbors."""
    labels, rated = RNG.choice([1, 2, 5], 60), RNG.choice([1, 2, 5], 60)
    expected = sklearn.metrics.cohen_kappa_score(labels, rated, weights="quadratic", labels=range(1, 6))
    assert rate(labels, rated)["quadratic_kappa"] == pytest.approx(expected)


def test_one_rating_alone_has_no_agreement():
    assert rate([3, 3], [3.2, 2.9])["quadratic_kappa"] == 0
    assert rate([3, 4], [3.2, 2.9])["quadratic_kappa"] == 0
    assert rate([3, 3], [3.2, 2.9])["accuracy"] == 1


def test_other_numbers_have_no_metrics_of_ratings():
    assert {"accuracy", "quadratic_kappa"}.isdisjoint(regress([0.5, 1.5], [0.4, 1.4]))


def test_a_label_that_is_no_rating_is_never_right():
    assert rate([2.5, 7], [2.5, 7.0])["accuracy"] == 0


def test_a_threshold_decides_between_two_classes():
    p = predictions([0, 1, 1, 0], np.log([[0.8, 0.2], [0.65, 0.35], [0.3, 0.7], [0.6, 0.4]]))
    of_first = dataclasses.replace(p, threshold=metrics.Threshold(0, 0.75))
    of_second = dataclasses.replace(p, threshold=metrics.Threshold(1, 0.3))
    assert p.predicted.tolist() == [0, 0, 1, 0]
    assert of_first.predicted.tolist() == [0, 1, 1, 1]
    assert of_second.predicted.tolist() == [0, 1, 1, 1]
    measured = metrics.compute_metrics(of_second, "classification", 1)
    assert (measured["accuracy"], measured["recall"]) == (0.75, 1)
    assert measured["matthews"] == pytest.approx(1 / math.sqrt(3))
    assert metrics.describe_classes(of_second, ("a", "b"))["confusion"] == {"a": {"a": 1, "b": 1}, "b": {"b": 2}}
    assert [row["predicted"] for row in metrics.prediction_rows(of_second, ("a", "b"))] == ["a", "b", "b", "b"]


def test_a_temperature_changes_the_scores_alone():
    p = predictions([0, 1], [[3.0, 0.0], [0.5, 1.0]])
    warm = dataclasses.replace(p, temperature=2.0)
    halved = predictions([0, 1], [[1.5, 0.0], [0.25, 0.5]])
    assert warm.scores == pytest.approx(halved.scores)
    assert (warm.predicted == p.predicted).all()
    assert metrics.compute_metrics(warm, "classification", 1)["loss"] == pytest.approx(np.mean(p.losses))

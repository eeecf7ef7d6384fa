import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

from trainer.comparison import paired
from trainer.evals.prediction_files import KeptPredictions, PredictionSource


def draw(seed, count, share):
    """(labels, predictions of which about `share` are right) of three classes."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(3, size=count)
    wrong = (labels + rng.integers(1, 3, size=count)) % 3
    return labels, np.where(rng.random(count) < share, labels, wrong)


def test_measures_are_scikit_learns(read):
    labels, predicted = draw(0, 60, 0.7)
    (first, _) = read(labels, predicted, predicted)
    rows = np.random.default_rng(1).integers(60, size=60)
    measures = paired.build_measures(first)
    assert measures["accuracy"](rows) == pytest.approx(sklearn.metrics.accuracy_score(labels[rows], predicted[rows]))
    expected = sklearn.metrics.f1_score(
        labels[rows], predicted[rows], labels=range(3), average="macro", zero_division=0
    )
    assert measures["macro_f1"](rows) == pytest.approx(expected)
    assert measures["loss"](np.arange(60)) == pytest.approx(float(first.losses.mean()), rel=1e-6)


def test_measures_of_numbers_are_scipys(read):
    rng = np.random.default_rng(0)
    labels = rng.normal(90, 5, size=40)
    predicted = labels + rng.normal(size=40)
    (first, _) = read(labels, predicted, predicted, kind="regression")
    rows = rng.integers(40, size=40)
    measures = paired.build_measures(first)
    x, y = first.labels[rows].astype(float), first.predicted[rows].astype(float)
    assert measures["pearson"](rows) == pytest.approx(scipy.stats.pearsonr(x, y).statistic)
    assert measures["mean_squared_error"](rows) == pytest.approx(((x - y) ** 2).mean())
    assert measures["pearson"](np.zeros(5, int)) == 0.0  # A resample of one example.


def test_measures_of_several_labels_are_scikit_learns():
    rng = np.random.default_rng(0)
    labels, decided = rng.random((40, 3)) < 0.5, rng.random((40, 3)) < 0.5
    source = PredictionSource("f" * 64, "test", "multi_label", ("a", "b", "c"))
    kept = KeptPredictions(source, tuple(map(str, range(40))), labels, decided, np.ones(40, np.float32))
    rows = rng.integers(40, size=40)
    measures = paired.build_measures(kept)
    expected = sklearn.metrics.f1_score(labels[rows], decided[rows], average="micro")
    assert measures["micro_f1"](rows) == pytest.approx(expected)
    assert measures["subset_accuracy"](rows) == sklearn.metrics.accuracy_score(labels[rows], decided[rows])


def test_equal_runs_differ_by_nothing(read):
    labels, predicted = draw(0, 50, 0.7)
    first, second = read(labels, predicted, predicted)
    for each in paired.bootstrap_differences(first, second, 1000):
        assert (each.value, each.low, each.high) == (0.0, 0.0, 0.0)
    found = paired.compare_right_answers(first, second)
    assert (found.only_first, found.only_second, found.p_value) == (0, 0, 1.0)


def test_an_interval_is_that_of_the_normal_approximation(read):
    labels, weak = draw(1, 2000, 0.6)
    _, strong = draw(1, 2000, 0.8)
    first, second = read(labels, weak, strong)
    found = {each.metric: each for each in paired.bootstrap_differences(first, second, 2000)}
    gains = (labels == strong).astype(float) - (labels == weak)
    expected, error = gains.mean(), gains.std() / np.sqrt(2000)
    accuracy = found["accuracy"]
    assert accuracy.value == pytest.approx(expected)
    assert accuracy.low == pytest.approx(expected - 1.96 * error, abs=0.15 * error)
    assert accuracy.high == pytest.approx(expected + 1.96 * error, abs=0.15 * error)
    assert found["macro_f1"].low > 0
    assert paired.bootstrap_differences(first, second, 2000)[0] == accuracy  # The same call, the same interval.


def test_mcnemar_is_the_exact_binomial_test(read):
    labels = [0] * 20
    first, second = read(labels, [0] * 12 + [1] * 8, [1] * 2 + [0] * 16 + [1] * 2)
    found = paired.compare_right_answers(first, second)
    assert (found.only_first, found.only_second) == (2, 6)
    assert found.p_value == pytest.approx(2 * (1 + 8 + 28) / 2**8)


def test_numbers_have_no_mcnemar(read):
    first, second = read([1.0, 2.0, 4.0], [1.0, 2.0, 3.0], [2.0, 2.0, 3.0], kind="regression")
    assert paired.compare_right_answers(first, second) is None

import time

import numpy as np
import pytest
import sklearn.metrics

from trainer.evals import thresholds

RNG = np.random.default_rng(0)
EXPECTED = {
    "f1": lambda labels, predicted: sklearn.metrics.f1_score(labels, predicted, zero_division=0),
    "macro_f1": lambda labels, predicted: sklearn.metrics.f1_score(
        labels, predicted, average="macro", labels=[False, True], zero_division=0
    ),
    "accuracy": sklearn.metrics.accuracy_score,
    "balanced_accuracy": sklearn.metrics.balanced_accuracy_score,
}


@pytest.mark.parametrize("metric", thresholds.METRICS)
@pytest.mark.parametrize("digits", [1, 6])
def test_no_other_threshold_has_a_higher_metric(metric, digits):
    for _ in range(20):
        labels = RNG.random(40) < 0.3
        scores = np.round(np.clip(RNG.normal(0.4 + 0.2 * labels, 0.2), 0, 1), digits).astype(np.float32)
        chosen = thresholds.choose_threshold(scores, labels, metric)
        value = EXPECTED[metric](labels, scores > np.float32(chosen))
        assert thresholds.measure(labels, thresholds.apply_threshold(scores, chosen), metric) == pytest.approx(value)
        others = (EXPECTED[metric](labels, scores > other) for other in [0, 0.5, *scores])
        assert value >= max(others) - 1e-12


def test_a_threshold_is_halfway_between_two_scores():
    scores, labels = np.array([0.1, 0.2, 0.3, 0.35], np.float32), np.array([0, 0, 1, 1])
    assert thresholds.choose_threshold(scores, labels, "f1") == pytest.approx(0.25)


def test_of_equal_thresholds_the_nearest_to_a_half_is_chosen():
    scores, labels = np.array([0.1, 0.3, 0.6, 0.9], np.float32), np.array([0, 0, 1, 1])
    assert thresholds.choose_threshold(scores, labels, "f1") == 0.5
    # One mistake in any case, between 0.1 and 0.4 or above 0.8.
    scores, labels = np.array([0.1, 0.4, 0.6, 0.8, 0.9], np.float32), np.array([0, 1, 0, 0, 1])
    assert thresholds.choose_threshold(scores, labels, "accuracy") == pytest.approx(0.85)


def test_neighboring_numbers_of_float32_are_separated():
    low = np.float32(0.3)
    scores = np.array([low, np.nextafter(low, np.float32(1))], np.float32)
    chosen = thresholds.choose_threshold(scores, np.array([0, 1]), "f1")
    assert thresholds.apply_threshold(scores, chosen).tolist() == [False, True]


@pytest.mark.parametrize("label", [0, 1])
def test_examples_of_one_kind_keep_a_half(label):
    assert thresholds.choose_threshold(np.array([0.1, 0.9], np.float32), np.full(2, label), "f1") == 0.5


def test_an_accuracy_is_best_without_any_positive():
    scores, labels = np.array([0.9, 0.8, 0.7, 0.6], np.float32), np.array([0, 0, 0, 1])
    assert thresholds.choose_threshold(scores, labels, "accuracy") == pytest.approx(0.95)


def test_scores_that_are_all_alike_separate_nothing():
    scores, labels = np.full(4, 0.3, np.float32), np.array([0, 0, 1, 1])
    assert thresholds.choose_threshold(scores, labels, "f1") == pytest.approx(0.15)  # All are positive.
    assert thresholds.choose_threshold(scores, labels, "accuracy") == 0.5


def test_each_label_has_a_threshold_of_its_own():
    labels = RNG.random((60, 3)) < [0.3, 0.5, 0.1]
    labels[:, 2] = False
    scores = np.clip(RNG.normal(0.4 + 0.2 * labels, 0.2), 0, 1).astype(np.float32)
    chosen = thresholds.choose_label_thresholds(scores, labels)
    assert chosen.dtype == np.float32
    assert chosen[2] == 0.5
    for column in (0, 1):
        assert chosen[column] == np.float32(thresholds.choose_threshold(scores[:, column], labels[:, column], "f1"))
    assert thresholds.apply_threshold(scores, chosen).tolist() == (scores > chosen).tolist()


def test_many_examples_take_one_sort():
    labels = RNG.random(300_000) < 0.1
    scores = RNG.random(300_000).astype(np.float32)
    started = time.monotonic()
    thresholds.choose_threshold(scores, labels, "macro_f1")
    assert time.monotonic() - started < 5  # By trying each threshold it would take minutes.

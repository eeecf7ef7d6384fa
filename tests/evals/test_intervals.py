"""Bootstrap intervals, compared with drawing the examples one by one."""

import numpy as np
import pytest
import sklearn.metrics

from trainer.evals import intervals


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def draw_examples(metric, *columns, count=2000):
    """The interval of a metric by drawing examples with replacement."""
    rng, n = np.random.default_rng(1), len(columns[0])
    values = [metric(*(column[chosen] for column in columns)) for chosen in rng.integers(n, size=(count, n))]
    return np.percentile(values, (2.5, 97.5))


@pytest.fixture
def answers(rng):
    labels = rng.choice(3, 400, p=[0.6, 0.3, 0.1])
    return labels, np.where(rng.random(400) < 0.8, labels, rng.integers(0, 3, 400))


def test_class_intervals_are_those_of_drawn_examples(answers):
    found = intervals.class_intervals(*answers, 3)
    expected = draw_examples(
        lambda y, p: sklearn.metrics.f1_score(y, p, labels=[2], average="macro"), *answers, count=400
    )
    assert found["f1"][2] == pytest.approx(expected, abs=0.03)
    expected = draw_examples(lambda y, p: np.mean(y == p), *answers)
    assert found["accuracy"][0] == pytest.approx(expected, abs=0.01)
    low, high = found["macro_f1"][0]
    assert low < sklearn.metrics.f1_score(*answers, average="macro") < high


def test_the_interval_of_a_share_is_that_of_drawn_examples(rng):
    hits = rng.random(300) < 0.7
    assert intervals.share_interval(hits) == pytest.approx(draw_examples(np.mean, hits), abs=0.01)
    assert intervals.share_interval(np.ones(10, bool)) == (1.0, 1.0)


def test_a_paired_difference_is_narrower_than_two_intervals(rng):
    a = rng.random(500) < 0.8
    b = np.where(rng.random(500) < 0.95, a, ~a)
    low, high = intervals.difference_interval(a, b)
    assert (low, high) == pytest.approx(draw_examples(lambda x, y: x.mean() - y.mean(), a, b), abs=0.01)
    assert high - low < np.diff(intervals.share_interval(a))[0]


def test_a_class_that_is_never_said_has_intervals_of_zero():
    found = intervals.class_intervals(np.array([0, 1, 1]), np.array([0, 0, 0]), 2)
    assert found["precision"][1] == found["f1"][1] == (0.0, 0.0)


def test_number_intervals_are_those_of_drawn_examples(rng):
    labels = rng.normal(90, 5, 300)
    values = labels + rng.normal(0, 2, 300)
    found = intervals.number_intervals(labels, values)
    assert found["pearson"] == pytest.approx(
        draw_examples(lambda x, y: np.corrcoef(x, y)[0, 1], labels, values), abs=0.01
    )
    squared = draw_examples(lambda x, y: np.mean((x - y) ** 2), labels, values)
    assert found["mean_squared_error"] == pytest.approx(squared, rel=0.05)


def test_constant_numbers_have_no_correlation():
    assert set(intervals.number_intervals(np.ones(20), np.ones(20))) == {"mean_squared_error"}


def test_an_interval_is_the_same_each_time(answers):
    assert intervals.class_intervals(*answers, 3) == intervals.class_intervals(*answers, 3)

"""95 % intervals by the percentile bootstrap: the metric of 1,000 samples of the examples, drawn with replacement.

What depends on counts alone is sampled as counts: drawing N examples with replacement and counting the cells of the
confusion is drawing the cells from their multinomial distribution (Efron and Tibshirani, "An Introduction to the
Bootstrap", 1993, chapter 13).
"""

from collections.abc import Sequence

import numpy as np

RESAMPLES = 1000
SEED = 0
_PERCENTILES = (2.5, 97.5)

Interval = tuple[float, float]


def percentile_interval(values: Sequence[float] | np.ndarray) -> Interval:
    """The 95 % interval of a metric's values in the samples, [R]. Those that are NaN do not count."""
    low, high = np.nanpercentile(values, _PERCENTILES)
    return float(low), float(high)


def share_interval(hits: np.ndarray) -> Interval:
    """The interval of the mean of bool [N]."""
    count = len(hits)
    return percentile_interval(np.random.default_rng(SEED).binomial(count, hits.mean(), RESAMPLES) / count)


def difference_interval(a: np.ndarray, b: np.ndarray) -> Interval:
    """The interval of the mean of `a` minus that of `b`, bool [N], each of the same examples: paired."""
    cells = np.array([np.sum(a & b) + np.sum(~a & ~b), np.sum(a & ~b), np.sum(~a & b)])
    drawn = np.random.default_rng(SEED).multinomial(len(a), cells / len(a), RESAMPLES)
    return percentile_interval((drawn[:, 1] - drawn[:, 2]) / len(a))


def class_intervals(labels: np.ndarray, predicted: np.ndarray, classes: int) -> dict[str, list[Interval]]:
    """{"precision", "recall", "f1": an interval for each class; "accuracy", "macro_f1": one interval}.

    `labels` and `predicted`: int [N]. As in the metrics, precision is 0 where a class is not predicted, and recall
    where a sample has no example of it.
    """
    cells, counts = np.unique(np.stack([labels, predicted]), axis=1, return_counts=True)
    drawn = np.random.default_rng(SEED).multinomial(len(labels), counts / len(labels), RESAMPLES).astype(np.float64)
    of_label, of_prediction = np.eye(classes)[cells[0]], np.eye(classes)[cells[1]]
    correct = cells[0] == cells[1]
    hits = drawn[:, correct] @ of_label[correct]  # [R, C]
    examples, predictions = drawn @ of_label, drawn @ of_prediction
    precision = np.divide(hits, predictions, out=np.zeros_like(hits), where=predictions > 0)
    recall = np.divide(hits, examples, out=np.zeros_like(hits), where=examples > 0)
    both = examples + predictions
    f1 = np.divide(2 * hits, both, out=np.zeros_like(hits), where=both > 0)
    return {
        "precision": [percentile_interval(column) for column in precision.T],
        "recall": [percentile_interval(column) for column in recall.T],
        "f1": [percentile_interval(column) for column in f1.T],
        "accuracy": [percentile_interval(hits.sum(axis=1) / len(labels))],
        "macro_f1": [percentile_interval(f1.mean(axis=1))],
    }


def number_intervals(labels: np.ndarray, values: np.ndarray) -> dict[str, Interval]:
    """The intervals of "pearson" and "mean_squared_error" of float [N] labels and predicted values."""
    x, y = labels.astype(np.float64), values.astype(np.float64)
    x, y = x - x.mean(), y - y.mean()  # Neither changes Pearson's r, and sums of squares keep their digits.
    columns = np.stack([x, y, x * x, y * y, x * y, (values.astype(np.float64) - labels) ** 2], axis=1)
    rng, count = np.random.default_rng(SEED), len(labels)
    sums = np.stack(
        [np.bincount(rng.integers(count, size=count), minlength=count) @ columns / count for _ in range(RESAMPLES)]
    )
    mean_x, mean_y, xx, yy, xy, squared = sums.T
    with np.errstate(invalid="ignore", divide="ignore"):
        pearson = (xy - mean_x * mean_y) / np.sqrt((xx - mean_x**2) * (yy - mean_y**2))
    intervals = {"mean_squared_error": percentile_interval(squared)}
    return intervals if np.isnan(pearson).all() else {"pearson": percentile_interval(pearson), **intervals}


def describe(interval: Interval) -> str:
    """For example "0.849 to 0.890"."""
    digits = ".3f" if max(map(abs, interval)) < 10 else ".4g"
    return f"{interval[0]:{digits}} to {interval[1]:{digits}}"

"""Whether two runs differ on the same examples: the paired bootstrap and McNemar's test.

Both take the runs as they are: they say what another draw of test texts could change, and nothing about other seeds.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
import scipy.stats

from trainer.evals import intervals
from trainer.evals.multi_label_metrics import compute_micro_f1
from trainer.evals.prediction_files import KeptPredictions

Measure = Callable[[np.ndarray], float]  # int [n], indices of examples, any of them more than once -> the metric


@dataclasses.dataclass(frozen=True)
class Difference:
    """A metric of a run minus that of the run that it is compared with, and its 95 % interval."""

    metric: str
    value: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class McNemar:
    """The exact test of McNemar (Psychometrika 1947): of the examples that one run alone has right, half each?"""

    only_first: int  # Examples that the run compared with has right and the other wrong.
    only_second: int
    p_value: float  # Two-sided, of the binomial distribution. 1 if there is no such example.


def build_measures(predictions: KeptPredictions) -> dict[str, Measure]:
    """What is compared, by name: accuracy, macro_f1 and loss of classes; pearson and mean_squared_error of numbers.

    Of several labels a text, subset_accuracy, micro_f1 and loss.
    """
    labels, predicted = predictions.labels, predictions.predicted
    if predictions.source.kind == "regression":
        x, y = labels.astype(np.float64), predicted.astype(np.float64)
        return {
            "pearson": lambda rows: _pearson(x[rows], y[rows]),
            "mean_squared_error": lambda rows: float(np.mean((x[rows] - y[rows]) ** 2)),
        }
    right, losses = predictions.right, predictions.losses

    def loss(rows: np.ndarray) -> float:
        return float(np.mean(losses[rows], dtype=np.float64))

    if labels.ndim == 2:
        return {
            "subset_accuracy": lambda rows: float(np.mean(right[rows])),
            "micro_f1": lambda rows: compute_micro_f1(labels[rows], predicted[rows]),
            "loss": loss,
        }
    classes = len(predictions.source.labels)
    cells = labels.astype(np.int64) * classes + predicted
    return {
        "accuracy": lambda rows: float(np.mean(right[rows])),
        "macro_f1": lambda rows: _macro_f1(cells[rows], classes),
        "loss": loss,
    }


def _pearson(x: np.ndarray, y: np.ndarray) -> float:
    """Pearson's r; 0 where one of the two is constant, as in the metrics of a run."""
    x, y = x - x.mean(), y - y.mean()
    norm = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / norm) if norm > 0 else 0.0


def _macro_f1(cells: np.ndarray, classes: int) -> float:
    """The mean F1 of the classes. `cells`: int64 [n], label * classes + predicted class."""
    confusion = np.bincount(cells, minlength=classes * classes).reshape(classes, classes)
    both = confusion.sum(axis=0) + confusion.sum(axis=1)
    scores = 2 * np.diag(confusion) / np.maximum(both, 1)
    return float(scores.mean())


def bootstrap_differences(first: KeptPredictions, second: KeptPredictions, resamples: int) -> list[Difference]:
    """The differences second - first, with percentile intervals (Efron and Tibshirani 1993, chapter 13).

    A resample is N examples drawn with replacement, the same of both runs. The same call gives the same intervals.
    """
    count = len(first.ids)
    ours, theirs = build_measures(first), build_measures(second)
    rng = np.random.default_rng(intervals.SEED)
    drawn: dict[str, list[float]] = {metric: [] for metric in ours}
    for _ in range(resamples):
        rows = rng.integers(count, size=count)
        for metric, values in drawn.items():
            values.append(theirs[metric](rows) - ours[metric](rows))
    everything = np.arange(count)
    return [
        Difference(
            metric, theirs[metric](everything) - ours[metric](everything), *intervals.percentile_interval(values)
        )
        for metric, values in drawn.items()
    ]


def compare_right_answers(first: KeptPredictions, second: KeptPredictions) -> McNemar | None:
    """McNemar's test of two runs on classes. None for numbers, which are not right or wrong."""
    if first.source.kind == "regression":
        return None
    right, other = first.right, second.right
    only_first, only_second = int(np.sum(right & ~other)), int(np.sum(~right & other))
    differing = only_first + only_second
    p_value = float(scipy.stats.binomtest(only_second, differing, 0.5).pvalue) if differing else 1.0
    return McNemar(only_first, only_second, p_value)

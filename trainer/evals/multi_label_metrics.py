"""Metrics of texts with several labels, each label against its threshold. N examples, C labels.

The average precisions are scikit-learn's: https://scikit-learn.org/stable/modules/model_evaluation.html
"""

import math
from typing import Any

import numpy as np
import sklearn.metrics


def compute_metrics(labels: np.ndarray, scores: np.ndarray, selected: np.ndarray) -> dict[str, float]:
    """The metrics of tasks.METRICS, without the loss; NaN if undefined.

    `labels` and `selected` are bool [N, C], what applies and what was predicted; `scores` are float32 [N, C]. Micro
    means count every pair of an example and a label alike, macro means every label. The F1 of a label without examples
    that is never predicted is 0. Average precision is the mean over the labels that occur, subset accuracy the share of
    examples with exactly their labels.
    """
    present = np.flatnonzero(labels.any(axis=0)).tolist()
    defined = len(present) and np.isfinite(scores).all()

    def average_precision(columns: int | slice) -> float:
        return float(sklearn.metrics.average_precision_score(labels[:, columns].ravel(), scores[:, columns].ravel()))

    _, _, f1, _ = score_each_label(labels, selected)
    return {
        "micro_f1": compute_micro_f1(labels, selected),
        "macro_f1": float(np.mean(f1)),
        "average_precision": float(np.mean([average_precision(c) for c in present])) if defined else math.nan,
        "micro_average_precision": average_precision(slice(None)) if defined else math.nan,
        "subset_accuracy": float((labels == selected).all(axis=1).mean()),
    }


def compute_micro_f1(labels: np.ndarray, selected: np.ndarray) -> float:
    """The F1 of all pairs of an example and a label, bool [N, C]; 0 if there are none."""
    marked = int(labels.sum() + selected.sum())
    return 2 * int((labels & selected).sum()) / marked if marked else 0.0


def score_each_label(labels: np.ndarray, selected: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(precision, recall, F1, examples), each [C], of bool [N, C]. A label that is never predicted has precision 0."""
    both, predicted, examples = (labels & selected).sum(0), selected.sum(0), labels.sum(0)
    return (
        _ratio(both, predicted),
        _ratio(both, examples),
        _ratio(2 * both, predicted + examples),
        examples,
    )


def _ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a / b, and 0 where b is 0: float64 [C]."""
    return np.divide(a, b, out=np.zeros(len(a)), where=b > 0)


def describe_labels(
    labels: np.ndarray, scores: np.ndarray, selected: np.ndarray, names: tuple[str, ...]
) -> dict[str, Any]:
    """{"by_class": name -> precision, recall, f1, average_precision, support}. Support is the number of examples.

    The arguments are those of compute_metrics, and the names of the labels. A label without examples has no average
    precision.
    """
    by_class: dict[str, dict[str, float | int]] = {}
    for column, (name, p, r, f, n) in enumerate(zip(names, *score_each_label(labels, selected), strict=True)):
        by_class[name] = {"precision": float(p), "recall": float(r), "f1": float(f)}
        if n and np.isfinite(scores[:, column]).all():
            precision = sklearn.metrics.average_precision_score(labels[:, column], scores[:, column])
            by_class[name]["average_precision"] = float(precision)
        by_class[name]["support"] = int(n)
    return {"by_class": by_class}

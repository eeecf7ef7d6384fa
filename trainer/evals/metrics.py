"""Predictions of a whole split -> its metrics. Exact: every example counts once, whatever the batch size.

The formulas are scikit-learn's and SciPy's; this module says which of them, and how they are averaged.
"""

import dataclasses
import math
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.special
import scipy.stats
import sklearn.exceptions
import sklearn.metrics


@dataclasses.dataclass(frozen=True)
class Predictions:
    """What a model makes of a split, in the order in which it was read. N examples, C classes (1 for regression)."""

    ids: list[int | str]
    labels: np.ndarray  # int32 [N], or float32 [N] for regression
    logits: np.ndarray  # float32 [N, C]
    losses: np.ndarray  # float32 [N]

    @property
    def scores(self) -> np.ndarray:
        """float32 [N, C]: probabilities, or the values for regression."""
        scores: np.ndarray = scipy.special.softmax(self.logits, axis=1) if self.logits.shape[1] > 1 else self.logits
        return scores


def prediction_rows(predictions: Predictions) -> Iterator[dict[str, Any]]:
    """{"id", "label", "scores", "loss"} for each example, ready for JSON."""
    for id, label, scores, loss in zip(
        predictions.ids, predictions.labels, predictions.scores, predictions.losses, strict=True
    ):
        yield {"id": id, "label": label.item(), "scores": scores.tolist(), "loss": loss.item()}


def compute_metrics(predictions: Predictions, kind: str) -> dict[str, float | int]:
    """examples, loss (the mean), and the metrics of the kind, in the order in which a person wants them.

    Precision, recall and F1 are of class 1 if there are two, and the classes' mean (macro) if there
    are more; ROC AUC is one against the rest, macro. A metric that the labels leave undefined is left out.
    """
    return {"examples": len(predictions.ids), "loss": float(np.mean(predictions.losses, dtype=np.float64))} | {
        name: value
        for name, value in (_classification if kind == "classification" else _regression)(predictions).items()
        if math.isfinite(value)
    }


def _classification(p: Predictions) -> dict[str, float]:
    classes = p.logits.shape[1]
    guesses = p.logits.argmax(axis=1)
    average = "binary" if classes == 2 else "macro"
    labels = None if classes == 2 else range(classes)
    precision, recall, f1, _ = sklearn.metrics.precision_recall_fscore_support(
        p.labels, guesses, average=average, labels=labels, zero_division=0
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sklearn.exceptions.UndefinedMetricWarning)
        try:
            scores = (
                p.scores[:, 1]
                if classes == 2
                else p.scores.astype(np.float64) / p.scores.sum(axis=1, keepdims=True, dtype=np.float64)
            )
            auc = sklearn.metrics.roc_auc_score(p.labels, scores, multi_class="ovr", average="macro", labels=labels)
        except ValueError:  # a class without examples
            auc = math.nan
    return {
        "accuracy": float(np.mean(guesses == p.labels)),
        "precision": float(precision),
        "recall": float(recall),
        "f1": float(f1),
        "roc_auc": float(auc),
    }


def _regression(p: Predictions) -> dict[str, float]:
    values, targets = p.logits[:, 0].astype(np.float64), p.labels.astype(np.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", scipy.stats.ConstantInputWarning)
        warnings.simplefilter("ignore", scipy.stats.NearConstantInputWarning)
        pearson = float(scipy.stats.pearsonr(values, targets).statistic) if len(values) > 1 else math.nan
        spearman = float(scipy.stats.spearmanr(values, targets).statistic) if len(values) > 1 else math.nan
    # A model that always answers the same has no correlation; 0 keeps it comparable with others.
    return {
        "pearson": pearson if math.isfinite(pearson) else 0.0,
        "spearman": spearman if math.isfinite(spearman) else 0.0,
        "mean_squared_error": float(np.mean((values - targets) ** 2)),
    }

"""Metrics of a split, computed from all its predictions at once, so that they do not depend on the batch size.

scikit-learn and SciPy compute them. Definitions of accuracy, precision, recall, F1, ROC AUC and the mean squared error:
https://scikit-learn.org/stable/modules/model_evaluation.html
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
    """A model's output for the N examples of a split, in the order of its shards. C classes, 1 for regression."""

    ids: list[int | str]
    labels: np.ndarray  # int32 [N], or float32 [N] for regression
    logits: np.ndarray  # float32 [N, C]
    losses: np.ndarray  # float32 [N]

    @property
    def scores(self) -> np.ndarray:
        """The probabilities (softmax of the logits), or the values for regression: float32 [N, C]."""
        scores: np.ndarray = scipy.special.softmax(self.logits, axis=1) if self.logits.shape[1] > 1 else self.logits
        return scores


def prediction_rows(predictions: Predictions) -> Iterator[dict[str, Any]]:
    """Yield {"id", "label", "scores", "loss"} for each example, as values that JSON can hold."""
    for example_id, label, scores, loss in zip(
        predictions.ids, predictions.labels, predictions.scores, predictions.losses, strict=True
    ):
        yield {"id": example_id, "label": label.item(), "scores": scores.tolist(), "loss": loss.item()}


def compute_metrics(predictions: Predictions, kind: str) -> dict[str, float | int]:
    """Return "examples" (their number), "loss" (their mean loss) and the metrics of `kind`, the main metric first.

    `kind` is "classification" or "regression". An undefined metric is left out, such as ROC AUC without examples of a
    class.
    """
    metrics = _classification_metrics(predictions) if kind == "classification" else _regression_metrics(predictions)
    return {
        "examples": len(predictions.ids),
        "loss": float(np.mean(predictions.losses, dtype=np.float64)),
        **{name: value for name, value in metrics.items() if math.isfinite(value)},
    }


def _classification_metrics(p: Predictions) -> dict[str, float]:
    """Precision, recall, F1 and ROC AUC are those of class 1 if there are two classes.

    With more classes, each is the unweighted mean over the classes (macro), ROC AUC of one class against the rest
    (Provost and Domingos, 2000, "Well-trained PETs"). A class that is never predicted has precision 0.
    """
    classes = p.logits.shape[1]
    predicted = p.logits.argmax(axis=1)
    average = "binary" if classes == 2 else "macro"
    labels = None if classes == 2 else range(classes)
    precision, recall, f1, _ = sklearn.metrics.precision_recall_fscore_support(
        p.labels, predicted, average=average, labels=labels, zero_division=0
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
        except ValueError:  # scikit-learn's error for a class without examples.
            auc = math.nan
    return {
        "accuracy": float(np.mean(predicted == p.labels)),
        "precision": float(precision),
        "recall": float(recall),
        "f1": float(f1),
        "roc_auc": float(auc),
    }


def _regression_metrics(p: Predictions) -> dict[str, float]:
    """Pearson's r, Spearman's rank correlation (ties share the mean of their ranks), and the mean squared error.

    The correlations are computed in float64 by scipy.stats.pearsonr and scipy.stats.spearmanr.
    """
    values, targets = p.logits[:, 0].astype(np.float64), p.labels.astype(np.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", scipy.stats.ConstantInputWarning)
        warnings.simplefilter("ignore", scipy.stats.NearConstantInputWarning)
        pearson = float(scipy.stats.pearsonr(values, targets).statistic) if len(values) > 1 else math.nan
        spearman = float(scipy.stats.spearmanr(values, targets).statistic) if len(values) > 1 else math.nan
    # Constant predictions or labels have no correlation. 0 keeps the run comparable with others.
    return {
        "pearson": pearson if math.isfinite(pearson) else 0.0,
        "spearman": spearman if math.isfinite(spearman) else 0.0,
        "mean_squared_error": float(np.mean((values - targets) ** 2)),
    }

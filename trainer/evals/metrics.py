"""Metrics of a split, computed from all its predictions at once, so that they do not depend on the batch size.

scikit-learn and SciPy compute them. Definitions of the metrics of classes, and of the mean squared error:
https://scikit-learn.org/stable/modules/model_evaluation.html
"""

import dataclasses
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import scipy.special
import scipy.stats
import sklearn.metrics

from trainer.data import label_scale
from trainer.evals import multi_label_metrics, thresholds


@dataclasses.dataclass(frozen=True)
class Threshold:
    """What decides between two classes."""

    positive: int  # The index of the class that is chosen if its score is above `score`: 0 or 1.
    score: float


@dataclasses.dataclass(frozen=True)
class Predictions:
    """A model's output for the N examples of a split, in the order of its shards. C classes, 1 for regression."""

    ids: list[int | str]
    labels: np.ndarray  # int32 [N], float32 [N] for regression, or bool [N, C] of several labels
    logits: np.ndarray  # float32 [N, C]
    losses: np.ndarray  # float32 [N], of the logits as they are.
    temperature: float = 1.0  # What the logits are divided by for the scores.
    threshold: Threshold | None = None
    label_thresholds: np.ndarray | None = None  # Of several labels, float32 [C]. None: 0.5 for each.

    @property
    def scores(self) -> np.ndarray:
        """The probabilities, or the values for regression: float32 [N, C].

        They are the softmax of logits / temperature, of several labels the sigmoid.
        """
        if self.several_labels:
            sigmoids: np.ndarray = scipy.special.expit(self.logits / np.float32(self.temperature))
            return sigmoids
        if self.logits.shape[1] == 1:
            return self.logits
        scores: np.ndarray = scipy.special.softmax(self.logits / np.float32(self.temperature), axis=1)
        return scores

    @property
    def several_labels(self) -> bool:
        """Whether an example may have several labels."""
        return self.labels.ndim == 2

    @property
    def predicted(self) -> np.ndarray:
        """What is said of each example, with the shape and dtype of `labels`.

        The likeliest class, unless a threshold decides between two; the number; of several labels, those with scores
        above their thresholds.
        """
        if self.several_labels:
            least = thresholds.DEFAULT_THRESHOLD if self.label_thresholds is None else self.label_thresholds
            return thresholds.apply_threshold(self.scores, least)
        if self.logits.shape[1] == 1:
            return self.scores[:, 0]
        if self.threshold is None:
            return self.logits.argmax(axis=1).astype(np.int32)
        positive = self.threshold.positive
        chosen = thresholds.apply_threshold(self.scores[:, positive], self.threshold.score)
        return np.where(chosen, positive, 1 - positive).astype(np.int32)

    @property
    def margins(self) -> np.ndarray:
        """How far each score may move before `predicted` changes: float32 of its shape. Not of numbers."""
        if self.several_labels:
            least = thresholds.DEFAULT_THRESHOLD if self.label_thresholds is None else self.label_thresholds
            return np.abs(self.scores - least)
        if self.threshold is not None:
            return np.abs(self.scores[:, self.threshold.positive] - np.float32(self.threshold.score))
        lower, highest = np.sort(self.scores, axis=1)[:, -2:].T
        return (highest - lower) / 2


def prediction_rows(predictions: Predictions, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield {"id", "label", "scores", "loss"} for each example, as values that JSON can hold.

    `names` are the classes of the scores, none for regression. With them, "label_name" is the label's class and
    "predicted" the one that is said to be its. Where there are several labels, "label" has the indexes of those that
    apply, "label_names" their names, and "predicted" the names of those that are said to be.
    """
    if predictions.several_labels:
        yield from _label_set_rows(predictions, np.array(names, object))
        return
    columns = predictions.ids, predictions.labels, predictions.predicted, predictions.scores, predictions.losses
    for example_id, label, guess, scores, loss in zip(*columns, strict=True):
        classes = {"label_name": names[label], "predicted": names[guess]} if names else {}
        yield {"id": example_id, "label": label.item(), **classes, "scores": scores.tolist(), "loss": loss.item()}


def _label_set_rows(p: Predictions, names: np.ndarray) -> Iterator[dict[str, Any]]:
    columns = (p.ids, p.labels, p.predicted, p.scores, p.losses)
    for example_id, label, selected, scores, loss in zip(*columns, strict=True):
        yield {
            "id": example_id,
            "label": np.flatnonzero(label).tolist(),
            "label_names": names[label].tolist(),
            "predicted": names[selected].tolist(),
            "scores": scores.tolist(),
            "loss": loss.item(),
        }


def compute_metrics(
    predictions: Predictions,
    kind: str,
    positive: int | None = None,
    rating_range: label_scale.RatingRange | None = None,
) -> dict[str, float | int]:
    """Return "examples" (their number), "loss" (their mean loss) and the metrics of `kind`, the main metric first.

    `kind` is one of tasks.KINDS. Precision, recall, F1, ROC AUC and average precision are those of the class `positive`
    against the others; without it, the unweighted mean over the classes (macro). Numbers with a `rating_range` have the
    metrics of ratings too. What is undefined is left out, such as ROC AUC without examples of a class.
    """
    if kind == "classification":
        metrics = _classification_metrics(predictions, positive)
    elif kind == "multi_label":
        metrics = multi_label_metrics.compute_metrics(predictions.labels, predictions.scores, predictions.predicted)
    else:
        metrics = _regression_metrics(predictions)
        if rating_range:
            metrics |= _rating_metrics(predictions, rating_range)
    return {
        "examples": len(predictions.ids),
        "loss": float(np.mean(predictions.losses, dtype=np.float64)),
        **{name: value for name, value in metrics.items() if math.isfinite(value)},
    }


def describe_classes(predictions: Predictions, names: Sequence[str]) -> dict[str, Any]:
    """{"by_class": name -> precision, recall, f1, support; "confusion": true name -> predicted name -> examples}.

    Support is the number of examples. Pairs of names without an example are left out of the confusion. Several labels
    have none: each is for itself (multi_label_metrics.describe_labels).
    """
    predicted = predictions.predicted
    if predictions.several_labels:
        return multi_label_metrics.describe_labels(predictions.labels, predictions.scores, predicted, tuple(names))
    by_class = {
        name: {"precision": float(p), "recall": float(r), "f1": float(f), "support": int(n)}
        for name, p, r, f, n in zip(names, *_score_each_class(predictions), strict=True)
    }
    confusion: dict[str, dict[str, int]] = {name: {} for name in names}
    pairs, counts = np.unique(np.stack([predictions.labels, predicted]), axis=1, return_counts=True)
    for (label, guess), count in zip(pairs.T, counts, strict=True):
        confusion[names[label]][names[guess]] = int(count)
    return {"by_class": by_class, "confusion": confusion}


def _score_each_class(p: Predictions) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(precision, recall, F1, examples), each [C]. A class that is never predicted has precision 0."""
    scores: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray] = sklearn.metrics.precision_recall_fscore_support(
        p.labels, p.predicted, labels=range(p.logits.shape[1]), zero_division=0
    )
    return scores


def _classification_metrics(p: Predictions, positive: int | None) -> dict[str, float]:
    """ROC AUC and average precision are of a class against the others (Provost and Domingos, "Well-trained PETs")."""
    precision, recall, f1, examples = _score_each_class(p)
    scores = p.scores
    classes = list(range(len(examples))) if positive is None else [positive]
    defined = np.isfinite(scores).all() and all(0 < examples[c] < len(p.labels) for c in classes)

    def mean(score: Callable[[np.ndarray, np.ndarray], float]) -> float:
        """The mean over `classes` of a score of (whether an example is of the class, the class's probability)."""
        return float(np.mean([score(p.labels == c, scores[:, c]) for c in classes])) if defined else math.nan

    return {
        "accuracy": float(np.mean(p.predicted == p.labels)),
        "precision": float(np.mean(precision[classes])),
        "recall": float(np.mean(recall[classes])),
        "f1": float(np.mean(f1[classes])),
        "macro_f1": float(np.mean(f1)),
        "matthews": _matthews_correlation(p),
        "roc_auc": mean(sklearn.metrics.roc_auc_score),
        "average_precision": mean(sklearn.metrics.average_precision_score),
    }


def _matthews_correlation(p: Predictions) -> float:
    """Of all classes (Gorodkin, 2004); 0 if all labels, or all predictions, are of one class."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "A single label was found", UserWarning)
        return float(sklearn.metrics.matthews_corrcoef(p.labels, p.predicted))


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


def _rating_metrics(p: Predictions, rating_range: label_scale.RatingRange) -> dict[str, float]:
    """Metrics of predictions that are rounded to the nearest whole number (a half to the even one) in the range.

    Accuracy is the share that equals the label. Cohen's kappa with quadratic weights is 1 minus the mean squared
    difference, divided by that of the same ratings and labels paired at random: scikit-learn's
    cohen_kappa_score(weights="quadratic") over all whole numbers from the lowest to the highest. It is 0 where rating
    and label are one and the same number everywhere, which it does not define.
    """
    ratings = np.clip(np.rint(p.logits[:, 0].astype(np.float64)), rating_range.lowest, rating_range.highest)
    labels = p.labels.astype(np.float64)
    at_random = ratings.var() + labels.var() + (ratings.mean() - labels.mean()) ** 2
    kappa = 1 - float(np.mean((ratings - labels) ** 2) / at_random) if at_random > 0 else 0.0
    return {"accuracy": float(np.mean(ratings == labels)), "quadratic_kappa": kappa}

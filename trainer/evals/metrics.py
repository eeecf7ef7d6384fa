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

from trainer.evals import multi_label_metrics

# A label is predicted if its score is above this, unless a threshold of its own was chosen.
DEFAULT_THRESHOLD = 0.5


@dataclasses.dataclass(frozen=True)
class Predictions:
    """A model's output for the N examples of a split, in the order of its shards. C classes, 1 for regression."""

    ids: list[int | str]
    labels: np.ndarray  # int32 [N], float32 [N] for regression, or bool [N, C] of several labels
    logits: np.ndarray  # float32 [N, C]
    losses: np.ndarray  # float32 [N]

    @property
    def scores(self) -> np.ndarray:
        """The probabilities (softmax, of several labels sigmoid), or the values for regression: float32 [N, C]."""
        if self.several_labels:
            sigmoids: np.ndarray = scipy.special.expit(self.logits)
            return sigmoids
        scores: np.ndarray = scipy.special.softmax(self.logits, axis=1) if self.logits.shape[1] > 1 else self.logits
        return scores

    @property
    def several_labels(self) -> bool:
        """Whether an example may have several labels."""
        return self.labels.ndim == 2

    def selected(self, thresholds: np.ndarray | None) -> np.ndarray:
        """Of several labels those that are predicted, bool [N, C]: with scores above `thresholds`, float32 [C]."""
        return self.scores > (DEFAULT_THRESHOLD if thresholds is None else thresholds)


def prediction_rows(
    predictions: Predictions, names: Sequence[str], thresholds: np.ndarray | None = None
) -> Iterator[dict[str, Any]]:
    """Yield {"id", "label", "scores", "loss"} for each example, as values that JSON can hold.

    `names` are the classes of the scores, none for regression. With them, "label_name" is the label's class and
    "predicted" the likeliest one. Where there are several labels, "label" has the indexes of those that apply,
    "label_names" their names, and "predicted" the names of those above `thresholds`, float32 [C].
    """
    if predictions.several_labels:
        yield from _label_set_rows(predictions, np.array(names, object), thresholds)
        return
    for example_id, label, scores, loss in zip(
        predictions.ids, predictions.labels, predictions.scores, predictions.losses, strict=True
    ):
        classes = {"label_name": names[label], "predicted": names[scores.argmax()]} if names else {}
        yield {"id": example_id, "label": label.item(), **classes, "scores": scores.tolist(), "loss": loss.item()}


def _label_set_rows(p: Predictions, names: np.ndarray, thresholds: np.ndarray | None) -> Iterator[dict[str, Any]]:
    columns = (p.ids, p.labels, p.selected(thresholds), p.scores, p.losses)
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
    predictions: Predictions, kind: str, positive: int | None = None, thresholds: np.ndarray | None = None
) -> dict[str, float | int]:
    """Return "examples" (their number), "loss" (their mean loss) and the metrics of `kind`, the main metric first.

    `kind` is one of tasks.KINDS. Precision, recall, F1, ROC AUC and average precision are those of the class `positive`
    against the others; without it, the unweighted mean over the classes (macro). `thresholds`, float32 [C], are those
    of several labels. An undefined metric is left out, such as ROC AUC without examples of a class.
    """
    if kind == "classification":
        metrics = _classification_metrics(predictions, positive)
    elif kind == "multi_label":
        selected = predictions.selected(thresholds)
        metrics = multi_label_metrics.compute_metrics(predictions.labels, predictions.scores, selected)
    else:
        metrics = _regression_metrics(predictions)
    return {
        "examples": len(predictions.ids),
        "loss": float(np.mean(predictions.losses, dtype=np.float64)),
        **{name: value for name, value in metrics.items() if math.isfinite(value)},
    }


def describe_classes(
    predictions: Predictions, names: Sequence[str], thresholds: np.ndarray | None = None
) -> dict[str, Any]:
    """{"by_class": name -> precision, recall, f1, support; "confusion": true name -> predicted name -> examples}.

    Support is the number of examples. Pairs of names without an example are left out of the confusion. Several labels
    have none: each is for itself (multi_label_metrics.describe_labels).
    """
    if predictions.several_labels:
        selected = predictions.selected(thresholds)
        return multi_label_metrics.describe_labels(predictions.labels, predictions.scores, selected, tuple(names))
    predicted = predictions.logits.argmax(axis=1)
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
        p.labels, p.logits.argmax(axis=1), labels=range(p.logits.shape[1]), zero_division=0
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
        "accuracy": float(np.mean(p.logits.argmax(axis=1) == p.labels)),
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
        return float(sklearn.metrics.matthews_corrcoef(p.labels, p.logits.argmax(axis=1)))


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

"""Decision thresholds: above which score an example is said to have a label, chosen on validation.

All scores that give the same answers are one choice: the thresholds compared are those halfway between two neighboring
scores, and 0.5. The counts for all of them come from one sort, O(N log N).
"""

import numpy as np

DEFAULT_THRESHOLD = 0.5
METRICS = ("f1", "macro_f1", "accuracy", "balanced_accuracy")


def apply_threshold(scores: np.ndarray, threshold: float | np.ndarray) -> np.ndarray:
    """Whether each of the scores, of any shape, is above the threshold: bool of that shape.

    They are compared as float32, like the export compares them. `threshold` is one, or one for each label, [C].
    """
    above: np.ndarray = scores.astype(np.float32) > np.asarray(threshold, np.float32)
    return above


def choose_threshold(scores: np.ndarray, labels: np.ndarray, metric: str) -> float:
    """The threshold on `scores`, float32 [N], that gives `metric` its highest value; of equals, the nearest to 0.5.

    `labels`, bool or 0 and 1 [N], says which examples are positive. `metric` is one of METRICS: F1 of the positive
    ones, the mean of F1 of both kinds, the share of right answers, and the mean of the recall of both kinds
    (scikit-learn's balanced accuracy). It is 0.5 if all examples are of one kind: nothing can be learned from them.
    """
    labels = labels.astype(bool)
    if labels.all() or not labels.any():
        return DEFAULT_THRESHOLD
    candidates = _candidates(scores.astype(np.float32))
    values = _score_candidates(scores.astype(np.float32), labels, candidates, metric)
    best = candidates[values == values.max()]
    return float(best[np.argmin(np.abs(best - np.float32(DEFAULT_THRESHOLD)))])


def choose_label_thresholds(scores: np.ndarray, labels: np.ndarray, metric: str = "f1") -> np.ndarray:
    """choose_threshold for each label by itself: float32 [C]. `scores` is float32 [N, C], `labels` 0 and 1 [N, C]."""
    columns = zip(scores.T, labels.T, strict=True)
    return np.array([choose_threshold(column, truth, metric) for column, truth in columns], np.float32)


def measure(labels: np.ndarray, predicted: np.ndarray, metric: str) -> float:
    """The value of `metric` for predictions, bool [N], of labels, bool [N]. What is undefined counts as 0."""
    labels, predicted = labels.astype(bool), predicted.astype(bool)
    right, wrong = np.sum(labels & predicted), np.sum(~labels & predicted)
    return float(_metric(right, wrong, np.sum(labels) - right, np.sum(~labels) - wrong, metric))


def _candidates(scores: np.ndarray) -> np.ndarray:
    """0.5, what is halfway between neighbors among the scores, 0 and 1, and 1 itself: float32, ascending."""
    different = np.unique(np.concatenate([scores, np.zeros(1, np.float32), np.ones(1, np.float32)]))
    lower, upper = different[:-1], different[1:]
    halfway = ((lower.astype(np.float64) + upper) / 2).astype(np.float32)
    # Between two neighboring numbers of float32 there is none: the lower one separates them as well.
    halfway = np.where(halfway < upper, halfway, lower)
    return np.unique(np.append(halfway, np.array([DEFAULT_THRESHOLD, 1], np.float32)))


def _score_candidates(scores: np.ndarray, labels: np.ndarray, candidates: np.ndarray, metric: str) -> np.ndarray:
    """The metric at each candidate: float64 [candidates]."""
    order = np.argsort(scores, kind="stable")
    below = np.searchsorted(scores[order], candidates, side="right")  # The examples that are said to be negative.
    positives_below = np.concatenate([[0], np.cumsum(labels[order])])[below]
    positives, negatives = int(labels.sum()), int((~labels).sum())
    negatives_below = below - positives_below
    return _metric(positives - positives_below, negatives - negatives_below, positives_below, negatives_below, metric)


def _metric(
    true_positive: np.ndarray,
    false_positive: np.ndarray,
    false_negative: np.ndarray,
    true_negative: np.ndarray,
    name: str,
) -> np.ndarray:
    """The metric from counts of any one shape."""
    f1 = _ratio(2 * true_positive, 2 * true_positive + false_positive + false_negative)
    if name == "f1":
        return f1
    if name == "macro_f1":
        return (f1 + _ratio(2 * true_negative, 2 * true_negative + false_positive + false_negative)) / 2
    if name == "accuracy":
        return _ratio(true_positive + true_negative, true_positive + true_negative + false_positive + false_negative)
    assert name == "balanced_accuracy"
    recalls = (
        _ratio(true_positive, true_positive + false_negative),
        _ratio(true_negative, true_negative + false_positive),
    )
    return (recalls[0] + recalls[1]) / 2


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Their quotient, 0 where the denominator is."""
    return np.asarray(numerator / np.maximum(denominator, 1), np.float64)

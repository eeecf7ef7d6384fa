"""Temperature scaling and calibration error: how far the probabilities of a model can be taken at their word.

Guo et al., "On Calibration of Modern Neural Networks", 2017 (https://arxiv.org/abs/1706.04599). Labels are either
int [N], one class for each example, with probabilities by softmax; or 0 and 1 [N, C], any number of labels for each
example, with probabilities by sigmoid. Everything is computed in float64.
"""

import numpy as np
import scipy.optimize
import scipy.special

# The bins of the calibration error, as many as Guo et al. have.
BINS = 15
# A temperature outside would make the scores of a few validation texts that are all right, or all wrong, 0 and 1, or
# all alike.
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.1, 10.0


def probabilities(logits: np.ndarray, labels: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """float64 [N, C]: of classes if `labels` has one for each example, of each label by itself otherwise."""
    scaled = logits.astype(np.float64) / temperature
    values: np.ndarray = scipy.special.softmax(scaled, axis=1) if labels.ndim == 1 else scipy.special.expit(scaled)
    return values


def negative_log_likelihood(logits: np.ndarray, labels: np.ndarray, temperature: float = 1.0) -> float:
    """The mean over the examples of -log(probability of the label), or over all labels of all examples.

    `logits` is float [N, C].
    """
    scaled = logits.astype(np.float64) / temperature
    if labels.ndim == 1:
        return float(-np.mean(scipy.special.log_softmax(scaled, axis=1)[np.arange(len(labels)), labels]))
    # The sign makes each the logit of what the label says.
    return float(np.mean(np.logaddexp(0.0, -scaled * np.where(labels == 1, 1.0, -1.0))))


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature T, the same for all classes, that minimizes the negative log-likelihood of logits / T.

    `logits` is float [N, C]. It is searched for on the scale of log T, from MIN_TEMPERATURE to MAX_TEMPERATURE; it is 1
    if none is better than that.
    """

    def loss(log_temperature: float) -> float:
        return negative_log_likelihood(logits, labels, float(np.exp(log_temperature)))

    bounds = (np.log(MIN_TEMPERATURE), np.log(MAX_TEMPERATURE))
    found = scipy.optimize.minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x)) if found.fun < loss(0.0) else 1.0


def expected_calibration_error(logits: np.ndarray, labels: np.ndarray, temperature: float = 1.0) -> float:
    """The mean difference between confidence and accuracy, in BINS bins of equal width (Guo et al., equation 3).

    Each bin counts by its examples.
    """
    confidence, accuracy, examples = group_by_confidence(logits, labels, temperature)
    return float(np.abs(confidence - accuracy) @ examples / examples.sum())


def group_by_confidence(
    logits: np.ndarray, labels: np.ndarray, temperature: float = 1.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each bin with examples: their mean confidence and their accuracy, float64 [bins], and their number, int64.

    The confidence is the likeliest class's probability. Where labels are 0 and 1, each counts as an example of its own,
    its probability as the confidence, and the share of ones as the accuracy.
    """
    scores = probabilities(logits, labels, temperature)
    if labels.ndim == 1:
        confidence, right = scores.max(axis=1), scores.argmax(axis=1) == labels
    else:
        confidence, right = scores.ravel(), labels.ravel() == 1
    # Bin m is ((m - 1) / BINS, m / BINS]; 0 is in the first one.
    bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    examples = np.bincount(bins, minlength=BINS)
    filled = examples > 0
    sums = (np.bincount(bins, values, BINS)[filled] for values in (confidence, right))
    mean_confidence, accuracy = (each / examples[filled] for each in sums)
    return mean_confidence, accuracy, examples[filled]


def brier_score(logits: np.ndarray, labels: np.ndarray, temperature: float = 1.0) -> float:
    """The mean over the examples of the squared distance between probabilities and truth, from 0 to 2 (Brier, 1950).

    For two classes it is twice that of scikit-learn's default. Where labels are 0 and 1, the mean over all labels of
    all examples, from 0 to 1.
    """
    scores = probabilities(logits, labels, temperature)
    if labels.ndim == 1:
        return float(np.mean(np.sum((scores - np.eye(logits.shape[1])[labels]) ** 2, axis=1)))
    return float(np.mean((scores - labels) ** 2))


def describe_calibration(logits: np.ndarray, labels: np.ndarray, temperature: float) -> dict[str, dict[str, float]]:
    """{"before", "after"} the logits are divided by `temperature` -> the three measures."""
    return {
        name: {
            "expected_calibration_error": expected_calibration_error(logits, labels, value),
            "negative_log_likelihood": negative_log_likelihood(logits, labels, value),
            "brier_score": brier_score(logits, labels, value),
        }
        for name, value in (("before", 1.0), ("after", temperature))
    }

import numpy as np
import pytest
import sklearn.metrics

from trainer.evals import calibration

RNG = np.random.default_rng(0)


def draw(examples: int, classes: int, true_temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn from the probabilities that the logits have at `true_temperature`."""
    logits = RNG.normal(size=(examples, classes)).astype(np.float32) * 3
    chances = calibration.probabilities(logits, np.zeros(examples, int), true_temperature)
    return logits, (chances.cumsum(axis=1) > RNG.random((examples, 1))).argmax(axis=1)


def draw_label_sets(examples: int, true_temperature: float) -> tuple[np.ndarray, np.ndarray]:
    logits = RNG.normal(size=(examples, 4)).astype(np.float32) * 3
    chances = 1 / (1 + np.exp(-logits / true_temperature))
    return logits, (RNG.random(logits.shape) < chances).astype(int)


@pytest.mark.parametrize("true_temperature", [0.5, 1.0, 2.5])
def test_the_temperature_of_the_labels_is_found(true_temperature):
    for logits, labels in (draw(20_000, 3, true_temperature), draw_label_sets(8000, true_temperature)):
        fitted = calibration.fit_temperature(logits, labels)
        assert fitted == pytest.approx(true_temperature, rel=0.05)
        nearby = [calibration.negative_log_likelihood(logits, labels, fitted * f) for f in (0.98, 1.0, 1.02)]
        assert min(nearby) == nearby[1]
        assert calibration.fit_temperature(logits, labels) == fitted


def test_the_temperature_has_bounds_and_is_1_if_none_is_better():
    logits = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert calibration.fit_temperature(logits, np.array([0, 1])) == pytest.approx(0.1, rel=1e-4)
    assert calibration.fit_temperature(logits, np.array([1, 0])) == pytest.approx(10.0, rel=1e-4)
    assert calibration.fit_temperature(np.zeros((2, 2)), np.array([0, 1])) == 1.0


def test_a_temperature_changes_no_label():
    logits, labels = draw(100, 3, 2.0)
    scores = calibration.probabilities(logits, labels, 2.0)
    assert (scores.argmax(axis=1) == logits.argmax(axis=1)).all()


def test_the_calibration_error_is_the_gap_in_each_bin():
    """Four examples of confidence 0.9, two of them right, and one of 0.6 that is right."""
    logits = np.log([[0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.1, 0.9], [0.6, 0.4]])
    labels = np.array([0, 1, 1, 0, 0])
    expected = (4 * abs(0.9 - 0.5) + 1 * abs(0.6 - 1)) / 5
    assert calibration.expected_calibration_error(logits, labels) == pytest.approx(expected)


def test_the_calibration_error_of_label_sets_is_over_all_pairs():
    logits = np.log(np.array([[0.8, 0.1], [0.8, 0.1]]) / [0.2, 0.9])
    labels = np.array([[1, 0], [0, 0]])
    expected = (2 * abs(0.8 - 0.5) + 2 * abs(0.1 - 0)) / 4
    assert calibration.expected_calibration_error(logits, labels) == pytest.approx(expected)


def test_a_confidence_of_0_or_1_has_a_bin():
    logits, labels = np.array([[200.0, -200.0], [-200.0, 200.0]]), np.array([0, 1])
    assert calibration.expected_calibration_error(logits, labels) == pytest.approx(0)
    assert calibration.expected_calibration_error(logits, np.eye(2)) == pytest.approx(0)


def test_likelihood_and_brier_score_are_those_of_scikit_learn():
    logits, labels = draw(200, 2, 1.5)
    scores = calibration.probabilities(logits, labels, 2.0)
    assert calibration.negative_log_likelihood(logits, labels, 2.0) == pytest.approx(
        sklearn.metrics.log_loss(labels, scores)
    )
    brier = sklearn.metrics.brier_score_loss(labels, scores[:, 1])
    assert calibration.brier_score(logits, labels, 2.0) == pytest.approx(2 * brier)
    logits, labels = draw_label_sets(50, 1.5)
    scores = calibration.probabilities(logits, labels, 2.0)
    losses = [sklearn.metrics.log_loss(labels[:, c], scores[:, c]) for c in range(4)]
    assert calibration.negative_log_likelihood(logits, labels, 2.0) == pytest.approx(np.mean(losses))
    briers = [sklearn.metrics.brier_score_loss(labels[:, c], scores[:, c]) for c in range(4)]
    assert calibration.brier_score(logits, labels, 2.0) == pytest.approx(np.mean(briers))


def test_calibration_is_described_before_and_after():
    logits, labels = draw(5000, 2, 3.0)
    described = calibration.describe_calibration(logits, labels, 3.0)
    assert list(described) == ["before", "after"]
    for measure in ("expected_calibration_error", "negative_log_likelihood", "brier_score"):
        assert described["after"][measure] < described["before"][measure]
    assert described["before"] == calibration.describe_calibration(logits, labels, 1.0)["after"]

"""Losses of examples against their formulas in float64, and their gradients."""

import numpy as np
import pytest
import tensorflow as tf

from trainer.train import losses

LABELS = np.array([0, 2, 1, 2])
LOGITS = np.random.default_rng(0).normal(0, 3, (4, 3))


def log_probabilities(logits):
    return logits - np.log(np.exp(logits).sum(1, keepdims=True))


def computed(loss, smoothing, gamma, logits=LOGITS):
    build = losses.build_train_losses(loss, smoothing, gamma)
    return build(tf.constant(LABELS[: len(logits)], tf.int32), tf.constant(logits, tf.float32)).numpy()


def test_losses_are_cross_entropy_or_squared_error():
    logits = tf.math.log([[0.25, 0.75], [0.5, 0.5]])
    assert losses.example_losses(tf.constant([1, 0]), logits).numpy() == pytest.approx(-np.log([0.75, 0.5]))
    numbers = losses.example_losses(tf.constant([1.0, -2.0]), tf.constant([[3.0], [-2.5]]))
    assert numbers.numpy().tolist() == [4.0, 0.25]


def test_the_loss_of_several_labels_is_the_mean_over_them():
    labels, logits = np.float32([[1, 0, 1], [0, 0, 0]]), np.float32([[2.0, -1.0, 0.5], [-3.0, 4.0, 0.0]])
    chances = 1 / (1 + np.exp(-logits.astype(np.float64)))
    expected = -np.log(np.where(labels == 1, chances, 1 - chances)).mean(axis=1)
    assert losses.example_losses(tf.constant(labels), tf.constant(logits)).numpy() == pytest.approx(expected, abs=1e-6)


def test_a_smoothed_label_is_divided_among_all_classes():
    targets = np.eye(3)[LABELS] * 0.7 + 0.1
    expected = -(targets * log_probabilities(LOGITS)).sum(1)
    assert computed("cross_entropy", 0.3, 2.0) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_the_focal_loss_is_that_of_the_paper(gamma):
    log_p = log_probabilities(LOGITS)[np.arange(4), LABELS]
    assert computed("focal", 0.0, gamma) == pytest.approx(-((1 - np.exp(log_p)) ** gamma) * log_p, rel=1e-5)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_the_focal_loss_has_finite_gradients_where_p_rounds_to_0_or_1(gamma):
    logits = tf.constant([[90.0, 0.0, -90.0], [90.0, 0.0, -90.0], [0.0, 1e4, 0.0]])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        values = losses.focal_losses(tf.constant([0, 2, 1]), logits, gamma)
    gradients = tape.gradient(values, logits).numpy()
    assert np.isfinite(values).all()
    assert np.isfinite(gradients).all()
    assert values.numpy() == pytest.approx([0, 180, 0])
    assert gradients[1] == pytest.approx([1, 0, -1])


def test_a_gradient_of_the_focal_loss_is_its_difference_quotient():
    def loss(logits):
        log_p = log_probabilities(logits)[np.arange(4), LABELS]
        return float((-((1 - np.exp(log_p)) ** 2) * log_p).sum())

    logits = tf.constant(LOGITS, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        total = tf.reduce_sum(losses.focal_losses(tf.constant(LABELS, tf.int32), logits, 2.0))
    gradient = tape.gradient(total, logits).numpy()
    for index in np.ndindex(LOGITS.shape):
        step = np.zeros_like(LOGITS)
        step[index] = 1e-5
        assert gradient[index] == pytest.approx((loss(LOGITS + step) - loss(LOGITS - step)) / 2e-5, abs=1e-4)

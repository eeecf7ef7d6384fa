"""Every compiled operation beside the same one of TensorFlow's, with its gradients."""

from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

from trainer.encoders import compiled_operations, dropout
from trainer.encoders.architectures import ACTIVATIONS
from trainer.encoders.dropout import DropoutBits

RATE = 0.25
EPSILON = 1e-5


def draw(*shape: int, seed: int = 0) -> tf.Tensor:
    return tf.constant(np.random.default_rng(seed).normal(size=shape), tf.float32)


PRODUCT, RESIDUAL, BIAS, GAMMA, BETA = draw(9, 6), draw(9, 6, seed=1), *(draw(6, seed=seed) for seed in (2, 3, 4))
SCORES = draw(2, 3, 4, 5)
ADDER = tf.constant([[[[0.0, 0, 0, 0, 0]]], [[[0, 0, 0, -1e9, -1e9]]]])


def draw_bits(shape: tf.TensorShape) -> DropoutBits:
    return DropoutBits(tf.constant(np.random.default_rng(5).integers(0, 1 << 16, shape), tf.uint16), RATE)


def drop(x: tf.Tensor, dropped: DropoutBits | None) -> tf.Tensor:
    return x if dropped is None else x * dropout.scale_kept(dropped.bits, dropped.rate, x.dtype)


def normalize(x: tf.Tensor) -> tf.Tensor:
    mean, variance = tf.nn.moments(x, [1], keepdims=True)
    return tf.nn.batch_normalization(x, mean, variance, BETA, GAMMA, EPSILON)


def assert_equal(expected: Callable, received: Callable, *inputs: tf.Tensor) -> None:
    """The values and the gradients of two functions are the same within rounding, each output weighted differently."""
    results = []
    for function in (expected, received):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = tf.nest.flatten(function(*inputs))
            total = sum(tf.reduce_sum(x * draw(*x.shape, seed=6 + n)) for n, x in enumerate(outputs))
        results.append([*outputs, *tape.gradient(total, inputs)])
    for a, b in zip(*results, strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("activation", ACTIVATIONS.values(), ids=ACTIVATIONS)
def test_an_activation_is_of_product_and_bias(activation):
    def gated(x: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
        inner, gate = tf.split(x + bias, 2, 1)
        return activation(inner) * gate

    assert_equal(
        lambda x, bias: activation(x + bias),
        lambda x, bias: compiled_operations.activate(x, bias, activation),
        *(PRODUCT, BIAS),
    )
    assert_equal(gated, lambda x, bias: compiled_operations.activate_gated(x, bias, activation), PRODUCT, BIAS)


def test_a_layer_norm_is_that_of_the_last_axis():
    assert_equal(normalize, lambda x: compiled_operations.normalize(x, GAMMA, BETA, EPSILON), PRODUCT)


@pytest.mark.parametrize("dropped", [None, draw_bits(PRODUCT.shape)], ids=["kept", "dropped"])
def test_a_residual_is_added_after_dropout(dropped):
    def add(product: tf.Tensor, bias: tf.Tensor, residual: tf.Tensor) -> tf.Tensor:
        return drop(product + bias, dropped) + residual

    inputs = (PRODUCT, BIAS, RESIDUAL)
    assert_equal(add, lambda *given: compiled_operations.add(*given, dropped), *inputs)
    for uses in (1, 2):
        assert_equal(
            lambda *given, uses=uses: [normalize(add(*given))] * uses,
            lambda *given, uses=uses: compiled_operations.add_and_normalize(
                *given, dropped, GAMMA, BETA, EPSILON, uses=uses
            ),
            *inputs,
        )


def test_the_gradients_of_a_layer_norm_reach_its_own_variables():
    def plain(gamma: tf.Tensor, beta: tf.Tensor) -> tf.Tensor:
        mean, variance = tf.nn.moments(PRODUCT + BIAS + RESIDUAL, [1], keepdims=True)
        return tf.nn.batch_normalization(PRODUCT + BIAS + RESIDUAL, mean, variance, beta, gamma, EPSILON)

    assert_equal(
        plain,
        lambda *norm: compiled_operations.add_and_normalize(PRODUCT, BIAS, RESIDUAL, None, *norm, EPSILON),
        *(GAMMA, BETA),
    )


@pytest.mark.parametrize("dropped", [None, draw_bits(SCORES.shape)], ids=["kept", "dropped"])
def test_softmax_is_of_scaled_scores_without_the_masked_ones(dropped):
    assert_equal(
        lambda scores: drop(tf.nn.softmax(scores * 0.5 + ADDER), dropped),
        lambda scores: compiled_operations.softmax(scores, ADDER, dropped, 0.5),
        SCORES,
    )


def test_what_is_returned_has_the_dtype_of_a_product():
    product, residual = (tf.cast(x, tf.bfloat16) for x in (PRODUCT, RESIDUAL))
    (normalized,) = compiled_operations.add_and_normalize(product, BIAS, residual, None, GAMMA, BETA, EPSILON)
    scores = tf.cast(SCORES, tf.bfloat16)
    assert normalized.dtype == compiled_operations.softmax(scores, ADDER, None, 0.5).dtype == tf.bfloat16
    expected = normalize(tf.cast(product, tf.float32) + BIAS + tf.cast(residual, tf.float32))
    assert np.array_equal(tf.cast(normalized, tf.float32), tf.cast(tf.cast(expected, tf.bfloat16), tf.float32))

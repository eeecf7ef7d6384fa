"""What lies between the matrix products of an encoder's layer, each as one function that XLA compiles.

TensorFlow computes a GELU, a layer norm or a softmax as several small operations, and each of them reads and writes all
values. A compiled function reads and writes them once. Products are left out: on a CPU, XLA's are slower than oneDNN's.

XLA compiles a program for each new shape. Everything is computed in float32, and returned in the dtype of a product.
Shapes: T tokens, which are rows times positions; H hidden; I inner; B rows, N heads, Q and S positions.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from trainer.encoders import dropout
from trainer.encoders.dropout import DropoutBits


def _compile(function: Callable) -> Callable:
    return tf.function(function, jit_compile=True, autograph=False)


def _to_float32(x: tf.Tensor) -> tf.Tensor:
    return tf.cast(x, tf.float32)


def _sum_rows(x: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """[H]: the sum of x [T, H] over its rows, the gradient of a bias. As a product: XLA's sum of rows is slower."""
    return tf.cast(tf.matmul(tf.ones([1, tf.shape(x)[0]], x.dtype), x)[0], dtype)


def _split_bits(dropped: DropoutBits | None) -> tuple[tf.Tensor | None, float]:
    return (None, 0.0) if dropped is None else (dropped.bits, dropped.rate)


# --- Activations ----------------------------------------------------------------------------------


@functools.cache
def _activation_functions(function: Callable) -> tuple[Callable, Callable]:
    """The compiled `function` of (product, bias), and its gradient: it is computed again from them, not kept."""

    def backward(gradient: tf.Tensor, product: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(product)
            result = function(product, bias)
        return tape.gradient(result, product, gradient)

    return _compile(function), _compile(backward)


def _compute_activation(function: Callable, product: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    forward, backward = _activation_functions(function)

    @tf.custom_gradient
    def compute(product: tf.Tensor, bias: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        def gradients(gradient: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            of_product = backward(gradient, product, bias)
            return of_product, _sum_rows(of_product, bias.dtype)

        return forward(product, bias), gradients

    return compute(product, bias)


@functools.cache
def _with_bias(activation: Callable) -> Callable:
    def function(product: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
        return tf.cast(activation(_to_float32(product) + _to_float32(bias)), product.dtype)

    return function


@functools.cache
def _with_bias_and_gate(activation: Callable) -> Callable:
    def function(product: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
        inner, gate = tf.split(_to_float32(product) + _to_float32(bias), 2, axis=1)
        return tf.cast(activation(inner) * gate, product.dtype)

    return function


def activate(product: tf.Tensor, bias: tf.Tensor, activation: Callable) -> tf.Tensor:
    """activation(product + bias): [T, I], of a product [T, I] and its bias [I]."""
    return _compute_activation(_with_bias(activation), product, bias)


def activate_gated(product: tf.Tensor, bias: tf.Tensor, activation: Callable) -> tf.Tensor:
    """activation(inner) * gate: [T, I], of product + bias, [T, 2 I], whose halves are `inner` and `gate`."""
    return _compute_activation(_with_bias_and_gate(activation), product, bias)


# --- Bias, dropout, residual, layer norm ----------------------------------------------------------


def _add(inputs: Sequence[tf.Tensor], bits: tf.Tensor | None, rate: float) -> tf.Tensor:
    """float32 [T, H]: of [product, bias, residual] the sum, with dropout before the residual; of [x] x."""
    total = _to_float32(inputs[0])
    if len(inputs) == 1:
        return total
    total += _to_float32(inputs[1])
    if rate:
        total *= dropout.scale_kept(bits, rate, tf.float32)
    return total + _to_float32(inputs[2])


@functools.cache
def _add_functions(rate: float) -> tuple[Callable, Callable]:
    def forward(inputs: list[tf.Tensor], bits: tf.Tensor | None) -> tf.Tensor:
        return tf.cast(_add(inputs, bits, rate), inputs[0].dtype)

    def backward(gradient: tf.Tensor, bits: tf.Tensor | None) -> tf.Tensor:
        scale = dropout.scale_kept(bits, rate, tf.float32) if rate else 1.0
        return tf.cast(_to_float32(gradient) * scale, gradient.dtype)

    return _compile(forward), _compile(backward)


def add(product: tf.Tensor, bias: tf.Tensor, residual: tf.Tensor, dropped: DropoutBits | None) -> tf.Tensor:
    """dropout(product + bias) + residual: [T, H], of a product [T, H], its bias [H] and a residual [T, H]."""
    bits, rate = _split_bits(dropped)
    forward, backward = _add_functions(rate)

    @tf.custom_gradient
    def compute(*inputs: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        def gradients(gradient: tf.Tensor) -> tuple[tf.Tensor, ...]:
            of_product = backward(gradient, bits)
            return of_product, _sum_rows(of_product, bias.dtype), gradient

        return forward(list(inputs), bits), gradients

    return compute(product, bias, residual)


@functools.cache
def _norm_functions(rate: float, epsilon: float) -> tuple[Callable, Callable]:
    """A layer norm of _add's sum, and its gradient from the sum's mean and 1 / deviation, which are kept."""

    def forward(inputs: list[tf.Tensor], bits: tf.Tensor | None, gamma: tf.Tensor, beta: tf.Tensor) -> Any:
        total = _add(inputs, bits, rate)
        mean = tf.reduce_mean(total, 1, keepdims=True)
        centered = total - mean
        inverse = tf.math.rsqrt(tf.reduce_mean(tf.square(centered), 1, keepdims=True) + epsilon)
        return tf.cast(centered * inverse * gamma + beta, inputs[0].dtype), mean, inverse

    def backward(
        outer: tuple[tf.Tensor, ...],
        inputs: list[tf.Tensor],
        bits: tf.Tensor | None,
        gamma: tf.Tensor,
        mean: tf.Tensor,
        inverse: tf.Tensor,
    ) -> Any:
        gradient = tf.add_n([_to_float32(one) for one in outer])
        normal = (_add(inputs, bits, rate) - mean) * inverse
        of_normal = gradient * gamma
        own_share = tf.reduce_mean(of_normal, 1, keepdims=True)
        own_share += normal * tf.reduce_mean(of_normal * normal, 1, keepdims=True)
        of_total = inverse * (of_normal - own_share)
        of_product = of_total * dropout.scale_kept(bits, rate, tf.float32) if rate else of_total
        return (
            tf.cast(of_product, inputs[0].dtype),
            tf.cast(of_total, inputs[-1].dtype),
            tf.reduce_sum(gradient * normal, 0),
            tf.reduce_sum(gradient, 0),
        )

    return _compile(forward), _compile(backward)


def normalize(x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, epsilon: float) -> tf.Tensor:
    """The layer norm of x, [T, H]. `gamma` and `beta` are float32 [H]."""
    forward, backward = _norm_functions(0.0, epsilon)

    @tf.custom_gradient
    def compute(x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        normalized, mean, inverse = forward([x], None, gamma, beta)

        def gradients(outer: tf.Tensor) -> tuple[tf.Tensor, ...]:
            of_x, _, of_gamma, of_beta = backward((outer,), [x], None, gamma, mean, inverse)
            return of_x, of_gamma, of_beta

        return normalized, gradients

    return compute(x, gamma, beta)


def add_and_normalize(
    product: tf.Tensor,
    bias: tf.Tensor,
    residual: tf.Tensor,
    dropped: DropoutBits | None,
    gamma: tf.Tensor,
    beta: tf.Tensor,
    epsilon: float,
    uses: int = 1,
) -> tuple[tf.Tensor, ...]:
    """The layer norm of `add`'s sum, [T, H], as often as it is used. `gamma` and `beta` are float32 [H].

    The gradients of several uses are then added where they are read, in float32.
    """
    bits, rate = _split_bits(dropped)
    forward, backward = _norm_functions(rate, epsilon)

    @tf.custom_gradient
    def compute(*inputs: tf.Tensor) -> tuple[tuple[tf.Tensor, ...], Callable]:
        added, gamma, beta = list(inputs[:3]), *inputs[3:]
        normalized, mean, inverse = forward(added, bits, gamma, beta)

        def gradients(*outer: tf.Tensor) -> tuple[tf.Tensor, ...]:
            of_product, of_residual, of_gamma, of_beta = backward(outer, added, bits, gamma, mean, inverse)
            return of_product, _sum_rows(of_product, bias.dtype), of_residual, of_gamma, of_beta

        return tuple(tf.identity(normalized) for _ in range(uses)), gradients

    return compute(product, bias, residual, gamma, beta)


# --- Softmax --------------------------------------------------------------------------------------


def _order_bits(bits: tf.Tensor) -> tf.Tensor:
    """The bits of float32 values, int32, as integers in the order of the values; of these, the bits again."""
    return tf.bitwise.bitwise_xor(bits, tf.bitwise.bitwise_and(tf.bitwise.right_shift(bits, 31), 0x7FFFFFFF))


def _largest_of_rows(x: tf.Tensor) -> tf.Tensor:
    """The largest of the last axis, which is kept. XLA finds the largest integer in half the time of a float's."""
    ordered = _order_bits(tf.bitcast(x, tf.int32))
    return tf.bitcast(_order_bits(tf.reduce_max(ordered, -1, keepdims=True)), tf.float32)


@functools.cache
def _softmax_functions(rate: float, scale: float) -> tuple[Callable, Callable]:
    """Kept are each row's largest logit and 1 / its sum of powers: the gradient computes the rest from the scores."""

    def exponentials(scores: tf.Tensor, adder: tf.Tensor, largest: tf.Tensor | None) -> tuple[tf.Tensor, tf.Tensor]:
        logits = _to_float32(scores) * scale + adder
        largest = _largest_of_rows(logits) if largest is None else largest
        return tf.exp(logits - largest), largest

    def forward(scores: tf.Tensor, adder: tf.Tensor, bits: tf.Tensor | None) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        powers, largest = exponentials(scores, adder, None)
        inverse = 1.0 / tf.reduce_sum(powers, -1, keepdims=True)
        probabilities = powers * inverse
        if rate:
            probabilities *= dropout.scale_kept(bits, rate, tf.float32)
        return tf.cast(probabilities, scores.dtype), largest, inverse

    def backward(
        gradient: tf.Tensor,
        scores: tf.Tensor,
        adder: tf.Tensor,
        bits: tf.Tensor | None,
        largest: tf.Tensor,
        inverse: tf.Tensor,
    ) -> tf.Tensor:
        probabilities = exponentials(scores, adder, largest)[0] * inverse
        gradient = _to_float32(gradient)
        if rate:
            gradient *= dropout.scale_kept(bits, rate, tf.float32)
        shared = tf.reduce_sum(gradient * probabilities, -1, keepdims=True)
        return tf.cast(probabilities * (gradient - shared) * scale, scores.dtype)

    return _compile(forward), _compile(backward)


def softmax(scores: tf.Tensor, adder: tf.Tensor, dropped: DropoutBits | None, scale: float) -> tf.Tensor:
    """dropout(softmax(scores * scale + adder)) over the last axis: [B, N, Q, S]. `adder` is float32 [B, 1, 1, S]."""
    bits, rate = _split_bits(dropped)
    forward, backward = _softmax_functions(rate, scale)

    @tf.custom_gradient
    def compute(scores: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        probabilities, *kept = forward(scores, adder, bits)
        return probabilities, lambda gradient: backward(gradient, scores, adder, bits, *kept)

    return compute(scores)

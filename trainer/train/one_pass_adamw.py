"""AdamW compiled by XLA as one pass over each large variable: each value is read and written once.

optimizers.apply_gradients reads and writes them in three operations for each variable: clipping, weight decay, Adam.
"""

from collections.abc import Mapping
from typing import NamedTuple

import tensorflow as tf
import tf_keras

from trainer.train.optimizers import Update

# XLA takes 0.1 s of a processor to compile the pass over a variable: 9 s for the 105 of minilm, of which one is large.
# With the other 104 in the pass, a step of minilm takes as long. Other encoders were not measured.
MIN_ELEMENTS = 1 << 20


def suits_one_pass(optimizer_name: str, strategy: tf.distribute.Strategy) -> bool:
    """Whether an optimizer of optimizers.OPTIMIZERS can be replaced: with several replicas, variables have copies."""
    return optimizer_name == "adamw" and strategy.num_replicas_in_sync == 1


def build_one_pass_update(
    optimizer: tf_keras.optimizers.Optimizer, clip_norm: float, rate_scales: Mapping[str, float] | None = None
) -> Update:
    """optimizers.build_update for an optimizer of optimizers.build_adamw, equal within the rounding of float32.

    The moments are the optimizer's own, and so are the number of steps and the learning rate. `rate_scales` are those
    of optimizers.layer_rate_scales. All variables are on one device.
    """
    scales = rate_scales or {}

    def update(gradients: list[tf.Tensor], variables: list[tf.Variable]) -> tf.Tensor:
        norm = tf.linalg.global_norm(gradients)
        # As tf.clip_by_global_norm: a norm that is not finite makes every gradient NaN.
        clip = clip_norm * tf.minimum(1.0 / norm, 1.0 / clip_norm) + (norm - norm)
        state = optimizer._prepare(variables)
        large = []
        for gradient, variable in zip(gradients, variables, strict=True):
            if variable.shape.num_elements() >= MIN_ELEMENTS:
                large.append((gradient, variable))
            else:
                optimizer._resource_apply_dense(gradient * clip, variable, apply_state=state)
        if large:
            (coefficients,) = state.values()  # Of the one device.
            _apply_in_one_pass(optimizer, large, clip, coefficients, scales)
        optimizer.iterations.assign_add(1)
        return norm

    return update


def _apply_in_one_pass(
    optimizer: tf_keras.optimizers.Optimizer,
    pairs: list[tuple[tf.Tensor, tf.Variable]],
    clip: tf.Tensor,
    coefficients: dict[str, tf.Tensor],
    scales: Mapping[str, float],
) -> None:
    """The step of variables by their gradients, each of which is multiplied by `clip`."""
    needed = {name: coefficients[name] for name in ("lr", "lr_t", "beta_1_t", "beta_2_t", "epsilon")}
    needed["weight_decay"] = tf.constant(optimizer.weight_decay_rate)

    @tf.function(jit_compile=True, autograph=False)
    def apply(gradients: list[tf.Tensor], clip: tf.Tensor, coefficients: dict[str, tf.Tensor]) -> None:
        for gradient, (_, variable) in zip(gradients, pairs, strict=True):
            rates = _scale_rates(coefficients, scales.get(variable.name, 1.0))
            _assign(optimizer, variable, gradient * clip, rates)

    apply([gradient for gradient, _ in pairs], clip, needed)


class _Rates(NamedTuple):
    """What a variable's step is made of besides its values and its gradient: float32 []."""

    learning_rate: tf.Tensor  # Corrected for the bias of the moments.
    decay: tf.Tensor  # The learning rate of the weight decay.
    weight_decay: tf.Tensor
    mean: tf.Tensor  # The share that a gradient has in the new mean of gradients,
    square: tf.Tensor  # and its square in the mean of squares.
    epsilon: tf.Tensor


def _scale_rates(coefficients: dict[str, tf.Tensor], scale: float) -> _Rates:
    return _Rates(
        learning_rate=coefficients["lr"] * scale,
        decay=coefficients["lr_t"] * scale,
        weight_decay=coefficients["weight_decay"],
        mean=1.0 - coefficients["beta_1_t"],
        square=1.0 - coefficients["beta_2_t"],
        epsilon=coefficients["epsilon"],
    )


def _assign(
    optimizer: tf_keras.optimizers.Optimizer, variable: tf.Variable, gradient: tf.Tensor, rates: _Rates
) -> None:
    """The step of one variable. Source: official.nlp's AdamWeightDecay, and TensorFlow's ResourceApplyAdam."""
    first, second = optimizer.get_slot(variable, "m"), optimizer.get_slot(variable, "v")
    mean = first.value()
    mean += (gradient - mean) * rates.mean
    square = second.value()
    square += (tf.square(gradient) - square) * rates.square
    value = variable.value()
    if optimizer._do_use_weight_decay(variable.name):
        value -= rates.decay * value * rates.weight_decay
    value -= rates.learning_rate * mean / (tf.sqrt(square) + rates.epsilon)
    first.assign(mean)
    second.assign(square)
    variable.assign(value)

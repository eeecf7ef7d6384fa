"""AdamW or LAMB with linear warm-up and decay, clipped once. The only user of official.nlp.optimization."""

import re
from collections.abc import Callable
from typing import Any

import tensorflow as tf
import tf_keras
from official.nlp import optimization

from trainer.encoders import depths

# Changes variables by gradients that are summed over the replicas. Returns the gradients' norm before they are clipped,
# float32 [].
Update = Callable[[list[tf.Tensor], list[tf.Variable]], tf.Tensor]

# Layer norms and biases are not decayed, as BERT was trained (Devlin et al. 2018, appendix A.2).
NOT_DECAYED = ["LayerNorm", "layer_norm", "bias"]


def learning_rate_schedule(
    learning_rate: float, steps: int, warmup_fraction: float
) -> tf_keras.optimizers.schedules.LearningRateSchedule:
    """A linear warm-up from 0 over `warmup_fraction` of the steps, then a linear decay to 0 at the last step."""
    decay = tf_keras.optimizers.schedules.PolynomialDecay(learning_rate, decay_steps=steps, end_learning_rate=0.0)
    warmup = warmup_steps(steps, warmup_fraction)
    return optimization.WarmUp(learning_rate, decay, warmup) if warmup else decay


def warmup_steps(steps: int, warmup_fraction: float) -> int:
    """The number of steps in which the learning rate rises."""
    return round(steps * warmup_fraction)


def build_adamw(
    learning_rate: float, steps: int, warmup_fraction: float, weight_decay: float
) -> tf_keras.optimizers.Optimizer:
    """BERT's AdamW. It does not clip: its own clipping is per replica, before the all-reduce. See clip_gradients."""
    return optimization.AdamWeightDecay(
        learning_rate=learning_rate_schedule(learning_rate, steps, warmup_fraction),
        weight_decay_rate=weight_decay,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=1e-6,
        gradient_clip_norm=0.0,
        exclude_from_weight_decay=NOT_DECAYED,
    )


def build_lamb(
    learning_rate: float, steps: int, warmup_fraction: float, weight_decay: float
) -> tf_keras.optimizers.Optimizer:
    """LAMB: AdamW's step of each variable, scaled to the variable's norm. Source: You et al. 2019, algorithm 2.

    Layer norms and biases are neither decayed nor scaled.
    """
    return optimization.LAMB(
        learning_rate=learning_rate_schedule(learning_rate, steps, warmup_fraction),
        weight_decay_rate=weight_decay,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=1e-6,
        exclude_from_weight_decay=NOT_DECAYED,
    )


# optimizer.name -> the function that builds it.
OPTIMIZERS = {"adamw": build_adamw, "lamb": build_lamb}


def layer_rate_scales(variables: list[tf.Variable], layer_decay: float) -> dict[str, float]:
    """What each variable's learning rate is multiplied by: for each layer `layer_decay` times that of the layer above.

    It is 1 for the pooler and the head, and the lowest for the embeddings. Source: Clark et al. 2020 (ELECTRA),
    section 3.1, where the rate of the last layer is that of the head times the decay too.
    """
    found = depths.variable_depths([variable.name for variable in variables])
    return {v.name: layer_decay ** (max(found) - depth) for v, depth in zip(variables, found, strict=True)}


def decay_layer_rates(
    optimizer: tf_keras.optimizers.Optimizer, variables: list[tf.Variable], layer_decay: float
) -> None:
    """Give each layer the learning rate of the one above it times `layer_decay`, and so its weight decay."""
    scales = layer_rate_scales(variables, layer_decay)
    apply_at_rate = optimizer._resource_apply_dense

    def apply_dense(grad: tf.Tensor, var: tf.Variable, apply_state: dict[Any, dict[str, tf.Tensor]]) -> tf.Operation:
        place = (var.device, var.dtype.base_dtype)
        scale = scales[re.sub(r"/replica_\d+", "", var.name)]
        coefficients = {**apply_state[place], "lr_t": apply_state[place]["lr_t"] * scale}
        return apply_at_rate(grad, var, apply_state={place: coefficients})

    # Keras's optimizer has one rate for all variables. Setting the method costs nothing in a step; the moments, and so
    # the checkpoints, are those of one optimizer.
    optimizer._resource_apply_dense = apply_dense


def create_slots(optimizer: tf_keras.optimizers.Optimizer, variables: list[tf.Variable]) -> None:
    """Create the moments before the first step, so that a checkpoint restores them. Call it in the strategy's scope."""
    optimizer.iterations  # noqa: B018  The property creates the variable.
    optimizer._create_all_weights(variables)


def clip_gradients(gradients: list[tf.Tensor], norm: float) -> tuple[list[tf.Tensor], tf.Tensor]:
    """(gradients scaled down so that their global norm is at most `norm`, their norm before that: float32 [])."""
    clipped, received = tf.clip_by_global_norm(gradients, norm)
    return clipped, received


def apply_gradients(
    optimizer: tf_keras.optimizers.Optimizer, gradients: list[tf.Tensor], variables: list[tf.Variable]
) -> None:
    """Apply gradients that are already summed over the replicas."""
    optimizer.apply_gradients(zip(gradients, variables, strict=True), experimental_aggregate_gradients=False)


def build_update(optimizer: tf_keras.optimizers.Optimizer, clip_norm: float) -> Update:
    """Clips the gradients to a global norm of `clip_norm`, and applies them."""

    def update(gradients: list[tf.Tensor], variables: list[tf.Variable]) -> tf.Tensor:
        clipped, norm = clip_gradients(gradients, clip_norm)
        apply_gradients(optimizer, clipped, variables)
        return norm

    return update

"""A text classifier or regressor: an encoder, one vector of a text from its outputs, dropout and a linear layer.

Shapes: B batch, S sequence, H hidden, C classes (1 for regression).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from trainer.encoders import architectures, dropout, native, saved_models
from trainer.errors import Problem, UsageError, UserError, describe_error

HEAD_DROPOUT = 0.1  # As in TensorFlow's tutorial "Classify text with BERT".

# The configuration's `precision` -> the Keras dtype policy. Variables are float32 in both.
POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}


def pool_tokens(outputs: Mapping[str, tf.Tensor], mask: tf.Tensor, pooling: str) -> tf.Tensor:
    """One vector of a text from an encoder's outputs: float32 [B, H].

    `outputs` has pooled_output [B, H] and sequence_output [B, S, H] in any float dtype; `mask`, int32 [B, S], is 1 for
    a text's own tokens. `pooling` is "pooled" (the first token's output through the pooler), "first" (without it) or
    "mean" (over the text's own tokens, special ones included, summed in float32).
    """
    if pooling == "pooled":
        return tf.cast(outputs["pooled_output"], tf.float32)
    sequence = outputs["sequence_output"]
    if pooling == "first":
        return tf.cast(sequence[:, 0], tf.float32)
    weights = tf.cast(tf.expand_dims(mask, 2), tf.float32)
    return tf.reduce_sum(tf.cast(sequence, tf.float32) * weights, axis=1) / tf.reduce_sum(weights, axis=1)


@tf.autograph.experimental.do_not_convert  # As in native.build_encoder.
def build_classifier(
    encoder: tf_keras.layers.Layer, classes: int, head_dropout: float, seed: int, pooling: str = "pooled"
) -> tf_keras.Model:
    """A model from {input_word_ids, input_mask, input_type_ids}: int32 [B, S] to logits: float32 [B, C].

    `encoder` returns what pool_tokens takes. `head_dropout` is the rate before the linear layer, and `seed` decides the
    linear layer's initial values. All dropout, the encoder's included, becomes seeded dropout.
    """
    inputs = {name: tf_keras.Input([None], dtype=tf.int32, name=name) for name in native.INPUT_NAMES}
    pooled = pool_tokens(encoder(inputs), inputs["input_mask"], pooling)
    dropped = tf_keras.layers.Dropout(head_dropout, dtype="float32", name="head_dropout")(pooled)
    initializer = tf_keras.initializers.TruncatedNormal(stddev=0.02, seed=seed)
    logits = tf_keras.layers.Dense(classes, kernel_initializer=initializer, dtype="float32", name="classifier")(dropped)
    model = tf_keras.Model(inputs, logits)
    dropout.install_seeded_dropout(model)
    return model


def build_native_encoder(
    architecture: architectures.Architecture, values: list[np.ndarray], precision: str, pooling: str = "pooled"
) -> tf_keras.layers.Layer:
    """The encoder that native.rebuild_encoder describes, with its values, for pool_tokens with `pooling`.

    `precision` is a key of POLICIES. An architecture with more positions than there are values is extended by tiling.
    """
    # All but the mean depend on the first position alone.
    with native.variables_without_values():
        encoder = native.build_encoder(architecture, POLICIES[precision], output_range=None if pooling == "mean" else 1)
    for variable, value in zip(encoder.trainable_variables, values, strict=True):
        variable.assign(native.fit_positions(variable.name, value, variable.shape[0]))
    return encoder


def build_hub_encoder(saved: Any) -> tf_keras.layers.Layer:
    """A loaded SavedModel as a layer, for the families of encoders that cannot be rebuilt natively."""
    import tensorflow_hub as hub

    return hub.KerasLayer(saved, trainable=True, name="encoder")


def check_hub_encoder(saved: Any, place: str, pooling: str = "pooled") -> None:
    """Compute gradients through build_hub_encoder's layer for a small batch. `place` is the encoder's in messages.

    Raises UserError if that fails, or if no variable has a gradient; UsageError if it lacks what `pooling` needs.
    """
    inputs = {name: tf_keras.Input([None], dtype=tf.int32, name=name) for name in native.INPUT_NAMES}
    try:
        outputs = build_hub_encoder(saved)(inputs)
        if pooling != "pooled" and "sequence_output" not in outputs:
            required = f"be pooled for {place}, which returns no sequence_output"
            raise UsageError(Problem("model.pooling", required, pooling, "Change it with --model.pooling=pooled."))
        model = tf_keras.Model(inputs, pool_tokens(outputs, inputs["input_mask"], pooling))
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(model(saved_models.small_batch(), training=True))
        gradients = tape.gradient(total, model.trainable_variables)
        failure = "" if any(g is not None for g in gradients) else "no gradient reaches its variables"
    except UsageError:
        raise
    except Exception as error:  # Keras and TensorFlow raise errors of many types.
        failure = f"that fails with {describe_error(error)}"
    if failure:
        raise UserError(Problem("--encoder", "train through hub.KerasLayer", f"{place}, for which {failure}"))


def copy_variables(source: tf_keras.Model, target: tf_keras.Model) -> None:
    """Copy the values of `source` to `target`, the same model in any precision."""
    if source is not target:
        for variable, value in zip(target.variables, source.variables, strict=True):
            variable.assign(value)

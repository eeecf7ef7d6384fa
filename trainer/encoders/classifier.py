"""A text classifier or regressor: an encoder, dropout and a linear layer on the pooled output.

Shapes: B batch, S sequence, H hidden, C classes (1 for regression).
"""

from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from trainer.encoders import architectures, dropout, native, saved_models
from trainer.errors import Problem, UserError, describe_error

HEAD_DROPOUT = 0.1  # As in TensorFlow's tutorial "Classify text with BERT".

# The configuration's `precision` -> the Keras dtype policy. Variables are float32 in both.
POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}


def build_classifier(encoder: tf_keras.layers.Layer, classes: int, head_dropout: float, seed: int) -> tf_keras.Model:
    """A model from {input_word_ids, input_mask, input_type_ids}: int32 [B, S] to logits: float32 [B, C].

    `encoder` returns pooled_output [B, H] in any float dtype. `head_dropout` is the rate before the linear layer, and
    `seed` decides the linear layer's initial values. All dropout, the encoder's included, becomes seeded dropout.
    """
    inputs = {name: tf_keras.Input([None], dtype=tf.int32, name=name) for name in native.INPUT_NAMES}
    pooled = tf.cast(encoder(inputs)["pooled_output"], tf.float32)
    dropped = tf_keras.layers.Dropout(head_dropout, dtype="float32", name="head_dropout")(pooled)
    initializer = tf_keras.initializers.TruncatedNormal(stddev=0.02, seed=seed)
    logits = tf_keras.layers.Dense(classes, kernel_initializer=initializer, dtype="float32", name="classifier")(dropped)
    model = tf_keras.Model(inputs, logits)
    dropout.install_seeded_dropout(model)
    return model


def build_native_encoder(
    architecture: architectures.Architecture, values: list[np.ndarray], precision: str
) -> tf_keras.layers.Layer:
    """The encoder that native.rebuild_encoder describes, with its values. `precision` is a key of POLICIES."""
    # The pooled output depends on the first position alone.
    encoder = native.build_encoder(architecture, POLICIES[precision], output_range=1)
    for variable, value in zip(encoder.trainable_variables, values, strict=True):
        variable.assign(value)
    return encoder


def build_hub_encoder(saved: Any) -> tf_keras.layers.Layer:
    """A loaded SavedModel as a layer, for the families of encoders that cannot be rebuilt natively."""
    import tensorflow_hub as hub

    return hub.KerasLayer(saved, trainable=True, name="encoder")


def check_hub_encoder(saved: Any, place: str) -> None:
    """Compute gradients through build_hub_encoder's layer for a small batch. `place` is the encoder's in messages.

    Raises UserError if that fails, or if no variable has a gradient.
    """
    inputs = {name: tf_keras.Input([None], dtype=tf.int32, name=name) for name in native.INPUT_NAMES}
    try:
        model = tf_keras.Model(inputs, build_hub_encoder(saved)(inputs)["pooled_output"])
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(model(saved_models.small_batch(), training=True))
        gradients = tape.gradient(total, model.trainable_variables)
        failure = "" if any(g is not None for g in gradients) else "no gradient reaches its variables"
    except Exception as error:  # Keras and TensorFlow raise errors of many types.
        failure = f"that fails with {describe_error(error)}"
    if failure:
        raise UserError(Problem("--encoder", "train through hub.KerasLayer", f"{place}, for which {failure}"))


def copy_variables(source: tf_keras.Model, target: tf_keras.Model) -> None:
    """Copy the values of `source` to `target`, the same model in any precision."""
    if source is not target:
        for variable, value in zip(target.variables, source.variables, strict=True):
            variable.assign(value)

"""The encoder with a dropout and a linear head on its pooled output.

Shapes: B batch, S sequence, H hidden, C classes (1 for regression).
"""

from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from trainer.encoders import dropout, native

HEAD_DROPOUT = 0.1  # the tutorial's

POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}  # bfloat16 computes; variables stay float32


def build_classifier(encoder: tf_keras.layers.Layer, classes: int, head_dropout: float, seed: int) -> tf_keras.Model:
    """{input_word_ids, input_mask, input_type_ids}: int32 [B, S] -> logits float32 [B, C]."""
    inputs = {name: tf_keras.Input([None], dtype=tf.int32, name=name) for name in native.INPUT_NAMES}
    pooled = tf.cast(encoder(inputs)["pooled_output"], tf.float32)
    dropped = tf_keras.layers.Dropout(head_dropout, dtype="float32", name="head_dropout")(pooled)
    initializer = tf_keras.initializers.TruncatedNormal(stddev=0.02, seed=seed)
    logits = tf_keras.layers.Dense(classes, kernel_initializer=initializer, dtype="float32", name="classifier")(dropped)
    model = tf_keras.Model(inputs, logits)
    dropout.install_seeded_dropout(model)
    return model


def build_native_encoder(
    architecture: native.Architecture, values: list[np.ndarray], precision: str
) -> tf_keras.layers.Layer:
    """The rebuilt encoder with its pretrained values, computing in float32 or bfloat16."""
    encoder = native.build_encoder(
        architecture, POLICIES[precision], output_range=1
    )  # the head sees the first position alone
    for variable, value in zip(encoder.trainable_variables, values, strict=True):
        variable.assign(value)
    return encoder


def build_hub_encoder(saved: Any) -> tf_keras.layers.Layer:
    """The SavedModel itself as a layer: for the families that are not rebuilt yet."""
    import tensorflow_hub as hub

    return hub.KerasLayer(saved, trainable=True, name="encoder")


def copy_variables(source: tf_keras.Model, target: tf_keras.Model) -> None:
    """Give `target`, a model of the same shape in another precision, the values of `source`."""
    if source is not target:
        for variable, value in zip(target.variables, source.variables, strict=True):
            variable.assign(value)

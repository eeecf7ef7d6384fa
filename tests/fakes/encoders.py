"""Small SavedModels that are called as encoders are, and may be none."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf


def save_callable(
    folder: Path, specification: Any, call: Callable[[tf.Variable, Any], Any], *, trainable: bool = True
) -> None:
    """Save a model that returns call(table, inputs). `table` is float32 [16, 4]; `specification` is of its inputs."""
    root = tf.train.Checkpoint()
    root.table = tf.Variable(tf.reshape(tf.range(64.0), [16, 4]))
    root.trainable_variables = [root.table] if trainable else []
    root.__call__ = tf.function(lambda inputs: call(root.table, inputs), input_signature=[specification])
    tf.saved_model.save(root, str(folder))


def save_mean_of_embeddings(folder: Path) -> None:
    """Save an encoder that can be trained, and returns nothing but pooled_output."""
    names = ("input_word_ids", "input_mask", "input_type_ids")

    def call(table: tf.Variable, inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {"pooled_output": tf.reduce_mean(tf.gather(table, inputs["input_word_ids"]), 1)}

    save_callable(folder, {name: tf.TensorSpec([None, None], tf.int32) for name in names}, call)


def save_for_inference(folder: Path) -> None:
    """Save an encoder that can be called with training=False only."""
    root = tf.train.Checkpoint()
    root.table = tf.Variable(tf.ones([16, 4]))
    root.trainable_variables = [root.table]

    def call(inputs: dict[str, tf.Tensor], training: bool) -> dict[str, tf.Tensor]:
        return {"pooled_output": tf.reduce_mean(tf.gather(root.table, inputs["input_word_ids"]), 1)}

    root.__call__ = tf.function(call)
    names = ("input_word_ids", "input_mask", "input_type_ids")
    root.__call__.get_concrete_function({name: tf.TensorSpec([None, None], tf.int32, name) for name in names}, False)
    tf.saved_model.save(root, str(folder))

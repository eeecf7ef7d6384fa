"""Small SavedModels: encoders of every family, and what is called as they are and may be none."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf
import tensorflow_hub as hub
import tf_keras
from official.modeling import hyperparams
from official.nlp.configs import encoders as encoder_configs
from official.nlp.tools import export_tfhub_lib

from trainer.encoders import random_encoders
from trainer.encoders.architectures import Architecture

SMALL = Architecture(
    vocab_size=1024,
    embedding_width=32,
    hidden_size=32,
    layers=2,
    heads=2,
    inner_size=48,
    max_positions=64,
    token_types=2,
    activation="gelu",
    dropout=0.2,
    attention_dropout=0.05,
)


def export_encoder(folder: Path, network: str, architecture: Architecture, *, with_mlm: bool = False) -> Any:
    """Export a key of random_encoders.NETWORKS as the Hub's encoders were, and load it.

    Its weights are so large that every part of the encoder changes the outputs.
    """
    tf_keras.utils.set_random_seed(0)
    encoder = random_encoders.NETWORKS[network](architecture, 0.2)

    class Given(hyperparams.Config):  # how the exporter accepts an encoder that has no configuration
        BUILDER = staticmethod(lambda _: encoder)
        hidden_activation: str = "gelu"  # of the head for masked words

    config = encoder_configs.EncoderConfig(type="any")
    config.any = Given()
    _, exported = export_tfhub_lib._create_model(encoder_config=config, with_mlm=with_mlm)
    items = exported.checkpoint_items if with_mlm else {"encoder": exported, "model": exported}
    vocabulary = random_encoders.write_wordpiece(folder, architecture.vocab_size)
    export_tfhub_lib.export_model(
        str(folder / "encoder"),
        encoder_config=config,
        model_checkpoint_path=tf.train.Checkpoint(**items).save(str(folder / "checkpoint")),
        with_mlm=with_mlm,
        vocab_file=str(vocabulary),
        do_lower_case=True,
    )
    return hub.load(str(folder / "encoder"))


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

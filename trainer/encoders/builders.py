"""New encoders of every family, from official.nlp's layers.

Each is a networks.BertEncoderV2, whose last layer computes the positions of output_range only; the families differ in
its layers.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
import tf_keras
from official.nlp.modeling import layers, networks

from trainer.encoders import dropout
from trainer.encoders.architectures import ACTIVATIONS, Architecture

STDDEV = 0.02  # Of BERT's own initial weights.


def initializer(stddev: float = STDDEV) -> tf_keras.initializers.Initializer:
    """How a new encoder's kernels and embeddings are drawn."""
    return tf_keras.initializers.TruncatedNormal(stddev=stddev)


def bert_options(architecture: Architecture, stddev: float = STDDEV) -> dict[str, Any]:
    """The arguments of networks.BertEncoder and networks.BertEncoderV2."""
    return dict(
        vocab_size=architecture.vocab_size,
        embedding_width=architecture.embedding_width,
        hidden_size=architecture.hidden_size,
        num_layers=architecture.layers,
        num_attention_heads=architecture.heads,
        inner_dim=architecture.inner_size,
        inner_activation=ACTIVATIONS[architecture.activation],
        max_sequence_length=architecture.max_positions,
        type_vocab_size=architecture.token_types,
        output_dropout=architecture.dropout,
        attention_dropout=architecture.attention_dropout,
        initializer=initializer(stddev),
        norm_first=architecture.norm_first,
    )


def _build_bert(architecture: Architecture, output_range: int | None) -> tf_keras.layers.Layer:
    return networks.BertEncoderV2(**bert_options(architecture), output_range=output_range)


@dataclasses.dataclass(frozen=True)
class _BlockAtDepth:
    """One call of a block that several layers share. Its dropout has other masks at every depth."""

    block: tf_keras.layers.Layer
    depth: int

    @tf.autograph.experimental.do_not_convert
    def __call__(self, inputs: list[tf.Tensor], output_range: int | None = None) -> tf.Tensor:
        with dropout.use_depth(self.depth):
            return self.block(inputs, output_range=output_range)


def _build_albert(architecture: Architecture, output_range: int | None) -> tf_keras.layers.Layer:
    """A BERT of one block, which is called for every layer. networks.AlbertEncoder has no output_range."""
    encoder = _build_bert(dataclasses.replace(architecture, layers=0), output_range)
    encoder.shared_block = layers.TransformerEncoderBlock(  # An attribute, in which Keras finds the variables.
        num_attention_heads=architecture.heads,
        inner_dim=architecture.inner_size,
        inner_activation=ACTIVATIONS[architecture.activation],
        output_dropout=architecture.dropout,
        attention_dropout=architecture.attention_dropout,
        norm_first=architecture.norm_first,
        kernel_initializer=initializer(),
        name="transformer",
    )
    _set_layers(encoder, tuple(_BlockAtDepth(encoder.shared_block, depth) for depth in range(architecture.layers)))
    return encoder


def _build_talking_heads(architecture: Architecture, output_range: int | None) -> tf_keras.layers.Layer:
    """A BERT with other layers. networks.EncoderScaffold has no output_range."""
    encoder = _build_bert(dataclasses.replace(architecture, layers=0), output_range)
    _set_layers(encoder, [_build_scaffold(architecture, number) for number in range(architecture.layers)])
    return encoder


def _set_layers(encoder: tf_keras.layers.Layer, blocks: Sequence[Callable[..., tf.Tensor]]) -> None:
    encoder._transformer_layers, encoder._num_layers = blocks, len(blocks)


def _build_scaffold(architecture: Architecture, number: int) -> tf_keras.layers.Layer:
    """One layer with talking heads and gated units, called as BERT's are: with [x, mask] and output_range."""
    # Under a policy of bfloat16, official.nlp's layer computes the activation in float32, and would fail to multiply it
    # by the gate.
    dtype = tf_keras.mixed_precision.global_policy().compute_dtype
    activation = ACTIVATIONS[architecture.activation]
    layer = layers.TransformerScaffold(
        num_attention_heads=architecture.heads,
        attention_cls=layers.TalkingHeadsAttention,
        feedforward_cls=layers.GatedFeedforward,
        feedforward_cfg=dict(
            inner_dim=architecture.inner_size,
            inner_activation=lambda x: tf.cast(activation(x), dtype),
            dropout=architecture.dropout,
            apply_output_layer_norm=not architecture.norm_first,
            kernel_initializer=initializer(),
            name="feedforward",
        ),
        dropout_rate=architecture.dropout,
        attention_dropout_rate=architecture.attention_dropout,
        norm_first=architecture.norm_first,
        kernel_initializer=initializer(),
        name=f"transformer/layer_{number}",
    )
    layer_call = layer.call

    def call(inputs: list[tf.Tensor], output_range: int | None = None, training: bool | None = None) -> tf.Tensor:
        x, mask = inputs
        if not output_range:
            return layer_call(inputs, training=training)
        if architecture.norm_first:  # The layer would not normalize the keys and values if they were given.
            return layer_call(inputs, training=training)[:, :output_range]
        return layer_call([x[:, :output_range], x, mask[:, :output_range]], training=training)

    layer.call = call
    return layer


# A key of architectures.FAMILIES -> the function that builds its encoders.
BUILDERS: dict[str, Callable[[Architecture, int | None], tf_keras.layers.Layer]] = {
    "bert": _build_bert,
    "albert": _build_albert,
    "talking_heads": _build_talking_heads,
}

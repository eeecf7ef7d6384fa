"""Encoder layers computed by few large operations, which is faster on a CPU: model.fused.

Queries, keys and values are one matrix product, and what lies between the products is compiled by XLA
(compiled_operations). The variables, their names and the dropout masks stay those of the plain layers, so that the two
differ by rounding only.

Shapes: B rows, S positions, Q positions that are computed, T tokens, H hidden, N heads, D = H / N, I inner.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf
import tf_keras
from official.nlp.modeling import layers
from tf_keras.src.engine import base_layer_utils

from trainer.encoders import compiled_operations
from trainer.encoders.architectures import ACTIVATIONS, Architecture
from trainer.encoders.dropout import DropoutBits

MASKED = -1e9  # Added to the score of a position that is no token, as by Keras's Softmax.

_plain: list[bool] = [False]


@contextlib.contextmanager
def use_plain_layers() -> Iterator[None]:
    """Fused layers that are traced inside this block compute as plain ones, without XLA: for a graph to be served."""
    _plain.append(True)
    try:
        yield
    finally:
        _plain.pop()


def install_fused_layers(encoder: tf_keras.layers.Layer, architecture: Architecture) -> None:
    """Make every layer of an encoder of native.build_encoder compute fused, from its next call on.

    It needs seeded dropout. Recomputation is installed after it.
    """
    _fuse_embedding_norm(encoder._embedding_norm_layer)
    for layer in encoder._flatten_layers():
        if isinstance(layer, layers.TransformerEncoderBlock):
            _fuse_layer(layer, _describe_block(layer, architecture))
        elif isinstance(layer, layers.TransformerScaffold):
            _fuse_layer(layer, _describe_talking_heads(layer, architecture))


@dataclasses.dataclass(frozen=True)
class _FusedLayer:
    """What of a plain layer the fused computation uses. Variables have the last two parts of their names."""

    architecture: Architecture
    variables: dict[str, tf.Variable]
    inner: tuple[str, ...]  # The kernels between attention and activation.
    output: str  # The kernel behind it.
    output_norm: str
    activate: Callable[[tf.Tensor, tf.Tensor, Callable], tf.Tensor]
    attention: tf_keras.layers.Layer
    attention_dropout: tf_keras.layers.Dropout  # Of what attention returns, not of its probabilities.
    output_dropout: tf_keras.layers.Dropout
    talking: bool = False  # Attention has weights between its heads.

    def read(self, name: str) -> tf.Tensor:
        """A variable's value, in the dtype that its layer computes in."""
        return tf.convert_to_tensor(self.variables[name])

    def read_norm(self, name: str) -> tuple[tf.Tensor, tf.Tensor, float]:
        return self.read(f"{name}/gamma"), self.read(f"{name}/beta"), self.architecture.layer_norm_epsilon

    def project(self, x: tf.Tensor, *names: str) -> tuple[tf.Tensor, tf.Tensor]:
        """The product of x, [T, n], with kernels side by side: [T, m], and their biases, [m], which it lacks."""
        kernels = [tf.reshape(self.read(f"{name}/kernel"), [x.shape[1], -1]) for name in names]
        biases = [tf.reshape(self.read(f"{name}/bias"), [-1]) for name in names]
        return tf.matmul(x, tf.concat(kernels, 1)), tf.concat(biases, 0)


def _describe_block(layer: layers.TransformerEncoderBlock, architecture: Architecture) -> _FusedLayer:
    return _FusedLayer(
        architecture=architecture,
        variables=_variables_by_name(layer),
        inner=("intermediate",),
        output="output",
        output_norm="output_layer_norm",
        activate=compiled_operations.activate,
        attention=layer._attention_layer,
        attention_dropout=layer._attention_dropout,
        output_dropout=layer._output_dropout,
    )


def _describe_talking_heads(layer: layers.TransformerScaffold, architecture: Architecture) -> _FusedLayer:
    return _FusedLayer(
        architecture=architecture,
        variables=_variables_by_name(layer),
        inner=("intermediate_0", "gate_0"),
        output="output_0",
        output_norm="output_layer_norm" if architecture.norm_first else "output_layer_norm_0",
        activate=compiled_operations.activate_gated,
        attention=layer._attention_layer,
        attention_dropout=layer._attention_dropout,
        output_dropout=layer._feedforward_block._output_dropout[0],
        talking=True,
    )


def _variables_by_name(layer: tf_keras.layers.Layer) -> dict[str, tf.Variable]:
    """`.../layer_0/self_attention/query/kernel:0` is query/kernel."""
    return {"/".join(variable.name.split(":")[0].split("/")[-2:]): variable for variable in layer.trainable_variables}


def _fuse_embedding_norm(layer: tf_keras.layers.LayerNormalization) -> None:
    plain_call = layer.call

    @tf.autograph.experimental.do_not_convert
    def call(x: tf.Tensor) -> tf.Tensor:
        """[B, S, H], of any float dtype, to float32 [B, S, H]."""
        if _plain[-1]:
            return plain_call(x)
        gamma, beta = tf.convert_to_tensor(layer.gamma), tf.convert_to_tensor(layer.beta)
        flat = tf.reshape(tf.cast(x, layer.compute_dtype), [-1, x.shape[2]])
        return tf.reshape(compiled_operations.normalize(flat, gamma, beta, layer.epsilon), tf.shape(x))

    layer.call = call


def _fuse_layer(layer: tf_keras.layers.Layer, fused: _FusedLayer) -> None:
    plain_call = layer.call

    @tf.autograph.experimental.do_not_convert
    def call(inputs: list[tf.Tensor], output_range: int | None = None, **options: Any) -> tf.Tensor:
        """[B, Q, H], of x's dtype, for [x [B, S, H], attention mask [B, S, S]] whose rows are equal."""
        if _plain[-1]:
            return plain_call(inputs, output_range=output_range, **options)
        x, mask = inputs
        if fused.talking and fused.architecture.norm_first:  # The plain layer draws dropout for all positions.
            x = _compute_layer(fused, x, mask, None)
            return x if output_range is None else _first_positions(x, output_range)
        return _compute_layer(fused, x, mask, output_range)

    layer.call = call


def _compute_layer(fused: _FusedLayer, x: tf.Tensor, mask: tf.Tensor, output_range: int | None) -> tf.Tensor:
    size, norm_first = fused.architecture.hidden_size, fused.architecture.norm_first
    context, residual = _attend(fused, x, mask, output_range)
    shape = tf.shape(residual)
    residual = tf.reshape(residual, [-1, size])
    added = (*fused.project(context, "attention_output"), residual, _draw_bits(fused.attention_dropout, shape))
    attention_norm, output_norm = fused.read_norm("self_attention_layer_norm"), fused.read_norm(fused.output_norm)
    if norm_first:
        residual = compiled_operations.add(*added)
        inner = compiled_operations.normalize(residual, *output_norm)
    else:
        inner, residual = compiled_operations.add_and_normalize(*added, *attention_norm, uses=2)
    inner = fused.activate(*fused.project(inner, *fused.inner), ACTIVATIONS[fused.architecture.activation])
    added = (*fused.project(inner, fused.output), residual, _draw_bits(fused.output_dropout, shape))
    if norm_first:
        output = compiled_operations.add(*added)
    else:
        (output,) = compiled_operations.add_and_normalize(*added, *output_norm)
    return tf.ensure_shape(tf.reshape(output, shape), [None, None, size])


def _attend(fused: _FusedLayer, x: tf.Tensor, mask: tf.Tensor, output_range: int | None) -> tuple[tf.Tensor, tf.Tensor]:
    """(what attention returns, before its last product: [B * Q, H]; the residual to add: [B, Q, H])."""
    architecture = fused.architecture
    size, heads = architecture.hidden_size, architecture.heads
    flat, shape = tf.reshape(x, [-1, size]), tf.shape(x)
    target = flat
    if architecture.norm_first:
        target = compiled_operations.normalize(flat, *fused.read_norm("self_attention_layer_norm"))
        if not fused.talking:  # The plain layer normalizes what queries are made of, but not keys and values.
            flat = target

    def split_heads(product: tf.Tensor, bias: tf.Tensor, count: int) -> list[tf.Tensor]:
        parts = tf.reshape(tf.nn.bias_add(product, bias), [shape[0], -1, count, heads, size // heads])
        # Not parts[0] and so on: of a slice, the gradient is as large as all parts.
        return tf.unstack(tf.transpose(parts, [2, 0, 3, 1, 4]), count)

    if output_range is not None:
        target = tf.reshape(_first_positions(tf.reshape(target, shape), output_range), [-1, size])
        x = _first_positions(x, output_range)
    if target is flat:
        query, key, value = split_heads(*fused.project(flat, "query", "key", "value"), count=3)
    else:
        (query,) = split_heads(*fused.project(target, "query"), count=1)
        key, value = split_heads(*fused.project(flat, "key", "value"), count=2)
    probabilities = _compute_probabilities(fused, query, key, mask)
    context = tf.transpose(tf.matmul(probabilities, value), [0, 2, 1, 3])
    return tf.reshape(context, [-1, size]), x


def _compute_probabilities(fused: _FusedLayer, query: tf.Tensor, key: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """[B, N, Q, S] of queries [B, N, Q, D] and keys [B, N, S, D], with dropout."""
    adder = (1.0 - tf.cast(mask[:, tf.newaxis, :1], tf.float32)) * MASKED
    scale = (fused.architecture.hidden_size // fused.architecture.heads) ** -0.5
    dropout_layer, training = fused.attention._dropout_layer, base_layer_utils.call_context().training
    scores = tf.matmul(query if training else query * scale, key, transpose_b=True)

    def softmax(scores: tf.Tensor, dropped: DropoutBits | None) -> tf.Tensor:
        if training:
            return compiled_operations.softmax(scores, adder, dropped, scale)
        # Nothing is kept for a gradient. oneDNN's softmax makes an evaluation 1.1 to 1.2 times as fast as XLA's.
        return tf.nn.softmax(scores + tf.cast(adder, scores.dtype))

    if not fused.talking:
        return softmax(scores, _draw_bits(dropout_layer, tf.shape(scores)))
    probabilities = softmax(_mix_heads(scores, fused.attention._pre_softmax_weight), None)
    return dropout_layer(_mix_heads(probabilities, fused.attention._post_softmax_weight))


def _mix_heads(x: tf.Tensor, weights: tf.Variable) -> tf.Tensor:
    """[B, N, Q, S]: each head is a sum of x's heads, [B, N, Q, S], weighted by its column of `weights`, [N, N]."""
    shape = tf.shape(x)
    flat = tf.reshape(x, [shape[0], x.shape[1], -1])
    return tf.reshape(tf.matmul(tf.convert_to_tensor(weights), flat, transpose_a=True), shape)


def _first_positions(x: tf.Tensor, count: int) -> tf.Tensor:
    """x[:, :count] of x [B, S, H]. Of tf.split, the gradient is a concatenation: faster than that of a slice."""
    shape = tf.shape(x)
    parts = tf.split(tf.reshape(x, [shape[0], -1]), [count * shape[2], (shape[1] - count) * shape[2]], 1)
    return tf.reshape(parts[0], tf.stack([shape[0], count, shape[2]]))


def _draw_bits(layer: tf_keras.layers.Dropout, shape: tf.Tensor) -> DropoutBits | None:
    """What decides the values of a plain layer's dropout. None if it drops none. Rows of [B, Q, H] become [T, H]."""
    if not base_layer_utils.call_context().training or not layer.rate:
        return None
    drawn = layer._random_generator.draw(tf.cast(shape, tf.int64), layer.rate)
    if shape.shape[0] == 3:
        drawn = dataclasses.replace(drawn, bits=tf.reshape(drawn.bits, [-1, shape[2]]))
    return drawn

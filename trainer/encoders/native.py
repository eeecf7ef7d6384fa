"""Rebuild a Hub encoder from its own variables, so that it trains fast and reproducibly.

A Hub SavedModel is a frozen graph: its dropout cannot be seeded, its compute dtype cannot be changed, and XLA compiles
it again in every step. `rebuild_encoder` derives the architecture from the names and shapes of the SavedModel's
variables, builds the same encoder with official.nlp's layers, copies the variables and compares the outputs of the two.
If they differ by more than TOLERANCE, the rebuilt encoder is rejected.

Shapes: B batch, S sequence, L layers, H hidden.
"""

import dataclasses
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras
from official.nlp.modeling import networks
from tensorflow.core.framework import function_pb2

from trainer.encoders import dropout

INPUT_NAMES = ("input_word_ids", "input_mask", "input_type_ids")

# The largest absolute difference between outputs of the rebuilt encoder and of the original that counts as equal.
# Measured: at most 2.9e-6 if the architecture is right, 1.1e-2 with the other form of GELU.
TOLERANCE = 1e-4

# GELU has two forms: with the error function (Hugging Face), or its tanh approximation (Google's BERT).
ACTIVATIONS: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {
    "gelu": lambda x: tf_keras.activations.gelu(x, approximate=False),
    "gelu_tanh": lambda x: tf_keras.activations.gelu(x, approximate=True),
    "relu": tf_keras.activations.relu,
}

LAYER_NORM_EPSILON = 1e-12  # BERT's own


@dataclasses.dataclass(frozen=True)
class Architecture:
    """The sizes of a BERT encoder: everything except the values of its variables."""

    vocab_size: int
    embedding_width: int
    hidden_size: int
    layers: int
    heads: int
    inner_size: int
    max_positions: int
    token_types: int
    activation: str  # A key of ACTIVATIONS.
    dropout: float  # Share of values set to 0, as is attention_dropout.
    attention_dropout: float
    layer_norm_epsilon: float = LAYER_NORM_EPSILON


class CannotRebuild(ValueError):
    """The SavedModel cannot be rebuilt natively. The message gives the reason, as a clause after "since"."""


def canonical_name(name: str) -> str:
    """`bert_encoder_v2_3/transformer/layer_0/output/bias:0` -> `transformer/layer_0/output/bias`."""
    return re.sub(r"^bert_encoder(_v2)?(_\d+)?/", "", name.split(":")[0])


def variables_by_name(variables: list[tf.Variable]) -> dict[str, tf.Variable]:
    """Canonical name -> variable."""
    return {canonical_name(variable.name): variable for variable in variables}


def derive_architecture(
    shapes: dict[str, tuple[int, ...]],
    activation: str,
    rates: tuple[float, float],
    epsilon: float = LAYER_NORM_EPSILON,
) -> Architecture:
    """The architecture of an encoder whose variables have these canonical names and shapes.

    `rates` are those of dropout_rates, `epsilon` is that of layer_norm_epsilon. Raises CannotRebuild if the variables
    are not those of a BERT encoder.
    """
    layers = {int(match.group(1)) for name in shapes if (match := re.match(r"transformer/layer_(\d+)/", name))}
    try:
        query = shapes["transformer/layer_0/self_attention/query/kernel"]  # [H, heads, size of a head]
        return Architecture(
            vocab_size=shapes["word_embeddings/embeddings"][0],
            embedding_width=shapes["word_embeddings/embeddings"][1],
            hidden_size=query[0],
            layers=len(layers),
            heads=query[1],
            inner_size=shapes["transformer/layer_0/intermediate/kernel"][1],
            max_positions=shapes["position_embedding/embeddings"][0],
            token_types=shapes["type_embeddings/embeddings"][0],
            activation=activation,
            dropout=rates[0],
            attention_dropout=rates[1],
            layer_norm_epsilon=epsilon,
        )
    except KeyError as missing:
        raise CannotRebuild(f"it has no variable {missing}: not a BERT encoder") from None


def function_bodies(saved: Any) -> list[function_pb2.FunctionDef]:
    """The graphs of a loaded SavedModel's functions, for training and for inference."""
    functions = saved.__call__.concrete_functions
    return [body for function in functions for body in function.graph.as_graph_def().library.function]


def _constant_operands(bodies: list[function_pb2.FunctionDef], operator: str) -> Iterator[tuple[str, float]]:
    """(name, second operand) of every node with this operator whose second operand is a constant scalar."""
    for body in bodies:
        constants = {node.name: node for node in body.node_def if node.op == "Const"}
        for node in body.node_def:
            constant = constants.get(node.input[1].split(":")[0]) if node.op == operator else None
            if constant is not None and (value := tf.make_ndarray(constant.attr["value"].tensor)).size == 1:
                yield node.name, float(f"{value.item():.6g}")  # 0.1, not the float32 next to it


def dropout_rates(bodies: list[function_pb2.FunctionDef]) -> tuple[float, float]:
    """(hidden, attention) dropout rates, from the constants in function_bodies. 0 if there is no dropout.

    Keras writes dropout as `GreaterEqual(uniform, rate)`. The hidden rate is that of the embeddings, the attention rate
    that of the attention weights. The other dropouts of official.nlp's layers have one of the two rates.

    Raises CannotRebuild if there are other rates.
    """
    rates: dict[str, set[float]] = {"embeddings": set(), "attention": set(), "layers": set()}
    for name, rate in _constant_operands(bodies, "GreaterEqual"):
        if "dropout" in name:
            part_of_layer = "attention" if "/self_attention/" in name else "layers"
            rates[part_of_layer if "transformer/layer_" in name else "embeddings"].add(rate)
    hidden, attention = (rates[part] or {0.0} for part in ("embeddings", "attention"))
    if len(hidden) > 1 or len(attention) > 1 or rates["layers"] - hidden - attention:
        raise CannotRebuild(f"its layers have different dropout rates: {rates}")
    return hidden.pop(), attention.pop()


def layer_norm_epsilon(bodies: list[function_pb2.FunctionDef]) -> float:
    """What layer normalization adds to the variance, from function_bodies: Keras writes `AddV2(variance, epsilon)`.

    Raises CannotRebuild if there are several values.
    """
    values = {value for name, value in _constant_operands(bodies, "AddV2") if name.endswith("batchnorm/add")}
    if len(values) > 1:
        raise CannotRebuild(f"its layer normalizations add different constants: {sorted(values)}")
    return values.pop() if values else LAYER_NORM_EPSILON


def set_layer_norm_epsilon(encoder: tf_keras.layers.Layer, epsilon: float) -> None:
    """Set what official.nlp's BERT has no argument for. It has effect from the encoder's next call on."""
    for layer in encoder._flatten_layers():
        if isinstance(layer, tf_keras.layers.LayerNormalization):
            layer.epsilon = epsilon


def _build_bert(architecture: Architecture, output_range: int | None) -> tf_keras.layers.Layer:
    return networks.BertEncoderV2(
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
        initializer=tf_keras.initializers.TruncatedNormal(stddev=0.02),  # BERT's own
        output_range=output_range,
    )


def build_encoder(
    architecture: Architecture,
    policy: str = "float32",
    *,
    output_range: int | None = None,
    seeded_dropout: bool = True,
) -> tf_keras.layers.Layer:
    """An encoder with new float32 variables that computes in `policy`, the name of a Keras dtype policy.

    Its inputs are {input_word_ids, input_mask, input_type_ids}: int32 [B, S]. Its outputs include pooled_output [B, H]
    and encoder_outputs, L tensors [B, S, H], in the compute dtype of `policy`. With `output_range`, the last layer
    computes that many positions only: a classifier needs one, which saves most of that layer's time. An encoder that is
    exported has Keras's own dropout, not the seeded one, which needs a key in training.
    """
    previous = tf_keras.mixed_precision.global_policy()
    tf_keras.mixed_precision.set_global_policy(policy)  # official.nlp's inner layers have no argument for it
    try:
        encoder = _build_bert(architecture, output_range)
        encoder(encoder.inputs)  # creates the inner layers and the variables
        set_layer_norm_epsilon(encoder, architecture.layer_norm_epsilon)
    finally:
        tf_keras.mixed_precision.set_global_policy(previous)
    if seeded_dropout:
        dropout.install_seeded_dropout(encoder)
    return encoder


def fit_positions(name: str, value: np.ndarray, rows: int) -> np.ndarray:
    """The value of the encoder's variable `name`; that of the position table is extended to `rows` rows by tiling.

    Row p becomes row p mod the table's own number: what is within its own positions computes as before.
    """
    return np.take(value, np.arange(rows) % len(value), axis=0) if is_position_table(name) else value


def is_position_table(name: str) -> bool:
    """Whether a variable of an encoder is its table of positions, [positions, H]."""
    return "position_embedding" in name


def copy_variables_by_name(source: list[tf.Variable], target: list[tf.Variable]) -> None:
    """Assign to each target variable the value of the source variable with the same canonical name.

    Raises CannotRebuild with the variables' names if names or shapes differ.
    """
    sources, targets = variables_by_name(source), variables_by_name(target)
    different = sorted(set(sources) ^ set(targets))
    different += [name for name in targets if name in sources and sources[name].shape != targets[name].shape]
    if different:
        raise CannotRebuild(f"variables without a counterpart of the same shape: {different[:5]}")
    for name, variable in targets.items():
        variable.assign(sources[name])


def largest_output_difference(saved: Any, encoder: Callable, vocab_size: int, positions: int) -> float:
    """The largest absolute difference between the outputs of two encoders, of every layer, for four random texts.

    Their ids are below `vocab_size`, and none is longer than `positions`. Raises CannotRebuild if `saved` does not
    return the outputs of every layer.
    """
    rng = np.random.default_rng(0)
    seq_length = min(64, positions)
    lengths = [seq_length, seq_length // 2, 10, 3]
    inputs = {
        "input_word_ids": rng.integers(0, vocab_size, (len(lengths), seq_length)),
        "input_mask": [[int(position < length) for position in range(seq_length)] for length in lengths],
        "input_type_ids": rng.integers(0, 2, (len(lengths), seq_length)),
    }
    inputs = {name: tf.constant(value, tf.int32) for name, value in inputs.items()}
    expected, rebuilt = saved(inputs, training=False), encoder(inputs)
    if len(expected.get("encoder_outputs", [])) != len(rebuilt["encoder_outputs"]):
        raise CannotRebuild("it does not return the encoder_outputs of every layer")
    pairs = list(zip(expected["encoder_outputs"], rebuilt["encoder_outputs"], strict=True))
    pairs.append((expected["pooled_output"], rebuilt["pooled_output"]))
    return max(float(tf.reduce_max(tf.abs(a[:, : b.shape[1]] - b))) for a, b in pairs)


def rebuild_encoder(saved: Any) -> tuple[Architecture, list[np.ndarray]]:
    """The architecture of a loaded Hub encoder, and the values of its variables in the order of build_encoder's.

    `saved` is what hub.load returns. Variables do not show which form of GELU the encoder has: each is built, and the
    one whose outputs are closest to the original's is used.

    Raises CannotRebuild if even its outputs differ by more than TOLERANCE.
    """
    variables = list(saved.trainable_variables)
    shapes = {name: tuple(variable.shape) for name, variable in variables_by_name(variables).items()}
    bodies = function_bodies(saved)
    rates, epsilon = dropout_rates(bodies), layer_norm_epsilon(bodies)
    has_relu = any(node.op == "Relu" for body in bodies for node in body.node_def)
    candidates = []
    for activation in (name for name in ACTIVATIONS if name != "relu" or has_relu):
        architecture = derive_architecture(shapes, activation, rates, epsilon)
        encoder = build_encoder(architecture)
        copy_variables_by_name(variables, encoder.trainable_variables)
        difference = largest_output_difference(saved, encoder, architecture.vocab_size, architecture.max_positions)
        candidates.append((difference, architecture, [variable.numpy() for variable in encoder.trainable_variables]))
    # With small random weights, both forms can be within the tolerance.
    difference, architecture, values = min(candidates, key=lambda candidate: candidate[0])
    if not difference <= TOLERANCE:  # true for NaN too
        raise CannotRebuild(
            f"the rebuilt encoder's outputs differ from the original's by {difference:.1e}, more than {TOLERANCE}"
        )
    return architecture, values

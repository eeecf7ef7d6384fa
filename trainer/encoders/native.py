"""Rebuild a Hub encoder from its own variables, so that it trains fast and reproducibly.

A Hub SavedModel is a frozen graph: its dropout cannot be seeded, its compute dtype cannot be
changed, XLA recompiles it at every step. `rebuild` reads the architecture off the SavedModel's
variables, builds the same encoder with official.nlp's layers, copies the variables and compares the
outputs of the two. What does not agree is refused, never approximated.

Shapes: B batch, S sequence, L layers, H hidden, V vocabulary.
"""

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras
from official.nlp.modeling import networks

from trainer.encoders import dropout

INPUT_NAMES = ("input_word_ids", "input_mask", "input_type_ids")

# Largest difference of any output of the rebuilt encoder from the original's that counts as equal.
# Measured: at most 2.9e-6 where the architecture is right, 1.1e-2 with the other kind of GELU.
TOLERANCE = 1e-4

ACTIVATIONS: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {
    "gelu": lambda x: tf_keras.activations.gelu(x, approximate=False),
    "gelu_tanh": lambda x: tf_keras.activations.gelu(x, approximate=True),
}


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A BERT encoder's sizes: everything but the values of its variables."""

    vocab_size: int
    embedding_width: int
    hidden_size: int
    layers: int
    heads: int
    inner_size: int
    positions: int
    types: int
    activation: str  # a key of ACTIVATIONS
    dropout: float
    attention_dropout: float


class CannotRebuild(ValueError):
    """The SavedModel is not one that can be rebuilt natively; the message says why."""


def canonical_name(name: str) -> str:
    """`bert_encoder_v2_3/transformer/layer_0/output/bias:0` -> `transformer/layer_0/output/bias`."""
    return re.sub(r"^bert_encoder(_v2)?(_\d+)?/", "", name.split(":")[0])


def variables_by_name(variables: list[tf.Variable]) -> dict[str, tf.Variable]:
    return {canonical_name(v.name): v for v in variables}


def derive_architecture(
    shapes: dict[str, tuple[int, ...]], activation: str, rates: tuple[float, float]
) -> Architecture:
    """The architecture that variables of these canonical names and shapes belong to.

    Raises NotRebuilt if they are not those of a BERT encoder.
    """
    layers = {int(m.group(1)) for name in shapes if (m := re.match(r"transformer/layer_(\d+)/", name))}
    try:
        query = shapes["transformer/layer_0/self_attention/query/kernel"]
        return Architecture(
            vocab_size=shapes["word_embeddings/embeddings"][0],
            embedding_width=shapes["word_embeddings/embeddings"][1],
            hidden_size=query[0],
            layers=len(layers),
            heads=query[1],
            inner_size=shapes["transformer/layer_0/intermediate/kernel"][1],
            positions=shapes["position_embedding/embeddings"][0],
            types=shapes["type_embeddings/embeddings"][0],
            activation=activation,
            dropout=rates[0],
            attention_dropout=rates[1],
        )
    except KeyError as missing:
        raise CannotRebuild(f"it has no variable {missing}: not a BERT encoder") from None


def dropout_rates(saved: Any) -> tuple[float, float]:
    """(hidden, attention) dropout rates, read off the constants of the SavedModel's training graph.

    Keras writes dropout as `GreaterEqual(uniform, rate)`. The embeddings' rate is the hidden one, the
    attention weights' the attention's; official.nlp's layers use either for the rest of a layer. 0
    where the graph has none. Raises NotRebuilt if there are others.
    """
    rates: dict[str, set[float]] = {"embeddings": set(), "attention": set(), "layers": set()}
    for function in saved.__call__.concrete_functions:
        for body in function.graph.as_graph_def().library.function:
            constants = {n.name: n for n in body.node_def if n.op == "Const"}
            for node in body.node_def:
                constant = constants.get(node.input[1].split(":")[0]) if node.op == "GreaterEqual" else None
                if constant is not None and "dropout" in node.name:
                    inside = "attention" if "/self_attention/" in node.name else "layers"
                    place = inside if "transformer/layer_" in node.name else "embeddings"
                    rates[place].add(round(float(tf.make_ndarray(constant.attr["value"].tensor)), 6))
    hidden, attention = (rates[place] or {0.0} for place in ("embeddings", "attention"))
    if len(hidden) > 1 or len(attention) > 1 or rates["layers"] - hidden - attention:
        raise CannotRebuild(f"its layers have different dropout rates: {rates}")
    return hidden.pop(), attention.pop()


def build_encoder(
    architecture: Architecture, policy: str = "float32", *, output_range: int | None = None
) -> tf_keras.layers.Layer:
    """An encoder with fresh variables (float32) that computes in `policy` (a Keras dtype policy).

    Takes {input_word_ids, input_mask, input_type_ids}: int32 [B, S]; returns a dict with
    pooled_output [B, H] and encoder_outputs, L tensors [B, S, H] of which the last holds the first
    `output_range` positions alone: a classifier needs one, and saves most of the last layer.
    """
    a = architecture
    previous = tf_keras.mixed_precision.global_policy()
    tf_keras.mixed_precision.set_global_policy(policy)  # official.nlp's inner layers take no policy of their own
    try:
        encoder = networks.BertEncoderV2(
            vocab_size=a.vocab_size,
            embedding_width=a.embedding_width,
            hidden_size=a.hidden_size,
            num_layers=a.layers,
            num_attention_heads=a.heads,
            inner_dim=a.inner_size,
            inner_activation=ACTIVATIONS[a.activation],
            max_sequence_length=a.positions,
            type_vocab_size=a.types,
            output_dropout=a.dropout,
            attention_dropout=a.attention_dropout,
            initializer=tf_keras.initializers.TruncatedNormal(stddev=0.02),
            output_range=output_range,
        )
        encoder(encoder.inputs)  # creates the variables
    finally:
        tf_keras.mixed_precision.set_global_policy(previous)
    dropout.install_seeded_dropout(encoder)
    return encoder


def copy_variables(source: list[tf.Variable], target: list[tf.Variable]) -> None:
    """Assign each target variable the source's value of the same canonical name.

    Raises NotRebuilt, naming the variables, if names or shapes differ.
    """
    values, places = variables_by_name(source), variables_by_name(target)
    different = sorted(set(values) ^ set(places))
    different += [n for n in places if n in values and values[n].shape != places[n].shape]
    if different:
        raise CannotRebuild(f"variables without a counterpart of the same shape: {different[:5]}")
    for name, variable in places.items():
        variable.assign(values[name])


def largest_difference(saved: Any, encoder: Callable, vocab_size: int, length: int = 64) -> float:
    """Largest absolute difference between the two encoders' outputs, all layers, on a seeded batch."""
    rng = np.random.default_rng(0)
    lengths = [length, length // 2, 10, 3]
    inputs = {
        "input_word_ids": rng.integers(0, vocab_size, (len(lengths), length)),
        "input_mask": [[int(i < n) for i in range(length)] for n in lengths],
        "input_type_ids": rng.integers(0, 2, (len(lengths), length)),
    }
    inputs = {name: tf.constant(value, tf.int32) for name, value in inputs.items()}
    theirs, ours = saved(inputs, training=False), encoder(inputs)
    pairs = list(zip(theirs["encoder_outputs"], ours["encoder_outputs"], strict=True))
    pairs.append((theirs["pooled_output"], ours["pooled_output"]))
    return max(float(tf.reduce_max(tf.abs(a[:, : b.shape[1]] - b))) for a, b in pairs)


def rebuild_encoder(saved: Any) -> tuple[Architecture, list[np.ndarray]]:
    """The architecture of a loaded Hub encoder and its variables' values in `build`'s order.

    `saved` is what hub.load returns. The gate: the rebuilt encoder's outputs, with each kind of
    GELU, are compared with the original's; the kind that agrees within TOLERANCE is taken.
    Raises NotRebuilt if none does.
    """
    variables = list(saved.trainable_variables)
    shapes = {name: tuple(v.shape) for name, v in variables_by_name(variables).items()}
    rates = dropout_rates(saved)
    candidates = []
    for activation in ACTIVATIONS:
        architecture = derive_architecture(shapes, activation, rates)
        encoder = build_encoder(architecture)
        copy_variables(variables, encoder.trainable_variables)
        difference = largest_difference(saved, encoder, architecture.vocab_size)
        candidates.append((difference, architecture, [v.numpy() for v in encoder.trainable_variables]))
    # With small random weights both may agree: the closer one is the one.
    difference, architecture, values = min(candidates, key=lambda candidate: candidate[0])
    if not difference <= TOLERANCE:
        raise CannotRebuild(
            f"the rebuilt encoder's outputs differ from the original's by {difference:.1e}, more than {TOLERANCE}"
        )
    return architecture, values

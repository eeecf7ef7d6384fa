"""What an encoder is besides the values of its variables, derived from a SavedModel's variables and graph.

Shapes: B batch, S sequence, H hidden.
"""

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import tensorflow as tf
import tf_keras
from tensorflow.core.framework import function_pb2


def _gelu(x: tf.Tensor) -> tf.Tensor:
    """With the error function, as in Hugging Face's models."""
    return tf_keras.activations.gelu(x, approximate=False)


def _gelu_tanh(x: tf.Tensor) -> tf.Tensor:
    """GELU's approximation with tanh, as in Google's BERT."""
    return tf_keras.activations.gelu(x, approximate=True)


# Keras warns of lambdas when it saves a model.
ACTIVATIONS: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "relu": tf_keras.activations.relu,
}

# A key of ACTIVATIONS -> operators of which a graph has one where it has the activation.
_OPERATORS = {"gelu": {"Erf", "Erfc"}, "gelu_tanh": {"Pow"}, "relu": {"Relu"}}

LAYER_NORM_EPSILON = 1e-12  # BERT's own


@dataclasses.dataclass(frozen=True)
class Architecture:
    """Everything about an encoder except the values of its variables."""

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
    family: str = "bert"  # A key of FAMILIES.
    norm_first: bool = False  # Layers normalize what they are given, not what they return.


class CannotRebuild(ValueError):
    """The SavedModel cannot be rebuilt natively. The message gives the reason, as a clause after "since"."""


# --- From the variables ---------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Family:
    """How the variables of a family of encoders are named."""

    mark: str  # The variable that no family before it in FAMILIES has.
    block: str  # What the names of the first layer's variables begin with.
    inner_kernel: str  # [H, inner size], behind `block`.


# Small BERT, the BERT experts and ELECTRA are BERTs. ALBERT's layers share one block, whose variables have no number.
FAMILIES = {
    "talking_heads": Family(
        "transformer/layer_0/self_attention/pre_softmax_weight",
        "transformer/layer_0/",
        "feedforward/intermediate_0/kernel",
    ),
    "albert": Family("transformer/self_attention/query/kernel", "transformer/", "intermediate/kernel"),
    "bert": Family("transformer/layer_0/self_attention/query/kernel", "transformer/layer_0/", "intermediate/kernel"),
}


def derive_architecture(
    shapes: Mapping[str, tuple[int, ...]],
    *,
    layers: int,
    rates: tuple[float, float] = (0.0, 0.0),
    epsilon: float = LAYER_NORM_EPSILON,
) -> Architecture:
    """The architecture of an encoder whose variables have these canonical names and shapes.

    `layers` is that of count_layers, `rates` are those of dropout_rates, `epsilon` is that of layer_norm_epsilon. The
    activation, and in families other than talking heads norm_first, are those of candidate_architectures' first: no
    variable shows them.

    Raises CannotRebuild if the variables are those of no family.
    """
    family = next((family for family, names in FAMILIES.items() if names.mark in shapes), None)
    if family is None:
        raise CannotRebuild(
            f"it has no variable {FAMILIES['bert'].mark!r}: not a BERT, ALBERT or talking-heads encoder"
        )
    block, inner_kernel = FAMILIES[family].block, FAMILIES[family].inner_kernel
    try:
        query = shapes[f"{block}self_attention/query/kernel"]  # [H, heads, size of a head]
        return Architecture(
            vocab_size=shapes["word_embeddings/embeddings"][0],
            embedding_width=shapes["word_embeddings/embeddings"][1],
            hidden_size=query[0],
            layers=layers,
            heads=query[1],
            inner_size=shapes[block + inner_kernel][1],
            max_positions=shapes["position_embedding/embeddings"][0],
            token_types=shapes["type_embeddings/embeddings"][0],
            activation="gelu",
            dropout=rates[0],
            attention_dropout=rates[1],
            layer_norm_epsilon=epsilon,
            family=family,
            # Of talking heads, only those that normalize first have this variable: the others' is in the feed-forward.
            norm_first=family == "talking_heads" and f"{block}output_layer_norm/gamma" in shapes,
        )
    except KeyError as missing:
        raise CannotRebuild(f"it has no variable {missing}: not a complete {family} encoder") from None


# --- From the graph -------------------------------------------------------------------------------


def function_bodies(saved: Any) -> list[function_pb2.FunctionDef]:
    """The graphs of a loaded SavedModel's functions, for training and for inference."""
    functions = saved.__call__.concrete_functions
    return [body for function in functions for body in function.graph.as_graph_def().library.function]


def count_layers(saved: Any) -> int:
    """How many layers' outputs a loaded SavedModel returns. Raises CannotRebuild if it returns none."""
    outputs = saved.__call__.concrete_functions[0].structured_outputs
    layers = outputs.get("encoder_outputs", []) if isinstance(outputs, Mapping) else []
    if not layers:
        raise CannotRebuild("it does not return the encoder_outputs of every layer")
    return len(layers)


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
            part_of_layer = "attention" if re.search(r"/(self|talking_heads)_attention(_\d+)?/", name) else "layers"
            in_layer = re.search(r"(^|/)transformer(_scaffold)?(_\d+)?/", name)
            rates[part_of_layer if in_layer else "embeddings"].add(rate)
    hidden, attention = (rates[part] or {0.0} for part in ("embeddings", "attention"))
    if (
        len(hidden) > 1
        or len(attention) > 1
        or rates["layers"] - hidden - attention
        or hidden - rates["layers"] - {0.0}
    ):
        raise CannotRebuild(f"its layers have different dropout rates: {rates}")
    return hidden.pop(), attention.pop()


def layer_norm_epsilon(bodies: list[function_pb2.FunctionDef]) -> float:
    """What layer normalization adds to the variance, from function_bodies: Keras writes `AddV2(variance, epsilon)`.

    Raises CannotRebuild if there are several values.
    """
    values = {
        value
        for name, value in _constant_operands(bodies, "AddV2")
        if re.search(r"batchnorm(_\d+)?/add$", name)  # with a number in ALBERT's block, from its second call on
    }
    if len(values) > 1:
        raise CannotRebuild(f"its layer normalizations add different constants: {sorted(values)}")
    return values.pop() if values else LAYER_NORM_EPSILON


def candidate_architectures(architecture: Architecture, bodies: list[function_pb2.FunctionDef]) -> list[Architecture]:
    """What an encoder with the sizes of `architecture` may be, the likely first: no variable shows its activation, nor
    in families other than talking heads norm_first. The operators in function_bodies tell the activation.
    """
    used = {node.op for body in bodies for node in body.node_def}
    activations = [name for name in ACTIVATIONS if used & _OPERATORS[name]] or list(ACTIVATIONS)
    orders = [architecture.norm_first] if architecture.family == "talking_heads" else [False, True]
    return [
        dataclasses.replace(architecture, activation=activation, norm_first=norm_first)
        for norm_first in orders
        for activation in activations
    ]

"""Rebuild a Hub encoder from its own variables, so that it trains fast and reproducibly.

A Hub SavedModel is a frozen graph: its dropout cannot be seeded, its compute dtype cannot be changed, and XLA compiles
it again in every step. `rebuild_encoder` derives the architecture from the names and shapes of the SavedModel's
variables, builds the same encoder with official.nlp's layers, copies the variables and compares the outputs of the two.
If they differ by more than TOLERANCE, the rebuilt encoder is rejected.

Shapes: B batch, S sequence, L layers, H hidden.
"""

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from trainer.encoders import architectures, builders, dropout, fused_layers
from trainer.encoders.architectures import Architecture, CannotRebuild
from trainer.errors import Problem, UserError

INPUT_NAMES = ("input_word_ids", "input_mask", "input_type_ids")

# The largest absolute difference between outputs of the rebuilt encoder and of the original that counts as equal.
# Measured: at most 2.9e-6 if the architecture is right, 1.1e-2 with the other form of GELU.
TOLERANCE = 1e-4
ROUNDING = 1e-5  # What is as close needs no other candidate.

# --- Names ----------------------------------------------------------------------------------------

# How exports of the same family differ in their variables' names -> the canonical name. BertEncoderV2 puts its own name
# before all of them, and Keras numbers layers without a name of their own over the whole process.
_SPELLINGS = (
    (re.compile(r"^(bert|albert)_encoder(_v2)?(_\d+)?/|^encoder_scaffold(_\d+)?/"), ""),
    (re.compile(r"^cls_transform/"), "pooler_transform/"),
    (re.compile(r"/gated_feedforward(_\d+)?/"), "/feedforward/"),
    (re.compile(r"/talking_heads_attention(_\d+)?/"), "/self_attention/"),
)
_SCAFFOLD = re.compile(r"^transformer_scaffold(_(\d+))?/")


def canonical_name(name: str) -> str:
    """`bert_encoder_v2_3/transformer/layer_0/output/bias:0` -> `transformer/layer_0/output/bias`.

    The number that Keras gives a layer of talking heads stays: canonical_names knows the others.
    """
    name = name.split(":")[0]
    for pattern, replacement in _SPELLINGS:
        name = pattern.sub(replacement, name)
    return name


def canonical_names(names: Sequence[str]) -> list[str]:
    """The canonical names of a model's variables. Layers of talking heads are numbered in their order, from 0."""
    canonical = [canonical_name(name) for name in names]
    numbers = sorted({int(match[2] or 0) for name in canonical if (match := _SCAFFOLD.match(name))})

    def number_layer(match: re.Match[str]) -> str:
        return f"transformer/layer_{numbers.index(int(match[2] or 0))}/"

    return [_SCAFFOLD.sub(number_layer, name) for name in canonical]


def variables_by_name(variables: Sequence[tf.Variable]) -> dict[str, tf.Variable]:
    """Canonical name -> variable."""
    return dict(zip(canonical_names([variable.name for variable in variables]), variables, strict=True))


# --- Building -------------------------------------------------------------------------------------


def set_layer_norm_epsilon(encoder: tf_keras.layers.Layer, epsilon: float) -> None:
    """Set what official.nlp's BERT has no argument for. It has effect from the encoder's next call on."""
    for layer in encoder._flatten_layers():
        if isinstance(layer, tf_keras.layers.LayerNormalization):
            layer.epsilon = epsilon


@tf.autograph.experimental.do_not_convert  # Converting the code of all layers would take a second.
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
        encoder = builders.BUILDERS[architecture.family](architecture, output_range)
        encoder(encoder.inputs)  # creates the inner layers and the variables
        set_layer_norm_epsilon(encoder, architecture.layer_norm_epsilon)
    finally:
        tf_keras.mixed_precision.set_global_policy(previous)
    if seeded_dropout:
        dropout.install_seeded_dropout(encoder)
    return encoder


@contextlib.contextmanager
def variables_without_values() -> Iterator[None]:
    """Create variables with a shape but without values, for those that are assigned, or never read.

    It saves drawing numbers, and memory: what is never written to is never allocated.
    """

    def create(next_creator: Callable[..., tf.Variable], **options: Any) -> tf.Variable:
        shape, dtype = options.get("shape"), options.get("dtype")
        if shape is not None and dtype is not None:
            dimensions = tf.TensorShape(shape).as_list()
            options["initial_value"] = lambda: tf.raw_ops.Empty(shape=dimensions, dtype=dtype)
        return next_creator(**options)

    with tf.variable_creator_scope(create):
        yield


def fit_positions(name: str, value: np.ndarray, rows: int) -> np.ndarray:
    """The value of the encoder's variable `name`; that of the position table is extended to `rows` rows by tiling.

    Row p becomes row p mod the table's own number: what is within its own positions computes as before.
    """
    return np.take(value, np.arange(rows) % len(value), axis=0) if is_position_table(name) else value


def is_position_table(name: str) -> bool:
    """Whether a variable of an encoder is its table of positions, [positions, H]."""
    return "position_embedding" in name


# --- Verification ---------------------------------------------------------------------------------


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


def check_fused_layers(architecture: Architecture, values: list[np.ndarray]) -> None:
    """Raises UserError if fused layers do not have the outputs of plain ones within TOLERANCE.

    `architecture` and `values` are what rebuild_encoder returns.
    """
    encoder = build_encoder(architecture)
    for variable, value in zip(encoder.trainable_variables, values, strict=True):
        variable.assign(value)
    fused_layers.install_fused_layers(encoder, architecture)

    def plain(inputs: dict[str, tf.Tensor], training: bool) -> dict[str, Any]:
        with fused_layers.use_plain_layers():
            return encoder(inputs, training=training)

    difference = largest_output_difference(plain, encoder, architecture.vocab_size, architecture.max_positions)
    if not difference <= TOLERANCE:  # true for NaN too
        required = f"be off for this encoder, whose outputs are not those of fused layers within {TOLERANCE}"
        advice = "Change it with --model.fused=off."
        raise UserError(Problem("model.fused", required, f"a difference of {difference:.1e}", advice))


def rebuild_encoder(saved: Any) -> tuple[Architecture, list[np.ndarray]]:
    """The architecture of a loaded Hub encoder, and the values of its variables in the order of build_encoder's.

    `saved` is what hub.load returns. Variables do not show everything: candidates are built until one has its outputs,
    within the rounding of floats, or else the closest is used.

    Raises CannotRebuild if even its outputs differ by more than TOLERANCE.
    """
    variables = list(saved.trainable_variables)
    bodies = architectures.function_bodies(saved)
    derived = architectures.derive_architecture(
        {name: tuple(variable.shape) for name, variable in variables_by_name(variables).items()},
        layers=architectures.count_layers(saved),
        rates=architectures.dropout_rates(bodies),
        epsilon=architectures.layer_norm_epsilon(bodies),
    )
    smallest, closest = np.inf, derived
    for architecture in architectures.candidate_architectures(derived, bodies):
        encoder = build_encoder(architecture)
        copy_variables_by_name(variables, encoder.trainable_variables)
        values = [variable.numpy() for variable in encoder.trainable_variables]  # The same of every candidate.
        difference = largest_output_difference(saved, encoder, architecture.vocab_size, architecture.max_positions)
        if difference < smallest:
            smallest, closest = difference, architecture
        if difference <= ROUNDING:
            break
    if smallest > TOLERANCE:
        raise CannotRebuild(
            f"the rebuilt encoder's outputs differ from the original's by {smallest:.1e}, more than {TOLERANCE}"
        )
    return closest, values

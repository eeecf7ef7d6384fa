import dataclasses
import os
import sys
from collections.abc import Sequence

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from fakes.encoders import SMALL
from helpers import long_but_for, python, random_encoder_inputs

from trainer.distributed import processor
from trainer.encoders import dropout, fused_layers, native, recomputation
from trainer.encoders.architectures import Architecture

ROWS = 6
INPUTS = {
    name: tf.constant(value) for name, value in random_encoder_inputs(ROWS, seq_length=20, vocab_size=1024).items()
}
BERT = dataclasses.replace(SMALL, layers=3)
ARCHITECTURES = {
    "bert": BERT,
    "bert that normalizes first": dataclasses.replace(BERT, norm_first=True),
    "electra": dataclasses.replace(BERT, embedding_width=16, activation="gelu_tanh", layer_norm_epsilon=1e-5),
    "relu": dataclasses.replace(BERT, activation="relu"),
    "albert": dataclasses.replace(BERT, family="albert"),
    "albert that normalizes first": dataclasses.replace(BERT, family="albert", norm_first=True),
    "talking heads": dataclasses.replace(BERT, family="talking_heads"),
    "talking heads that normalize first": dataclasses.replace(BERT, family="talking_heads", norm_first=True),
}


def build_encoder(architecture: Architecture, policy: str = "float32", output_range: int | None = 1):
    """An encoder whose values are so large that every part of it changes the outputs."""
    encoder = native.build_encoder(architecture, policy, output_range=output_range)
    rng = np.random.default_rng(0)
    for variable in encoder.trainable_variables:
        start = 1.0 if "gamma" in variable.name else 0.0
        variable.assign(start + rng.normal(0, 0.1, variable.shape))
    return encoder


def compute_gradients(
    encoder: tf_keras.layers.Layer, rows: slice = slice(None), variables: Sequence[tf.Variable] | None = None
) -> list[np.ndarray]:
    """The gradients of a weighted sum of the outputs with respect to `variables`, by default all, with dropout."""
    variables = encoder.trainable_variables if variables is None else variables

    @tf.function
    def compute() -> list[tf.Tensor]:
        key = dropout.DropoutKey(*(tf.constant(value, tf.int64) for value in (1, 5, rows.start or 0)))
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            with dropout.use_key(key):
                outputs = encoder({name: value[rows] for name, value in INPUTS.items()}, training=True)
            total = sum(
                tf.reduce_sum(tf.cast(value, tf.float32) * tf.range(1.0, 1.0 + value.shape[-1]))
                for value in (outputs["pooled_output"], outputs["sequence_output"])
            )
        return [tf.convert_to_tensor(gradient) for gradient in tape.gradient(total, variables)]

    return [gradient.numpy() for gradient in compute()]


def relative_difference(expected: list[np.ndarray], received: list[np.ndarray]) -> float:
    """The largest difference of two lists of gradients, as a share of the largest value."""
    largest = max(np.abs(gradient).max() for gradient in expected)
    return max(np.abs(a - b).max() for a, b in zip(expected, received, strict=True)) / largest


@pytest.mark.parametrize("output_range", long_but_for([1], [1, None]))
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_gradients_with_dropout_are_those_of_plain_layers(name, output_range):
    encoder = build_encoder(ARCHITECTURES[name], output_range=output_range)
    expected = compute_gradients(encoder)
    fused_layers.install_fused_layers(encoder, ARCHITECTURES[name])
    difference = relative_difference(expected, compute_gradients(encoder))
    print(f"{name}, output_range {output_range}: {difference:.1e} of the largest gradient")
    assert 0 < difference < 1e-6  # They are computed in another way.


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_outputs_of_every_layer_are_those_of_plain_layers(name):
    encoder = build_encoder(ARCHITECTURES[name], output_range=None)
    fused_layers.install_fused_layers(encoder, ARCHITECTURES[name])
    fused = encoder(INPUTS)
    with fused_layers.use_plain_layers():
        plain = encoder(INPUTS)
    for a, b in zip(tf.nest.flatten(plain), tf.nest.flatten(fused), strict=True):
        assert a.shape == b.shape
        assert 0 < np.abs(a - b).max() < 1e-5


@pytest.mark.parametrize(
    "name", long_but_for(["bert", "talking heads"], ["bert", "bert that normalizes first", "albert", "talking heads"])
)
def test_bfloat16_gradients_are_as_near_to_float32_as_in_plain_layers(name):
    architecture = ARCHITECTURES[name]
    if architecture.family == "albert" and not processor.describe_processor().has_bfloat16:
        # Twice the error of rounding. It adds up in shared layers, of which the fused ones have more products.
        pytest.skip("TensorFlow's emulated products in bfloat16 are truncated")
    exact = np.concatenate([gradient.ravel() for gradient in compute_gradients(build_encoder(architecture))])
    encoder = build_encoder(architecture, "mixed_bfloat16")

    def distance() -> float:
        received = np.concatenate([gradient.ravel() for gradient in compute_gradients(encoder)])
        return np.linalg.norm(received - exact) / np.linalg.norm(exact)

    plain = distance()
    fused_layers.install_fused_layers(encoder, architecture)
    fused = distance()
    print(f"{name}: {fused:.1e} of the gradients' norm, {plain:.1e} with plain layers")
    assert 1e-4 < fused < 1.1 * plain


def test_a_row_without_tokens_has_the_outputs_of_plain_layers():
    """Such rows fill up batches. Their scores are all -1e9, of which a logarithm is far below the rounding."""
    encoder = build_encoder(BERT)
    fused_layers.install_fused_layers(encoder, BERT)
    inputs = INPUTS | {"input_mask": tf.zeros_like(INPUTS["input_mask"])}
    with fused_layers.use_plain_layers():
        plain = encoder(inputs)["pooled_output"]
    assert np.abs(plain - encoder(inputs)["pooled_output"]).max() < 1e-5


@pytest.mark.parametrize("name", long_but_for(["bert"], ["bert", "albert", "talking heads"]))
def test_the_division_of_a_batch_does_not_change_its_masks(name):
    encoder = build_encoder(ARCHITECTURES[name])
    fused_layers.install_fused_layers(encoder, ARCHITECTURES[name])
    parts = [compute_gradients(encoder, rows) for rows in (slice(0, 2), slice(2, 6))]
    assert relative_difference(compute_gradients(encoder), [a + b for a, b in zip(*parts, strict=True)]) < 1e-6


@pytest.mark.parametrize("name", long_but_for(["bert"], ["bert", "albert", "talking heads"]))
def test_recomputed_fused_layers_have_the_same_gradients(name):
    encoder = build_encoder(ARCHITECTURES[name])
    fused_layers.install_fused_layers(encoder, ARCHITECTURES[name])
    expected = compute_gradients(encoder)
    recomputation.install_recomputation(encoder)
    assert relative_difference(expected, compute_gradients(encoder)) < 1e-6


def test_frozen_layers_do_not_change_the_other_gradients():
    encoder = build_encoder(BERT)
    fused_layers.install_fused_layers(encoder, BERT)
    trained = {n: v for n, v in enumerate(encoder.trainable_variables) if "layer_2/" in v.name or "pooler" in v.name}
    expected = [gradient for n, gradient in enumerate(compute_gradients(encoder)) if n in trained]
    assert relative_difference(expected, compute_gradients(encoder, variables=list(trained.values()))) < 1e-6


def test_a_graph_of_plain_layers_has_no_compiled_function():
    encoder = build_encoder(BERT)
    fused_layers.install_fused_layers(encoder, BERT)

    def compiled_functions() -> list[str]:
        graph = tf.function(lambda: encoder(INPUTS)["pooled_output"]).get_concrete_function().graph.as_graph_def()
        return [body.signature.name for body in graph.library.function if body.attr["_XlaMustCompile"].b]

    assert compiled_functions()
    with fused_layers.use_plain_layers():
        assert compiled_functions() == []


WIDTHS = (16, 24, 32)


@pytest.mark.long
def test_the_layers_share_their_compiled_programs(tmp_path):
    """There are three layers, and 12 programs for each width. Of the last layer, which computes one position, the norms
    and the activation are the same for every width.
    """
    # This file is run as a script there, and imports the tests' helpers.
    environment = {"XLA_FLAGS": f"--xla_dump_to={tmp_path}", "PYTHONPATH": os.pathsep.join(sys.path)}
    python(__file__, check=True, env={**os.environ, **environment})
    programs = list(tmp_path.glob("*.before_optimizations.txt"))
    assert len(programs) == 12 * len(WIDTHS) + 6


def main() -> None:
    """Train and evaluate twice with each width."""
    architecture = dataclasses.replace(BERT, attention_dropout=BERT.dropout)
    encoder = build_encoder(architecture)
    fused_layers.install_fused_layers(encoder, architecture)

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([], tf.int64)])
    def train_and_evaluate(ids: tf.Tensor, step: tf.Tensor) -> list[tf.Tensor]:
        inputs = {"input_word_ids": ids, "input_mask": tf.ones_like(ids), "input_type_ids": tf.zeros_like(ids)}
        with tf.GradientTape() as tape, dropout.use_key(dropout.DropoutKey(step, step, step)):
            total = tf.reduce_sum(encoder(inputs, training=True)["pooled_output"])
        return [*tape.gradient(total, encoder.trainable_variables), encoder(inputs)["pooled_output"]]

    for step, width in enumerate(WIDTHS * 2):
        train_and_evaluate(tf.ones([4, width], tf.int32), tf.constant(step, tf.int64))


if __name__ == "__main__":
    main()

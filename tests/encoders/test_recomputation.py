import dataclasses

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from helpers import random_encoder_inputs

from trainer.encoders import dropout, random_encoders, recomputation

ROWS = 6
INPUTS = {
    name: tf.constant(value) for name, value in random_encoder_inputs(ROWS, seq_length=20, vocab_size=350).items()
}
FAMILIES = [name for name in random_encoders.RANDOM_PRESETS if name.startswith("tiny")]


def build_encoder(preset: str, policy: str = "float32") -> tf_keras.layers.Layer:
    """An encoder of three layers whose dropout depends on a key."""
    chosen = random_encoders.RANDOM_PRESETS[preset]
    architecture = dataclasses.replace(chosen.architecture, layers=3, max_positions=32)
    tf_keras.mixed_precision.set_global_policy(policy)
    try:
        tf_keras.utils.set_random_seed(1)
        encoder = random_encoders.NETWORKS[chosen.network](architecture, random_encoders.STDDEV)
    finally:
        tf_keras.mixed_precision.set_global_policy("float32")
    dropout.install_seeded_dropout(encoder)
    return encoder


def key_of(step: int, first_row: int = 0) -> dropout.DropoutKey:
    return dropout.DropoutKey(*(tf.constant(value, tf.int64) for value in (1, step, first_row)))


def gradient_function(encoder, step: int = 5, **options) -> tf.types.experimental.ConcreteFunction:
    """A function to the gradients of the pooled output's weighted sum, of all trainable variables, with dropout."""

    @tf.function(**options)
    def compute() -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            with dropout.use_key(key_of(step)):
                pooled = tf.cast(encoder(INPUTS, training=True)["pooled_output"], tf.float32)
            total = tf.reduce_sum(pooled * tf.range(1.0, 1.0 + pooled.shape[1]))
        return [tf.convert_to_tensor(gradient) for gradient in tape.gradient(total, encoder.trainable_variables)]

    return compute.get_concrete_function()


def gradients(encoder, **options) -> list[np.ndarray]:
    return [gradient.numpy() for gradient in gradient_function(encoder, **options)()]


def count_attentions(function: tf.types.experimental.ConcreteFunction) -> int:
    return sum(operation.type == "Softmax" for operation in function.graph.get_operations())


@pytest.mark.parametrize("preset", FAMILIES)
def test_gradients_with_dropout_are_those_without_recomputation(preset):
    encoder = build_encoder(preset)
    expected = gradients(encoder)
    recomputation.install_recomputation(encoder)
    received = gradients(encoder)
    largest = max(np.abs(gradient).max() for gradient in expected)
    for variable, a, b in zip(encoder.trainable_variables, expected, received, strict=True):
        assert np.abs(a - b).max() <= 1e-6 * largest, variable.name
    assert any((a != b).any() for a, b in zip(gradients(encoder, step=6), received, strict=True))  # another mask


@pytest.mark.parametrize(("preset", "tolerance"), [("tiny_bert_v2", 0.0), ("tiny_albert", 1e-6)])
def test_bfloat16_gradients_are_equal(preset, tolerance):
    """Of a shared block, the float32 sum over its layers is added in another order."""
    encoder = build_encoder(preset, "mixed_bfloat16")
    expected = gradients(encoder)
    recomputation.install_recomputation(encoder)
    largest = max(np.abs(gradient).max() for gradient in expected)
    for variable, a, b in zip(encoder.trainable_variables, expected, gradients(encoder), strict=True):
        assert np.abs(a - b).max() <= tolerance * largest, variable.name


def test_gradients_compiled_by_xla_are_those_without_recomputation():
    encoder = build_encoder("tiny_bert_v2")
    expected = gradients(encoder)
    recomputation.install_recomputation(encoder)
    for a, b in zip(expected, gradients(encoder, jit_compile=True), strict=True):
        assert np.abs(a - b).max() <= 1e-5 * max(1.0, np.abs(a).max())


def test_every_layer_is_computed_twice_in_training_alone():
    encoder = build_encoder("tiny_bert_v2")

    def evaluation() -> tf.types.experimental.ConcreteFunction:
        return tf.function(lambda: encoder(INPUTS, training=False)["pooled_output"]).get_concrete_function()

    expected = evaluation()()
    assert count_attentions(gradient_function(encoder)) == 3
    recomputation.install_recomputation(encoder)
    assert count_attentions(gradient_function(encoder)) == 6
    assert count_attentions(evaluation()) == 3
    assert np.array_equal(evaluation()(), expected)


def test_frozen_layers_have_no_gradient_and_pass_one_on():
    encoder = build_encoder("tiny_bert_v2")
    encoder.transformer_layers[1].trainable = False
    expected = gradients(encoder)
    recomputation.install_recomputation(encoder)
    received = gradients(encoder)
    assert len(received) == len(encoder.trainable_variables) < len(encoder.variables)
    for a, b in zip(expected, received, strict=True):
        assert np.abs(a - b).max() <= 1e-6 * max(1.0, np.abs(a).max())


def test_a_gradient_that_is_not_a_number_stays_one():
    encoder = build_encoder("tiny_bert_v2")
    recomputation.install_recomputation(encoder)
    encoder.trainable_variables[-1].assign(tf.fill(encoder.trainable_variables[-1].shape, np.nan))
    assert any(np.isnan(gradient).any() for gradient in gradients(encoder))

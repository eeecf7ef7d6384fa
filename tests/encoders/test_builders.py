import dataclasses
import itertools

import numpy as np
import pytest
import tensorflow as tf
from fakes.encoders import SMALL
from helpers import random_encoder_inputs

from trainer.encoders import architectures, builders, dropout, native

INPUTS = {name: tf.constant(v) for name, v in random_encoder_inputs(rows=4, seq_length=40, vocab_size=1024).items()}


def test_every_family_has_a_builder():
    assert builders.BUILDERS.keys() == architectures.FAMILIES.keys()


def test_alberts_layers_share_their_variables():
    few, many = (native.build_encoder(dataclasses.replace(SMALL, family="albert", layers=layers)) for layers in (2, 12))
    assert len(few.trainable_variables) == len(many.trainable_variables) == len({v.name for v in few.variables})
    assert len(many(INPUTS)["encoder_outputs"]) == 12


@pytest.mark.parametrize("family", builders.BUILDERS)
def test_dropout_draws_other_masks_in_every_layer(family, monkeypatch):
    """Counted are the masks that one call of the encoder draws: of the embeddings, and three in each layer."""
    drawn = []

    def record(x, rate, key, layer):
        drawn.append((key.depth, layer))
        return x

    monkeypatch.setattr(dropout, "seeded_dropout", record)
    encoder = native.build_encoder(dataclasses.replace(SMALL, family=family, layers=4), output_range=1)
    with dropout.use_key(dropout.DropoutKey(*(tf.constant(value, tf.int64) for value in (1, 2, 3)))):
        encoder(INPUTS, training=True)
    assert len(drawn) == len(set(drawn)) == 1 + 3 * 4


@pytest.mark.parametrize("family", builders.BUILDERS)
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_every_variable_has_a_gradient_that_the_key_decides(family, policy):
    encoder = native.build_encoder(dataclasses.replace(SMALL, family=family, layers=3), policy, output_range=1)

    @tf.function
    def gradients(step):
        zero = tf.constant(0, tf.int64)
        with tf.GradientTape() as tape:
            with dropout.use_key(dropout.DropoutKey(zero, step, zero)):
                pooled = encoder(INPUTS, training=True)["pooled_output"]
            total = tf.reduce_sum(tf.square(tf.cast(pooled, tf.float32)))
        return [tf.convert_to_tensor(g) for g in tape.gradient(total, encoder.trainable_variables)]

    first, again, other = ([g.numpy() for g in gradients(tf.constant(step, tf.int64))] for step in (1, 1, 2))
    for variable, *values in zip(encoder.trainable_variables, first, again, other, strict=True):
        if "key/bias" not in variable.name:  # Softmax does not depend on it.
            assert np.abs(values[0]).max() > 0, variable.name
        assert np.array_equal(values[0], values[1])
    assert any((a != b).any() for a, b in zip(first, other, strict=True))


def test_names_differ_only_where_layers_do():
    names = {
        family: set(native.variables_by_name(native.build_encoder(dataclasses.replace(SMALL, family=family)).variables))
        for family in builders.BUILDERS
    }
    for one, other in itertools.combinations(names.values(), 2):
        assert all(name.startswith("transformer/") for name in one ^ other)

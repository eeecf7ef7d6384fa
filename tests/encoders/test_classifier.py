"""The encoder with its head."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from trainer.encoders import classifier, dropout, native, registry

INPUTS = {
    "input_word_ids": tf.constant([[2, 40, 41, 42, 3], [2, 50, 3, 0, 0]]),
    "input_mask": tf.constant([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
    "input_type_ids": tf.constant([[0, 0, 0, 0, 0], [0, 0, 0, 0, 0]]),
}


@pytest.fixture(scope="module")
def saved(tiny):
    return registry.load_saved_model(str(tiny / "encoder"))


@pytest.fixture(scope="module")
def rebuilt(saved):
    return native.rebuild_encoder(saved)


@pytest.fixture(scope="module")
def built(rebuilt):
    """In float32, of three classes."""
    return classifier.build_classifier(classifier.build_native_encoder(*rebuilt, "float32"), 3, 0.25, seed=1)


def test_the_logits_are_the_head_on_the_first_positions_output(built, saved):
    pooled = saved(INPUTS, training=False)["pooled_output"].numpy()
    kernel, bias = (v.numpy() for v in built.get_layer("classifier").trainable_variables)
    assert built(INPUTS).numpy() == pytest.approx(pooled @ kernel + bias, abs=1e-5)


def test_both_paths_to_an_encoder_give_the_same_logits(built, saved):
    hub = classifier.build_classifier(classifier.build_hub_encoder(saved), 3, 0.25, seed=1)
    assert hub(INPUTS).numpy() == pytest.approx(built(INPUTS).numpy(), abs=1e-5)
    assert len(hub.trainable_variables) == len(built.trainable_variables)


def test_bfloat16_computes_roughly_the_same_and_keeps_its_variables_in_float32(built, rebuilt):
    half = classifier.build_classifier(classifier.build_native_encoder(*rebuilt, "bfloat16"), 3, 0.25, seed=1)
    assert {v.dtype for v in half.variables} == {tf.float32}
    logits, exact = half(INPUTS), built(INPUTS).numpy()
    assert logits.dtype == tf.float32
    assert logits.numpy() == pytest.approx(exact, abs=0.02)
    assert np.abs(logits.numpy() - exact).max() > 1e-5  # it did compute in bfloat16
    for variable in half.trainable_variables:
        variable.assign(variable + 0.5)
    full = classifier.build_classifier(classifier.build_native_encoder(*rebuilt, "float32"), 3, 0.25, seed=2)
    classifier.copy_variables(half, full)
    for theirs, ours in zip(half.variables, full.variables, strict=True):
        assert (theirs.numpy() == ours.numpy()).all()


def test_the_seed_decides_the_head(rebuilt, built):
    kernels = [
        classifier.build_classifier(classifier.build_native_encoder(*rebuilt, "float32"), 3, 0.25, seed)
        .get_layer("classifier")
        .kernel.numpy()
        for seed in (1, 2)
    ]
    assert (kernels[0] == built.get_layer("classifier").kernel.numpy()).all()
    assert (kernels[0] != kernels[1]).any()
    assert np.abs(kernels[0]).max() <= 0.04  # truncated at two standard deviations


def test_every_dropout_draws_its_own_masks(built):
    layers = [x for x in built._flatten_layers() if isinstance(x, tf_keras.layers.Dropout)]
    numbers = [layer._random_generator.layer for layer in layers]
    assert sorted(numbers) == list(range(len(layers)))
    assert len(layers) >= 1 + 1 + 2 * 3  # the head's, the embeddings', and each layer's three
    assert built.get_layer("head_dropout").rate == 0.25


def test_dropout_changes_the_logits_in_training_only_and_by_the_key(built):
    def logits(step):
        zero = tf.constant(0, tf.int64)
        with dropout.use_key(dropout.DropoutKey(zero, tf.constant(step, tf.int64), zero)):
            return built(INPUTS, training=True).numpy()

    assert (logits(1) == logits(1)).all()
    assert (logits(1) != logits(2)).any()
    assert (built(INPUTS).numpy() == built(INPUTS, training=False).numpy()).all()

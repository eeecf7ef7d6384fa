"""Logits of texts from those of their windows, against NumPy and against the classifier of one sequence."""

import numpy as np
import pytest
import tensorflow as tf
from helpers import random_encoder_inputs

from trainer.encoders import classifier, dropout, native, saved_models, window_pooling

COUNTS = (3, 1, 2)
LOGITS = np.random.default_rng(0).normal(size=(3, 3, 4)).astype(np.float32)
PRESENT = np.arange(3) < np.array(COUNTS)[:, np.newaxis]


@pytest.mark.parametrize(("pooling", "reduce"), [("mean", np.mean), ("max", np.max)])
def test_pooling_is_over_a_texts_own_windows(pooling, reduce):
    expected = [reduce(logits[:count], axis=0) for logits, count in zip(LOGITS, COUNTS, strict=True)]
    for absent in (0.0, 1e9, np.nan):
        logits = np.where(PRESENT[..., np.newaxis], LOGITS, np.float32(absent))
        pooled = window_pooling.pool_logits(tf.constant(logits), tf.constant(PRESENT), pooling)
        assert pooled.numpy() == pytest.approx(np.array(expected))


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_a_window_that_is_padding_has_no_gradient(pooling):
    logits = tf.constant(LOGITS)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        total = tf.reduce_sum(window_pooling.pool_logits(logits, tf.constant(PRESENT), pooling))
    gradient = tape.gradient(total, logits).numpy()
    assert not gradient[~PRESENT].any()
    assert gradient.sum(axis=1) == pytest.approx(np.ones((3, 4)), abs=1e-6)


@pytest.fixture(scope="module", params=[("native", "pooled"), ("native", "mean"), ("hub", "pooled"), ("hub", "mean")])
def model(request, tiny):
    """A classifier of sequences with 4 classes, native or through the Hub's layer, with this pooling of tokens."""
    path, pooling = request.param
    saved = saved_models.load_saved_model(str(tiny / "encoder"))
    if path == "hub":
        return classifier.build_classifier(classifier.build_hub_encoder(saved), 4, 0.1, 1, pooling)
    encoder = classifier.build_native_encoder(*native.rebuild_encoder(saved), "float32", pooling)
    return classifier.build_classifier(encoder, 4, 0.1, 1, pooling)


SEQUENCES = random_encoder_inputs(rows=sum(COUNTS), seq_length=7, vocab_size=1024)


def in_windows():
    """SEQUENCES as the windows of three texts: [3, 3, 7]."""
    windows = {name: np.zeros((3, 3, 7), np.int32) for name in SEQUENCES}
    for name, value in SEQUENCES.items():
        windows[name][PRESENT] = value
    return {name: tf.constant(value) for name, value in windows.items()}


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_a_texts_logits_are_pooled_over_its_sequences(model, pooling):
    built = window_pooling.build_window_classifier(model, pooling)
    assert [v.ref() for v in built.variables] == [v.ref() for v in model.variables]
    each = np.zeros((3, 3, 4), np.float32)
    each[PRESENT] = model({name: tf.constant(value) for name, value in SEQUENCES.items()}).numpy()
    expected = window_pooling.pool_logits(tf.constant(each), tf.constant(PRESENT), pooling).numpy()
    assert built(in_windows()).numpy() == pytest.approx(expected, abs=1e-5)
    sequences = {name: tf.constant(value) for name, value in SEQUENCES.items()}
    ragged = window_pooling.pool_ragged_windows(built, sequences, tf.constant(COUNTS), pooling)
    assert ragged.numpy() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_a_text_of_one_window_has_the_logits_of_its_sequence(model, pooling):
    """With dropout too, to the last bit."""
    built = window_pooling.build_window_classifier(model, pooling)
    for training in (False, True) if model.get_layer(index=3).name != "encoder" else (False,):
        with dropout.use_key(dropout.DropoutKey(*(tf.constant(value, tf.int64) for value in (1, 2, 3)))):
            expected = model({name: tf.constant(value) for name, value in SEQUENCES.items()}, training=training)
            windows = {name: tf.constant(value[:, np.newaxis]) for name, value in SEQUENCES.items()}
            assert (built(windows, training=training).numpy() == expected.numpy()).all()

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from fakes.encoders import save_callable, save_for_inference, save_mean_of_embeddings
from helpers import random_encoder_inputs

from trainer.encoders import classifier, dropout, freezing, native, saved_models
from trainer.errors import UsageError, UserError

INPUTS = {
    name: tf.constant(value) for name, value in random_encoder_inputs(rows=2, seq_length=5, vocab_size=1024).items()
}


@pytest.fixture(scope="module")
def saved(tiny):
    return saved_models.load_saved_model(str(tiny / "encoder"))


@pytest.fixture(scope="module")
def rebuilt(saved):
    return native.rebuild_encoder(saved)


def build_native_classifier(rebuilt, precision="float32", seed=1, pooling="pooled"):
    encoder = classifier.build_native_encoder(*rebuilt, precision, pooling)
    return classifier.build_classifier(encoder, 3, 0.25, seed, pooling)


@pytest.fixture(scope="module")
def model(rebuilt):
    """A classifier in float32 with three classes."""
    return build_native_classifier(rebuilt)


def test_logits_are_the_linear_layer_on_the_pooled_output(model, saved):
    pooled = saved(INPUTS, training=False)["pooled_output"].numpy()
    kernel, bias = (v.numpy() for v in model.get_layer("classifier").trainable_variables)
    assert model(INPUTS).numpy() == pytest.approx(pooled @ kernel + bias, abs=1e-5)


def test_native_and_hub_encoder_give_equal_logits(model, saved):
    hub = classifier.build_classifier(classifier.build_hub_encoder(saved), 3, 0.25, seed=1)
    assert hub(INPUTS).numpy() == pytest.approx(model(INPUTS).numpy(), abs=1e-5)
    assert len(hub.trainable_variables) == len(model.trainable_variables)


@pytest.mark.parametrize("pooling", ["first", "mean"])
@pytest.mark.parametrize("path", ["native", "hub"])
def test_the_head_sees_the_first_token_or_the_mean_of_all(path, pooling, rebuilt, saved):
    if path == "native":
        built = build_native_classifier(rebuilt, pooling=pooling)
    else:
        built = classifier.build_classifier(classifier.build_hub_encoder(saved), 3, 0.25, 1, pooling)
    sequence = saved(INPUTS, training=False)["sequence_output"].numpy()
    lengths = INPUTS["input_mask"].numpy().sum(axis=1)
    assert lengths.min() < 5  # so that there is padding
    means = [row[:length].mean(axis=0) for row, length in zip(sequence, lengths, strict=True)]
    kernel, bias = (v.numpy() for v in built.get_layer("classifier").trainable_variables)
    expected = (sequence[:, 0] if pooling == "first" else np.array(means)) @ kernel + bias
    assert built(INPUTS).numpy() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("preset", ["tiny_bert_v2", "tiny_electra", "tiny_albert", "tiny_talking_heads"])
def test_every_family_gives_the_mean_with_more_positions_and_frozen_parts(preset, make_encoder):
    saved = saved_models.load_saved_model(str(make_encoder(preset) / "encoder"))
    architecture, values = native.rebuild_encoder(saved)
    extended = dataclasses.replace(architecture, max_positions=600)
    built = build_native_classifier((extended, values), pooling="mean")
    own, longer = (random_encoder_inputs(rows=2, seq_length=length, vocab_size=300) for length in (8, 600))
    sequence = saved({name: tf.constant(value) for name, value in own.items()}, training=False)["sequence_output"]
    weights = own["input_mask"] / own["input_mask"].sum(axis=1, keepdims=True)
    kernel, bias = (v.numpy() for v in built.get_layer("classifier").trainable_variables)
    expected = (sequence.numpy() * weights[:, :, np.newaxis]).sum(axis=1) @ kernel + bias
    assert built(own).numpy() == pytest.approx(expected, abs=1e-5)
    assert np.isfinite(built(longer).numpy()).all()
    names = [native.canonical_name(v.name) for v in built.trainable_variables]
    trained = freezing.choose_trained_variables(built.trainable_variables, "embeddings", "mean")
    left_out = set(names) - {native.canonical_name(v.name) for v in trained}
    assert {name.split("/")[0] for name in left_out} - {"embedding_projection"} == {
        *("word_embeddings", "position_embedding", "type_embeddings", "embeddings", "pooler_transform")
    }


def test_a_mean_is_computed_in_float32():
    close = tf.constant([1.0, 1.0 + 2**-7], tf.bfloat16)  # Their mean is no bfloat16.
    mean = classifier.pool_tokens({"sequence_output": close[tf.newaxis, :, tf.newaxis]}, tf.ones([1, 2]), "mean")
    assert mean.numpy().item() == 1.0 + 2**-8


def test_the_last_layer_computes_all_tokens_for_a_mean_alone(rebuilt):
    outputs = {p: classifier.build_native_encoder(*rebuilt, "float32", p)(INPUTS) for p in ("pooled", "first", "mean")}
    assert {p: value["sequence_output"].shape[1] for p, value in outputs.items()} == {
        "pooled": 1,
        "first": 1,
        "mean": 5,
    }


def test_an_encoder_with_more_positions_computes_its_own_as_before(rebuilt, model):
    architecture, values = rebuilt
    extended = build_native_classifier((dataclasses.replace(architecture, max_positions=1100), values))
    own, longer = (random_encoder_inputs(rows=2, seq_length=length, vocab_size=1024) for length in (512, 1100))
    assert (extended(own).numpy() == model(own).numpy()).all()
    assert np.isfinite(extended(longer).numpy()).all()
    (table,) = (v.numpy() for v in extended.trainable_variables if native.is_position_table(v.name))
    assert (table == np.concatenate([table[:512]] * 3)[:1100]).all()


def test_bfloat16_gives_close_logits_and_keeps_float32_variables(model, rebuilt):
    half = build_native_classifier(rebuilt, "bfloat16")
    assert {v.dtype for v in half.variables} == {tf.float32}
    logits, exact = half(INPUTS), model(INPUTS).numpy()
    assert logits.dtype == tf.float32
    assert logits.numpy() == pytest.approx(exact, abs=0.02)
    assert np.abs(logits.numpy() - exact).max() > 1e-5  # so it did compute in bfloat16


def test_variables_are_copied_between_precisions(rebuilt):
    source, target = build_native_classifier(rebuilt, "bfloat16"), build_native_classifier(rebuilt, seed=2)
    for variable in source.trainable_variables:
        variable.assign(variable + 0.5)
    classifier.copy_variables(source, target)
    for expected, copied in zip(source.variables, target.variables, strict=True):
        assert (expected.numpy() == copied.numpy()).all()


def test_the_seed_decides_the_linear_layer(rebuilt, model):
    first, other = (
        build_native_classifier(rebuilt, seed=seed).get_layer("classifier").kernel.numpy() for seed in (1, 2)
    )
    assert (first == model.get_layer("classifier").kernel.numpy()).all()
    assert (first != other).any()
    assert np.abs(first).max() <= 0.04  # truncated at two standard deviations


def test_every_dropout_layer_has_its_own_number(model):
    layers = [layer for layer in model._flatten_layers() if isinstance(layer, tf_keras.layers.Dropout)]
    numbers = [layer._random_generator.layer for layer in layers]
    assert sorted(numbers) == list(range(len(layers)))
    assert len(layers) >= 1 + 1 + 2 * 3  # the classifier's, the embeddings', and three in each of two layers
    assert model.get_layer("head_dropout").rate == 0.25


def test_dropout_depends_on_the_key_and_on_training_alone(model):
    def logits(step):
        zero = tf.constant(0, tf.int64)
        with dropout.use_key(dropout.DropoutKey(zero, tf.constant(step, tf.int64), zero)):
            return model(INPUTS, training=True).numpy()

    assert (logits(1) == logits(1)).all()
    assert (logits(1) != logits(2)).any()
    assert (model(INPUTS).numpy() == model(INPUTS, training=False).numpy()).all()


# --- The Hub's layer ------------------------------------------------------------------------------


IDS = {name: tf.TensorSpec([None, None], tf.int32) for name in native.INPUT_NAMES}


def pool(table, inputs):
    return {"pooled_output": tf.reduce_mean(tf.gather(table, inputs["input_word_ids"]), 1)}


def test_an_encoder_with_gradients_trains_through_the_hubs_layer(tmp_path):
    save_mean_of_embeddings(tmp_path)
    classifier.check_hub_encoder(saved_models.load_saved_model(str(tmp_path)), str(tmp_path))


def test_an_encoder_without_gradients_is_refused(tmp_path):
    save_callable(tmp_path, IDS, lambda table, inputs: pool(tf.stop_gradient(table), inputs))
    with pytest.raises(UserError, match=rf"--encoder .*{tmp_path}, for which no gradient reaches"):
        classifier.check_hub_encoder(saved_models.load_saved_model(str(tmp_path)), str(tmp_path))


def test_an_encoder_without_outputs_of_tokens_is_refused_another_pooling(tmp_path):
    save_mean_of_embeddings(tmp_path)
    with pytest.raises(UsageError, match=rf"model\.pooling must be pooled for {tmp_path}.* Received: mean\."):
        classifier.check_hub_encoder(saved_models.load_saved_model(str(tmp_path)), str(tmp_path), "mean")


def test_an_encoder_without_a_function_for_training_is_refused(tmp_path):
    save_for_inference(tmp_path)
    with pytest.raises(UserError, match=rf"--encoder .*{tmp_path}, for which that fails with ValueError"):
        classifier.check_hub_encoder(saved_models.load_saved_model(str(tmp_path)), str(tmp_path))

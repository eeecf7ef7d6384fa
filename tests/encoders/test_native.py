import dataclasses

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_hub as hub
import tf_keras
from helpers import random_encoder_inputs
from official.nlp.modeling import networks

from trainer.encoders import native
from trainer.encoders.native import CannotRebuild

TINY = native.Architecture(
    vocab_size=1024,
    embedding_width=64,
    hidden_size=64,
    layers=2,
    heads=2,
    inner_size=256,
    max_positions=512,
    token_types=2,
    activation="gelu_tanh",
    dropout=0.1,
    attention_dropout=0.1,
)
EXPECTED_ARCHITECTURES = {
    "tiny": TINY,
    "tiny_bert_v2": TINY,
    "tiny_electra": dataclasses.replace(TINY, embedding_width=32),
}
SHAPES = {
    "word_embeddings/embeddings": (1024, 32),
    "position_embedding/embeddings": (512, 32),
    "type_embeddings/embeddings": (2, 32),
    "transformer/layer_0/self_attention/query/kernel": (64, 4, 16),
    "transformer/layer_0/intermediate/kernel": (64, 200),
    "transformer/layer_1/intermediate/kernel": (64, 200),
}


INPUTS = {
    name: tf.constant(value) for name, value in random_encoder_inputs(rows=4, seq_length=40, vocab_size=1024).items()
}


def build_with_values(architecture, values, **options):
    encoder = native.build_encoder(architecture, **options)
    for variable, value in zip(encoder.trainable_variables, values, strict=True):
        variable.assign(value)
    return encoder


def save_and_load_bert(folder, **options):
    """A loaded SavedModel with weights so large that every part of the encoder changes the outputs."""
    encoder = networks.BertEncoder(
        dict_outputs=True,
        vocab_size=1024,
        hidden_size=32,
        num_layers=2,
        num_attention_heads=2,
        inner_dim=48,
        max_sequence_length=64,
        initializer=tf_keras.initializers.TruncatedNormal(stddev=0.5, seed=0),
        **options,
    )
    inputs = {tensor.name: tensor for tensor in encoder.inputs}  # as in official.nlp's exporter
    tf_keras.Model(inputs, encoder(inputs)).save(str(folder), include_optimizer=False, save_format="tf")
    return hub.load(str(folder))


@pytest.mark.parametrize("preset", EXPECTED_ARCHITECTURES)
def test_a_rebuilt_encoder_has_the_outputs_of_the_original(make_encoder, preset):
    saved = hub.load(str(make_encoder(preset) / "encoder"))
    architecture, values = native.rebuild_encoder(saved)
    assert architecture == EXPECTED_ARCHITECTURES[preset]
    expected, rebuilt = saved(INPUTS, training=False), build_with_values(architecture, values)(INPUTS)
    for name in ("pooled_output", "sequence_output"):
        assert np.abs(expected[name] - rebuilt[name]).max() < 1e-5


@pytest.mark.parametrize("preset", ["tiny_albert", "tiny_talking_heads"])
def test_another_family_is_rejected_with_a_missing_variable(make_encoder, preset):
    with pytest.raises(CannotRebuild, match=r"'transformer/layer_0/"):
        native.rebuild_encoder(hub.load(str(make_encoder(preset) / "encoder")))


@pytest.mark.parametrize("activation", native.ACTIVATIONS)
def test_the_activation_is_found_and_a_wrong_one_is_rejected(tmp_path, monkeypatch, activation):
    saved = save_and_load_bert(tmp_path, inner_activation=native.ACTIVATIONS[activation])
    architecture, values = native.rebuild_encoder(saved)
    assert (architecture.activation, architecture.dropout, architecture.attention_dropout) == (activation, 0.1, 0.1)
    assert (architecture.layers, architecture.heads, architecture.inner_size, architecture.max_positions) == (
        2,
        2,
        48,
        64,
    )
    rebuilt = build_with_values(architecture, values)(INPUTS)
    assert np.abs(saved(INPUTS, training=False)["pooled_output"] - rebuilt["pooled_output"]).max() < 1e-5
    monkeypatch.delitem(native.ACTIVATIONS, activation)
    with pytest.raises(CannotRebuild, match=r"outputs differ from the original's by .*, more than 0\.0001"):
        native.rebuild_encoder(saved)


@pytest.mark.parametrize("rates", [(0.2, 0.05), (0.1, 0.0), (0.0, 0.1)])
def test_dropout_rates_are_read_from_the_graph(tmp_path, rates):
    saved = save_and_load_bert(tmp_path, output_dropout=rates[0], attention_dropout=rates[1])
    assert native.dropout_rates(native.function_bodies(saved)) == rates


def test_an_architecture_is_derived_from_names_and_shapes():
    assert native.derive_architecture(SHAPES, "gelu", (0.3, 0.2)) == native.Architecture(
        vocab_size=1024,
        embedding_width=32,
        hidden_size=64,
        layers=2,
        heads=4,
        inner_size=200,
        max_positions=512,
        token_types=2,
        activation="gelu",
        dropout=0.3,
        attention_dropout=0.2,
    )


@pytest.mark.parametrize("name", [name for name in SHAPES if "layer_1" not in name])
def test_shapes_without_a_needed_variable_are_rejected(name):
    with pytest.raises(CannotRebuild, match=f"'{name}'"):
        native.derive_architecture({n: s for n, s in SHAPES.items() if n != name}, "gelu", (0.1, 0.1))


@pytest.mark.parametrize(
    ("name", "canonical"),
    [
        ("bert_encoder_v2_3/transformer/layer_0/output/bias:0", "transformer/layer_0/output/bias"),
        ("bert_encoder/word_embeddings/embeddings:0", "word_embeddings/embeddings"),
        ("transformer/layer_10/output/bias:0", "transformer/layer_10/output/bias"),
    ],
)
def test_a_canonical_name_is_without_the_models_prefix(name, canonical):
    assert native.canonical_name(name) == canonical


def test_variables_without_a_counterpart_are_named():
    small, wide, deep = (
        native.build_encoder(dataclasses.replace(TINY, **change)).trainable_variables
        for change in ({}, {"inner_size": 128}, {"layers": 3})
    )
    with pytest.raises(CannotRebuild, match=r"layer_0/intermediate/"):
        native.copy_variables_by_name(small, wide)
    for pair in ((small, deep), (deep, small)):
        with pytest.raises(CannotRebuild, match=r"transformer/layer_2/"):
            native.copy_variables_by_name(*pair)


def test_values_are_copied_by_name_in_any_order():
    source, target = (native.build_encoder(TINY).trainable_variables for _ in range(2))
    native.copy_variables_by_name(source[::-1], target)
    assert all(np.array_equal(a, b) for a, b in zip(source, target, strict=True))


def test_output_range_keeps_the_first_position_of_the_last_layer():
    complete = native.build_encoder(TINY)
    first = build_with_values(TINY, complete.get_weights(), output_range=1)(INPUTS)
    expected = complete(INPUTS)
    assert first["encoder_outputs"][-1].shape == (4, 1, 64)
    assert np.abs(expected["pooled_output"] - first["pooled_output"]).max() < 1e-6
    assert np.abs(expected["encoder_outputs"][-1][:, :1] - first["encoder_outputs"][-1]).max() < 1e-6


def test_bfloat16_is_close_and_changes_no_variables_and_no_policy():
    exact = native.build_encoder(TINY)
    rough = build_with_values(TINY, exact.get_weights(), policy="mixed_bfloat16")
    assert {v.dtype for v in rough.trainable_variables} == {tf.float32}
    assert tf_keras.mixed_precision.global_policy().name == "float32"
    pooled = rough(INPUTS)["pooled_output"]
    assert pooled.dtype == tf.bfloat16
    difference = np.abs(tf.cast(pooled, tf.float32) - exact(INPUTS)["pooled_output"]).max()
    assert 0 < difference < 0.02


def test_a_failed_build_restores_the_policy():
    with pytest.raises(KeyError):
        native.build_encoder(dataclasses.replace(TINY, activation="unknown"), "mixed_bfloat16")
    assert tf_keras.mixed_precision.global_policy().name == "float32"


def test_positions_beyond_the_table_repeat_it():
    table = np.arange(6.0).reshape(3, 2)
    extended = native.fit_positions("position_embedding/embeddings", table, 7)
    assert (extended == table[[0, 1, 2, 0, 1, 2, 0]]).all()
    assert native.fit_positions("type_embeddings/embeddings", table, 7) is table

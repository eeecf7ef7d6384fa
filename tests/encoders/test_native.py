import dataclasses

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_hub as hub
import tf_keras
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
    positions=512,
    types=2,
    activation="gelu_tanh",
    dropout=0.1,
    attention_dropout=0.1,
)
BERTS = {
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


def inputs(rows: int = 4, length: int = 40) -> dict[str, tf.Tensor]:
    rng = np.random.default_rng(3)
    values = (
        rng.integers(5, 1024, (rows, length)),
        np.arange(length) < rng.integers(2, length, (rows, 1)),
        rng.integers(0, 2, (rows, length)),
    )
    return dict(zip(native.INPUT_NAMES, (tf.constant(v, tf.int32) for v in values), strict=True))


def rebuilt(architecture, values, **options):
    encoder = native.build_encoder(architecture, **options)
    for variable, value in zip(encoder.trainable_variables, values, strict=True):
        variable.assign(value)
    return encoder


def save(folder, **options):
    """The loaded SavedModel of a small encoder with large weights, so that its every part shows in the outputs."""
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
    named = {x.name: x for x in encoder.inputs}  # as official.nlp's exporter does it
    tf_keras.Model(named, encoder(named)).save(str(folder), include_optimizer=False, save_format="tf")
    return hub.load(str(folder))


@pytest.mark.parametrize("preset", BERTS)
def test_an_encoder_of_the_bert_family_is_rebuilt_with_its_outputs(make_encoder, preset):
    saved = hub.load(str(make_encoder(preset) / "encoder"))
    architecture, values = native.rebuild_encoder(saved)
    assert architecture == BERTS[preset]
    theirs, ours = saved(inputs(), training=False), rebuilt(architecture, values)(inputs())
    for name in ("pooled_output", "sequence_output"):
        assert np.abs(theirs[name] - ours[name]).max() < 1e-5


@pytest.mark.parametrize("preset", ["tiny_albert", "tiny_talking_heads"])
def test_other_families_are_not_rebuilt_and_say_why(make_encoder, preset):
    with pytest.raises(CannotRebuild, match=r"it has no variable 'transformer/layer_0/.*': not a BERT encoder"):
        native.rebuild_encoder(hub.load(str(make_encoder(preset) / "encoder")))


@pytest.mark.parametrize("activation", native.ACTIVATIONS)
def test_the_activation_is_the_one_that_agrees_and_a_wrong_one_is_refused(tmp_path, monkeypatch, activation):
    saved = save(tmp_path, inner_activation=native.ACTIVATIONS[activation])
    architecture, values = native.rebuild_encoder(saved)
    assert (architecture.activation, architecture.dropout, architecture.attention_dropout) == (activation, 0.1, 0.1)
    assert (architecture.layers, architecture.heads, architecture.inner_size, architecture.positions) == (2, 2, 48, 64)
    ours = rebuilt(architecture, values)(inputs())
    assert np.abs(saved(inputs(), training=False)["pooled_output"] - ours["pooled_output"]).max() < 1e-5
    monkeypatch.delitem(native.ACTIVATIONS, activation)
    with pytest.raises(CannotRebuild, match=r"outputs differ from the original's by .*, more than 0\.0001"):
        native.rebuild_encoder(saved)


@pytest.mark.parametrize("rates", [(0.2, 0.05), (0.1, 0.0), (0.0, 0.1)])
def test_the_dropout_rates_are_read_off_the_graph(tmp_path, rates):
    assert native.dropout_rates(save(tmp_path, output_dropout=rates[0], attention_dropout=rates[1])) == rates


def test_an_architecture_is_derived_from_names_and_shapes():
    assert native.derive_architecture(SHAPES, "gelu", (0.3, 0.2)) == native.Architecture(
        vocab_size=1024,
        embedding_width=32,
        hidden_size=64,
        layers=2,
        heads=4,
        inner_size=200,
        positions=512,
        types=2,
        activation="gelu",
        dropout=0.3,
        attention_dropout=0.2,
    )


@pytest.mark.parametrize("name", [name for name in SHAPES if "layer_1" not in name])
def test_an_architecture_without_a_variable_is_none(name):
    with pytest.raises(CannotRebuild, match=f"it has no variable '{name}': not a BERT encoder"):
        native.derive_architecture({n: s for n, s in SHAPES.items() if n != name}, "gelu", (0.1, 0.1))


@pytest.mark.parametrize(
    ("name", "canonical"),
    [
        ("bert_encoder_v2_3/transformer/layer_0/output/bias:0", "transformer/layer_0/output/bias"),
        ("bert_encoder/word_embeddings/embeddings:0", "word_embeddings/embeddings"),
        ("transformer/layer_10/output/bias:0", "transformer/layer_10/output/bias"),
    ],
)
def test_a_name_loses_what_its_model_put_before_it(name, canonical):
    assert native.canonical_name(name) == canonical


def test_variables_without_counterpart_are_refused_by_name():
    small, wide, deep = (
        native.build_encoder(dataclasses.replace(TINY, **change)).trainable_variables
        for change in ({}, {"inner_size": 128}, {"layers": 3})
    )
    with pytest.raises(CannotRebuild, match=r"without a counterpart of the same shape: .*layer_0/intermediate/"):
        native.copy_variables(small, wide)
    for pair in ((small, deep), (deep, small)):
        with pytest.raises(CannotRebuild, match=r"without a counterpart of the same shape: .*transformer/layer_2/"):
            native.copy_variables(*pair)


def test_values_are_copied_by_name_whatever_their_order():
    source, target = (native.build_encoder(TINY).trainable_variables for _ in range(2))
    native.copy_variables(source[::-1], target)
    assert all(np.array_equal(a, b) for a, b in zip(source, target, strict=True))


def test_a_last_layer_of_one_position_is_the_first_of_all():
    whole = native.build_encoder(TINY)
    values = [v.numpy() for v in whole.trainable_variables]
    first = rebuilt(TINY, values, output_range=1)(inputs())
    assert first["encoder_outputs"][-1].shape == (4, 1, 64)
    for name in ("pooled_output", "encoder_outputs"):
        a, b = (x[name] if name == "pooled_output" else x[name][-1][:, :1] for x in (whole(inputs()), first))
        assert np.abs(a - b).max() < 1e-6


def test_bfloat16_computes_near_float32_and_leaves_variables_and_policy_alone():
    exact = native.build_encoder(TINY)
    rough = rebuilt(TINY, [v.numpy() for v in exact.trainable_variables], policy="mixed_bfloat16")
    assert {v.dtype for v in rough.trainable_variables} == {tf.float32}
    assert tf_keras.mixed_precision.global_policy().name == "float32"
    pooled = rough(inputs())["pooled_output"]
    assert pooled.dtype == tf.bfloat16
    difference = np.abs(tf.cast(pooled, tf.float32) - exact(inputs())["pooled_output"]).max()
    assert 0 < difference < 0.02


def test_a_build_that_fails_puts_the_policy_back():
    with pytest.raises(KeyError):
        native.build_encoder(dataclasses.replace(TINY, activation="none such"), "mixed_bfloat16")
    assert tf_keras.mixed_precision.global_policy().name == "float32"

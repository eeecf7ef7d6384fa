import dataclasses

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_hub as hub
import tf_keras
from fakes.encoders import SMALL, export_encoder
from helpers import long_but_for, random_encoder_inputs

from trainer.encoders import architectures, fused_layers, native, random_encoders
from trainer.encoders.architectures import CannotRebuild
from trainer.errors import UserError

TINY = random_encoders.RANDOM_PRESETS["tiny"].architecture
OF_FAMILY = {
    "bert": TINY,
    "electra": dataclasses.replace(TINY, embedding_width=32),
    "albert": dataclasses.replace(TINY, family="albert", embedding_width=32, layers=3),
    "talking_heads": dataclasses.replace(TINY, family="talking_heads"),
}
INPUTS = {
    name: tf.constant(value) for name, value in random_encoder_inputs(rows=4, seq_length=40, vocab_size=1024).items()
}


def build_with_values(architecture, values, **options):
    encoder = native.build_encoder(architecture, **options)
    for variable, value in zip(encoder.trainable_variables, values, strict=True):
        variable.assign(value)
    return encoder


# What the Hub's encoders were exported from, and how each differs from fakes.encoders.SMALL.
EXPORTS = {
    "bert v1": ("bert_v1", {}),
    "bert v2": ("bert_v2", {"activation": "gelu_tanh"}),
    "bert v2 that normalizes first": ("bert_v2", {"norm_first": True}),
    "electra": ("bert_v1", {"embedding_width": 16, "activation": "gelu_tanh"}),
    "albert": ("albert", {"embedding_width": 16, "layers": 3, "activation": "gelu_tanh"}),
    "albert of full width": ("albert", {"layers": 3}),
    "talking heads": ("talking_heads", {"activation": "gelu_tanh"}),
    "talking heads with the exact gelu": ("talking_heads", {"layers": 3}),
    "talking heads that normalize first": ("talking_heads", {"norm_first": True}),
}


@pytest.mark.parametrize(
    ("export", "with_mlm"),
    long_but_for(
        [("bert v1", False), ("bert v2", True), ("electra", False), ("albert", False), ("talking heads", False)],
        [(name, False) for name in EXPORTS]
        + [(name, True) for name in ("bert v1", "bert v2", "albert", "talking heads")],
    ),
)
def test_every_export_is_rebuilt_with_its_outputs(tmp_path, export, with_mlm):
    network, changes = EXPORTS[export]
    family = "bert" if network.startswith("bert") else network
    expected = dataclasses.replace(SMALL, family=family, **changes)
    if export == "albert" and not with_mlm:  # so that Keras has numbered layers of these names before
        random_encoders.NETWORKS["talking_heads"](SMALL, 0.5)
    saved = export_encoder(tmp_path, network, expected, with_mlm=with_mlm)
    architecture, values = native.rebuild_encoder(saved)
    assert architecture == expected
    difference = native.largest_output_difference(saved, build_with_values(architecture, values), 1024, 64)
    print(f"{export}{', with mlm' if with_mlm else ''}: largest difference {difference:.1e}")
    assert difference < 1e-5
    first = build_with_values(architecture, values, output_range=1)
    assert native.largest_output_difference(saved, first, 1024, 64) < 1e-5


@pytest.mark.parametrize(
    "preset", long_but_for(["tiny"], [name for name in random_encoders.RANDOM_PRESETS if name.startswith("tiny")])
)
def test_a_preset_is_rebuilt_with_its_architecture(make_encoder, preset):
    architecture, _ = native.rebuild_encoder(hub.load(str(make_encoder(preset) / "encoder")))
    assert architecture == random_encoders.RANDOM_PRESETS[preset].architecture


@pytest.mark.parametrize("activation", architectures.ACTIVATIONS)
def test_the_activation_is_found_and_a_wrong_one_is_rejected(tmp_path, monkeypatch, activation):
    saved = export_encoder(tmp_path, "bert_v1", dataclasses.replace(SMALL, activation=activation))
    assert native.rebuild_encoder(saved)[0].activation == activation
    monkeypatch.delitem(architectures.ACTIVATIONS, activation)
    with pytest.raises(CannotRebuild, match=r"outputs differ from the original's by .*, more than 0\.0001"):
        native.rebuild_encoder(saved)


@pytest.mark.parametrize(
    ("name", "canonical"),
    [
        ("bert_encoder_v2_3/transformer/layer_0/output/bias:0", "transformer/layer_0/output/bias"),
        ("bert_encoder/word_embeddings/embeddings:0", "word_embeddings/embeddings"),
        ("transformer/layer_10/output/bias:0", "transformer/layer_10/output/bias"),
        ("cls_transform/bias:0", "pooler_transform/bias"),
        ("transformer/layer_1/gated_feedforward_3/gate_0/bias:0", "transformer/layer_1/feedforward/gate_0/bias"),
    ],
)
def test_a_canonical_name_is_without_the_models_prefix(name, canonical):
    assert native.canonical_name(name) == canonical


def test_the_layers_of_talking_heads_are_numbered_by_their_order():
    numbers = ["_9", "_10", "_11"]
    variables = [tf.Variable(0.0, name=f"transformer_scaffold{n}/self_attention/query/bias") for n in numbers[::-1]]
    by_name = native.variables_by_name(variables)
    assert list(by_name) == [f"transformer/layer_{layer}/self_attention/query/bias" for layer in (2, 1, 0)]
    assert list(by_name.values()) == variables


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


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("family", OF_FAMILY)
def test_output_range_keeps_the_first_position_of_the_last_layer(family, norm_first):
    architecture = dataclasses.replace(OF_FAMILY[family], norm_first=norm_first)
    complete = native.build_encoder(architecture)
    first = build_with_values(architecture, complete.get_weights(), output_range=1)(INPUTS)
    expected = complete(INPUTS)
    assert first["encoder_outputs"][-1].shape == (4, 1, 64)
    assert np.abs(expected["pooled_output"] - first["pooled_output"]).max() < 1e-6
    assert np.abs(expected["encoder_outputs"][-1][:, :1] - first["encoder_outputs"][-1]).max() < 1e-6


@pytest.mark.parametrize("family", OF_FAMILY)
def test_bfloat16_is_close_and_changes_no_variables_and_no_policy(family):
    exact = native.build_encoder(OF_FAMILY[family])
    rough = build_with_values(OF_FAMILY[family], exact.get_weights(), policy="mixed_bfloat16", output_range=1)
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


@pytest.mark.parametrize("family", OF_FAMILY)
def test_fused_layers_with_other_outputs_are_refused(family, monkeypatch):
    architecture = OF_FAMILY[family]
    values = native.build_encoder(architecture).get_weights()
    native.check_fused_layers(architecture, values)
    monkeypatch.setattr(fused_layers, "MASKED", 0.0)
    with pytest.raises(UserError, match=r"^model.fused must be off .* Received: a difference of "):
        native.check_fused_layers(architecture, values)

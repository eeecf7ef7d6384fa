import dataclasses
import functools
import re

import pytest
import tensorflow as tf
from fakes.encoders import SMALL, export_encoder

from trainer.encoders import architectures, native, random_encoders, registry
from trainer.encoders.architectures import CannotRebuild

EMBEDDINGS = {
    "word_embeddings/embeddings": (1024, 32),
    "position_embedding/embeddings": (512, 32),
    "type_embeddings/embeddings": (2, 32),
}
BLOCKS = {
    "bert": {
        "transformer/layer_0/self_attention/query/kernel": (64, 4, 16),
        "transformer/layer_0/intermediate/kernel": (64, 200),
    },
    "albert": {
        "transformer/self_attention/query/kernel": (64, 4, 16),
        "transformer/intermediate/kernel": (64, 200),
    },
    "talking_heads": {
        "transformer/layer_0/self_attention/pre_softmax_weight": (4, 4),
        "transformer/layer_0/self_attention/query/kernel": (64, 4, 16),
        "transformer/layer_0/feedforward/intermediate_0/kernel": (64, 200),
    },
}


@pytest.mark.parametrize("family", BLOCKS)
def test_an_architecture_is_derived_from_names_and_shapes(family):
    derived = architectures.derive_architecture(EMBEDDINGS | BLOCKS[family], layers=3, rates=(0.3, 0.2), epsilon=1e-6)
    assert derived == architectures.Architecture(
        vocab_size=1024,
        embedding_width=32,
        hidden_size=64,
        layers=3,
        heads=4,
        inner_size=200,
        max_positions=512,
        token_types=2,
        activation="gelu",
        dropout=0.3,
        attention_dropout=0.2,
        layer_norm_epsilon=1e-6,
        family=family,
    )


def test_only_talking_heads_show_that_they_normalize_first():
    for family, block in BLOCKS.items():
        shapes = EMBEDDINGS | block | {f"{architectures.FAMILIES[family].block}output_layer_norm/gamma": (64,)}
        derived = architectures.derive_architecture(shapes, layers=1)
        assert derived.norm_first == (family == "talking_heads")


@pytest.mark.parametrize("family", BLOCKS)
def test_shapes_without_a_needed_variable_are_rejected(family):
    shapes = EMBEDDINGS | BLOCKS[family]
    for name in shapes:
        if "pre_softmax" not in name:  # Without it, it is another family.
            with pytest.raises(CannotRebuild, match=f"'{name}'|'{architectures.FAMILIES['bert'].mark}'"):
                architectures.derive_architecture({n: s for n, s in shapes.items() if n != name}, layers=1)


# --- The graph --------------------------------------------------------------------------------------


@pytest.mark.parametrize("rates", [(0.1, 0.0), (0.0, 0.1)])
@pytest.mark.parametrize("network", ["bert_v1", "albert", "talking_heads"])
def test_dropout_rates_and_epsilon_are_read_from_the_graph(tmp_path, network, rates):
    architecture = dataclasses.replace(SMALL, dropout=rates[0], attention_dropout=rates[1])
    saved = export_encoder(tmp_path, network, architecture)
    bodies = architectures.function_bodies(saved)
    assert architectures.dropout_rates(bodies) == rates
    assert architectures.layer_norm_epsilon(bodies) == 1e-12
    assert architectures.count_layers(saved) == 2


# --- The registry's names ---------------------------------------------------------------------------

# Layers, hidden size, heads and width of the embeddings of what has no sizes in its name. Sources: the papers' tables.
SIZES = {
    "albert_en_base": (12, 768, 12, 128),
    "albert_en_large": (24, 1024, 16, 128),
    "albert_en_xlarge": (24, 2048, 16, 128),
    "albert_en_xxlarge": (12, 4096, 64, 128),
    "electra_small": (12, 256, 4, 128),
    "electra_base": (12, 768, 12, 768),
    "electra_large": (24, 1024, 16, 1024),
    "talking-heads_base": (12, 768, 12, 768),
    "talking-heads_large": (24, 1024, 16, 1024),
}
# How a name begins -> the family that it is rebuilt as.
PROMISED = {
    "bert_": "bert",
    "small_bert/": "bert",
    "electra_": "bert",
    "experts_": "bert",
    "albert_": "albert",
    "talking-heads_": "talking_heads",
}


def promised_architecture(name: str) -> architectures.Architecture:
    match = re.search(r"L-(\d+)_H-(\d+)_A-(\d+)$", name)
    sizes = tuple(map(int, match.groups())) if match else SIZES.get(name, (12, 768, 12, 768))  # the experts'
    layers, hidden_size, heads, width = (*sizes, sizes[1])[:4]
    return dataclasses.replace(
        SMALL,
        layers=layers,
        hidden_size=hidden_size,
        heads=heads,
        embedding_width=width,
        inner_size=4 * hidden_size,
        family=next(family for beginning, family in PROMISED.items() if name.startswith(beginning)),
    )


@functools.cache
def shapes_of_one_layer(architecture: architectures.Architecture) -> dict[str, tuple[int, ...]]:
    """The variables of the Hub's encoder with one layer, built in a graph, where they have no values."""
    network = "bert_v1" if architecture.family == "bert" else architecture.family
    with tf.Graph().as_default():
        encoder = random_encoders.NETWORKS[network](dataclasses.replace(architecture, layers=1), 0.02)
        return {name: tuple(v.shape) for name, v in native.variables_by_name(encoder.trainable_variables).items()}


@pytest.mark.parametrize("name", registry.ENCODERS)
def test_a_name_of_the_registry_is_rebuilt_as_the_family_that_it_promises(name):
    expected = promised_architecture(name)
    derived = architectures.derive_architecture(
        shapes_of_one_layer(dataclasses.replace(expected, layers=0)), layers=expected.layers, rates=(0.2, 0.05)
    )
    assert derived == expected

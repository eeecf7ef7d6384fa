import dataclasses

import numpy as np
import pytest
from fakes.bert import CONFIG, compute_outputs, random_weights
from helpers import random_encoder_inputs

from trainer.encoders import architectures, native, reference, tensor_names
from trainer.encoders.reference import Reference

INPUTS = random_encoder_inputs(rows=3, seq_length=12, vocab_size=CONFIG["vocab_size"])


def make_reference(width=16, **changes):
    """The encoder of CONFIG with random_weights, or with changes to its architecture."""
    architecture = architectures.Architecture(
        vocab_size=30,
        embedding_width=width,
        hidden_size=16,
        layers=2,
        heads=4,
        inner_size=24,
        max_positions=20,
        token_types=2,
        activation="gelu",
        dropout=0.1,
        attention_dropout=0.1,
    )
    stored = random_weights(width=width)
    values = {}
    for part in ("gamma", "beta", "kernel", "bias", "embeddings"):
        for path in find_paths(width):
            name = tensor_names.file_name(NAMES, f"{path}/{part}")
            if name in stored:
                values[f"{path}/{part}"] = stored[name].T if part == "kernel" else stored[name]
    return Reference(dataclasses.replace(architecture, **changes), values)


NAMES = dataclasses.replace(
    tensor_names.HUGGING_FACE["bert"],
    parts=tensor_names.HUGGING_FACE["bert"].parts | {"embedding_projection": "embeddings_project"},
)


def find_paths(width):
    layers = ("self_attention", "intermediate", "output")
    for part in NAMES.parts:
        if part.startswith(layers):
            yield from (f"transformer/layer_{layer}/{part}" for layer in range(2))
        else:
            yield part


@pytest.mark.parametrize("width", [16, 8])
@pytest.mark.parametrize(("kind", "activation"), [("gelu", "gelu"), ("gelu_new", "gelu_tanh"), ("relu", "relu")])
def test_the_outputs_are_those_of_the_papers(kind, activation, width):
    sequence, pooled = compute_outputs(CONFIG | {"hidden_act": kind}, random_weights(width=width), INPUTS)
    received = reference.compute_outputs(make_reference(width, activation=activation), INPUTS)
    assert len(received["encoder_outputs"]) == 2
    assert np.abs(received["encoder_outputs"][-1] - sequence).max() < 1e-6
    assert np.abs(received["pooled_output"] - pooled).max() < 1e-6


@pytest.mark.parametrize(
    "changes", [dict(heads=2), dict(layers=1), dict(activation="relu"), dict(layer_norm_epsilon=1e-3)]
)
def test_what_a_configuration_says_changes_the_outputs(changes):
    expected = reference.compute_outputs(make_reference(), INPUTS)
    received = reference.compute_outputs(make_reference(**changes), INPUTS)
    assert len(received["encoder_outputs"]) == changes.get("layers", 2)
    assert np.abs(received["pooled_output"] - expected["pooled_output"]).max() > native.TOLERANCE


def test_a_type_that_there_is_not_adds_nothing():
    one = make_reference()
    one.values["type_embeddings/embeddings"][1] = 0
    two = make_reference()
    two.values["type_embeddings/embeddings"] = two.values["type_embeddings/embeddings"][:1]
    assert INPUTS["input_type_ids"].max() == 1
    expected = reference.compute_outputs(one, INPUTS)["pooled_output"]
    assert np.array_equal(reference.compute_outputs(two, INPUTS)["pooled_output"], expected)

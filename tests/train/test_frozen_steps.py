"""Steps that leave some of an encoder's parameters as they are."""

import dataclasses
import functools

import numpy as np
import pytest
import step_training
import tensorflow as tf
from helpers import random_encoder_inputs

from trainer.encoders import classifier, freezing, native, saved_models
from trainer.train import optimizers, steps


@dataclasses.dataclass
class FrozenStep:
    before: dict[str, np.ndarray]  # By canonical name, as below.
    after: dict[str, np.ndarray]
    with_moments: set[str]
    operators: list[str]  # Their names in the step's graph.


@functools.cache
def train_frozen(tiny, freeze, pooling, path, parts) -> FrozenStep:
    """One step of the tiny encoder with dropout, nothing clipped, at the full learning rate."""
    strategy = step_training.one_replica()
    with strategy.scope():
        if path == "hub":
            encoder = classifier.build_hub_encoder(saved_models.load_saved_model(f"{tiny}/encoder"))
        else:
            encoder = classifier.build_native_encoder(*step_training.rebuilt(f"{tiny}/encoder"), "float32", pooling)
        model = classifier.build_classifier(encoder, 2, 0.1, 3, pooling)
        trained_variables = freezing.choose_trained_variables(model.trainable_variables, freeze, pooling)
        optimizer = optimizers.build_adamw(1e-3, 10, 0.0, 0.01)
        optimizers.create_slots(optimizer, trained_variables)
        sums = steps.create_train_sums()
    update = optimizers.build_update(optimizer, 1e9)
    step = steps.build_train_step(model, optimizer, sums, 3, update, parts, trained_variables=trained_variables)
    run = tf.function(lambda batch: strategy.run(step, args=(batch,)))
    inputs = random_encoder_inputs(rows=4, seq_length=6, vocab_size=1024)
    batch = {name: tf.constant(value) for name, value in inputs.items()}
    batch |= {"label": tf.constant([0, 1, 1, 0]), "weight": tf.ones([4])}

    def by_name() -> dict[str, np.ndarray]:
        return {native.canonical_name(v.name): v.numpy() for v in model.trainable_variables}

    before = by_name()
    run(batch)
    slots = {native.canonical_name(v.name) for v in optimizer.variables()}
    with_moments = {name for name in before if f"{name}/m" in slots}
    graph = run.get_concrete_function(batch).graph
    return FrozenStep(before, by_name(), with_moments, [operator.name for operator in graph.get_operations()])


@pytest.fixture(scope="module")
def nothing_frozen(tiny):
    return train_frozen(tiny, "none", "pooled", "native", 1)


FROZEN = {
    "embeddings": ("word_embeddings", "position_embedding", "type_embeddings", "embeddings"),
    "layers:1": ("word_embeddings", "position_embedding", "type_embeddings", "embeddings", "transformer/layer_0"),
    "encoder": ("word_embeddings", "position_embedding", "type_embeddings", "embeddings", "transformer", "pooler"),
}


@pytest.mark.parametrize("freeze", FROZEN)
@pytest.mark.parametrize(("path", "parts"), [("native", 1), ("native", 2), ("hub", 1)])
def test_frozen_parameters_keep_their_values_and_have_no_moments(tiny, freeze, path, parts):
    done = train_frozen(tiny, freeze, "pooled", path, parts)
    frozen = {name for name in done.before if name.startswith(FROZEN[freeze])}
    assert {name for name in done.before if (done.before[name] == done.after[name]).all()} == frozen
    assert done.with_moments == set(done.before) - frozen


@pytest.mark.parametrize("freeze", FROZEN)
def test_the_others_are_trained_as_if_nothing_were_frozen(tiny, nothing_frozen, freeze):
    """With the same masks, in the frozen layers too."""
    done = train_frozen(tiny, freeze, "pooled", "native", 1)
    for name in done.with_moments:
        assert (done.after[name] == nothing_frozen.after[name]).all(), name


@pytest.mark.parametrize("freeze", FROZEN)
def test_no_gradient_is_computed_below_the_first_trained_layer(tiny, nothing_frozen, freeze):
    def backward(operators: list[str]) -> set[str]:
        parts = ("word_embeddings", "layer_0", "layer_1", "classifier")
        return {part for part in parts for name in operators if "gradient_tape" in name and f"/{part}/" in name}

    assert backward(nothing_frozen.operators) == {"word_embeddings", "layer_0", "layer_1", "classifier"}
    left = {"embeddings": {"layer_0", "layer_1"}, "layers:1": {"layer_1"}, "encoder": set()}[freeze]
    assert backward(train_frozen(tiny, freeze, "pooled", "native", 1).operators) == {"classifier", *left}


@pytest.mark.parametrize("path", ["native", "hub"])
@pytest.mark.parametrize("pooling", ["first", "mean"])
def test_without_the_pooler_all_but_it_is_trained(tiny, pooling, path):
    done = train_frozen(tiny, "none", pooling, path, 1)
    unchanged = {name for name in done.before if (done.before[name] == done.after[name]).all()}
    assert unchanged == {"pooler_transform/kernel", "pooler_transform/bias"}

import numpy as np
import pytest
import tensorflow as tf

from trainer.encoders import classifier, fused_layers, native, random_encoders
from trainer.train import step_timing


def test_functions_are_called_in_turn_after_one_call_each():
    called = []
    functions = {name: lambda name=name: called.append(name) for name in "ab"}
    medians = step_timing.measure_in_turn(functions, 3)
    assert called == ["a", "b"] * 4
    assert all(value >= 0 for value in medians.values())


def test_a_batch_has_ids_of_the_vocabulary():
    batch = step_timing.random_batch(8, 16, 20)
    assert batch["input_word_ids"].shape == (8, 16)
    assert 10 < np.max(batch["input_word_ids"]) < 20
    assert set(batch) == {*native.INPUT_NAMES, "label", "weight"}


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_changes_the_loss_of_its_batch(fused):
    architecture = random_encoders.RANDOM_PRESETS["tiny"].architecture
    strategy = tf.distribute.OneDeviceStrategy("/cpu:0")
    with strategy.scope():
        layer = native.build_encoder(architecture, classifier.POLICIES["float32"], output_range=1)
        if fused:
            fused_layers.install_fused_layers(layer, architecture)
        step = step_timing.build_step(strategy, layer, fused=fused)
    kernel = layer.trainable_variables[0]
    before = kernel.numpy()
    for width in (8, 16):
        step(step_timing.random_batch(4, width, architecture.vocab_size))
    assert np.any(kernel.numpy() != before)

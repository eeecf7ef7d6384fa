"""Train steps of a classifier on one batch of random ids, measured in turn: for checks and benchmarks, not for runs."""

import statistics
import time
from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf
import tf_keras

from trainer.encoders import classifier, native
from trainer.train import one_pass_adamw, optimizers, steps


def random_batch(batch_size: int, seq_length: int, vocab_size: int) -> steps.Batch:
    """Texts without padding, of random ids below `vocab_size`, int32 [batch_size, seq_length]; labels and weights."""
    rng = np.random.default_rng(0)
    shape = (batch_size, seq_length)
    values = (rng.integers(0, vocab_size, shape), np.ones(shape), np.zeros(shape))
    batch = {name: tf.constant(value, tf.int32) for name, value in zip(native.INPUT_NAMES, values, strict=True)}
    label = tf.constant(rng.integers(0, 2, batch_size), tf.int32)
    return {**batch, "label": label, "weight": tf.ones([batch_size])}


def build_step(
    strategy: tf.distribute.Strategy, layer: tf_keras.layers.Layer, *, fused: bool = False
) -> Callable[[steps.Batch], None]:
    """A function that trains a classifier on a batch, for one step, and returns when it is done.

    A step is what a job's is: dropout, gradients of all variables, clipping, AdamW; with `fused`, AdamW in one pass.
    The layer is fused already or not. Call it in the scope of the strategy, of one device.
    """
    model = classifier.build_classifier(layer, 2, classifier.HEAD_DROPOUT, seed=0)
    optimizer = optimizers.build_adamw(1e-5, steps=1000, warmup_fraction=0.1, weight_decay=0.01)
    optimizers.create_slots(optimizer, model.trainable_variables)
    build_update = one_pass_adamw.build_one_pass_update if fused else optimizers.build_update
    sums = steps.create_train_sums()
    train_step = steps.build_train_step(model, optimizer, sums, seed=0, update=build_update(optimizer, 1.0))
    compiled = tf.function(lambda batch: strategy.run(train_step, (batch,)), autograph=False)

    def run(batch: steps.Batch) -> None:
        compiled(batch)
        sums.loss.numpy()

    return run


def measure_in_turn(functions: Mapping[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """The median milliseconds of each function in `rounds` calls, after one that traces it."""
    for function in functions.values():
        function()
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            started = time.perf_counter()
            function()
            times[name].append(1000 * (time.perf_counter() - started))
    return {name: statistics.median(values) for name, values in times.items()}

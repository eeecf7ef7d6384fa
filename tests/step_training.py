"""Training steps of a tiny encoder, by one replica of this process or by several of another."""

import dataclasses
import functools
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from fakes.encoders import SMALL
from helpers import python

from trainer.data import batching, manifests, model_inputs
from trainer.distributed import strategies
from trainer.encoders import classifier, fused_layers, native, recomputation, saved_models, window_pooling
from trainer.train import averages, one_pass_adamw, optimizers, steps

BATCH = 5  # not a multiple of 2 or 4, so that replicas have padding rows
STEPS = 200


@dataclasses.dataclass
class Training:
    model: object
    sums: steps.TrainSums
    window: object
    batches: object
    averages: averages.WeightAverages


@functools.cache
def rebuilt(encoder: str):
    return native.rebuild_encoder(saved_models.load_saved_model(encoder))


FAMILIES = {
    "electra": dataclasses.replace(SMALL, embedding_width=16),
    "albert": dataclasses.replace(SMALL, family="albert", embedding_width=16, layers=3),
    "talking_heads": dataclasses.replace(SMALL, family="talking_heads"),
}


@functools.cache
def random_values(family: str) -> list[np.ndarray]:
    """The same in every process."""
    rng = np.random.default_rng(0)
    variables = native.build_encoder(FAMILIES[family]).trainable_variables
    return [rng.normal("gamma" in v.name, 0.05, v.shape).astype(np.float32) for v in variables]


def set_up_training(
    strategy,
    tiny,
    prepared,
    rate,
    examples=BATCH * 2 * STEPS,
    parts=1,
    layout=(24, "head"),
    pooling=None,
    weights=None,
    recompute=False,
    xla=False,
    fused=False,
    family=None,
    precision="float32",
    pad_multiple=8,
    widths=(),
) -> Training:
    """The tiny encoder with this dropout rate, ready to be trained on the reviews, in windows if `pooling` is given.

    `weights` is a function of a batch's rows to their weights. None: all are 1. `family` is a key of FAMILIES, of which
    an encoder takes the place of the tiny one.
    """
    replicas = strategy.num_replicas_in_sync
    architecture, values = (FAMILIES[family], random_values(family)) if family else rebuilt(f"{tiny}/encoder")
    architecture = dataclasses.replace(architecture, dropout=rate, attention_dropout=rate)
    with strategy.scope():
        encoder = classifier.build_native_encoder(architecture, values, precision)
        if fused:
            fused_layers.install_fused_layers(encoder, architecture)
        if recompute:
            recomputation.install_recomputation(encoder)
        built = classifier.build_classifier(encoder, 2, rate, seed=3)
        if pooling:
            built = window_pooling.build_window_classifier(built, pooling)
        optimizer = optimizers.build_adamw(1e-4, 2 * STEPS, 0.1, 0.01)
        optimizers.create_slots(optimizer, built.trainable_variables)
        sums = steps.create_train_sums()
        averaged = averages.create_averages(built, 0.99)
    manifest = manifests.read_manifest(str(prepared))
    stream = batching.train_batches(
        str(prepared), manifest, batching.ShuffleOrder(0, True, 1 << 18), BATCH, 0, examples
    )
    if weights:
        stream = (dataclasses.replace(batch, weights=weights(len(batch))) for batch in stream)
    seq_length, truncation, *divided = layout
    layout = model_inputs.BatchLayout(
        BATCH, seq_length, truncation, pad_multiple, replicas, parts, windows=divided[0] if divided else None
    )
    one_pass = fused and one_pass_adamw.suits_one_pass("adamw", strategy)
    build_update = one_pass_adamw.build_one_pass_update if one_pass else optimizers.build_update
    update = build_update(optimizer, 1.0)
    step = steps.build_train_step(built, optimizer, sums, 3, update, parts, weight_averages=averaged, xla=xla)
    window = steps.build_inner_loop(strategy, step, widths)
    batches = model_inputs.distribute_model_inputs(strategy, stream, manifest, layout)
    return Training(built, sums, window, batches, averaged)


def one_replica() -> tf.distribute.Strategy:
    return tf.distribute.OneDeviceStrategy("/cpu:0")


def values(training: Training) -> list[np.ndarray]:
    """Of the model's parameters, and then of their averages."""
    return [v.numpy() for v in [*training.model.trainable_variables, *training.averages.variables]]


def sums(training: Training) -> list[float]:
    return [float(v.numpy()) for v in (training.sums.weight, training.sums.loss, training.sums.correct)]


def assert_equal_values(one: list[np.ndarray], others: dict[str, list[np.ndarray]], tolerance: float = 1e-5) -> None:
    """No parameter or average is further than `tolerance` from that of `one`. `others` are values by name."""
    for name, other in others.items():
        largest = max(np.abs(a - b).max() for a, b in zip(one, other, strict=True))
        print(f"{name}: largest difference of a parameter {largest:.1e}")
        assert largest <= tolerance


def several_replicas(count: int | str) -> tf.distribute.Strategy:
    """Of a process whose TensorFlow has done nothing yet."""
    return strategies.build_strategy("mirrored", strategies.DeviceRequest(virtual_devices=int(count))).strategy


def run_script(script: str, *arguments: object) -> None:
    """Run a module of tests as a script. It imports what tests import."""
    python(script, *arguments, check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})


def save_values(output: str | Path, trainings: dict[str, Training]) -> None:
    """Write the values and sums of trainings, by name, for load_values."""
    arrays = {f"{name}:{i}": value for name, each in trainings.items() for i, value in enumerate(values(each))}
    np.savez(output, **arrays, **{f"{name}:sums": sums(each) for name, each in trainings.items()})


def load_values(saved: np.lib.npyio.NpzFile, name: str) -> tuple[list[np.ndarray], Sequence[float]]:
    """(values, sums) of a training."""
    count = sum(key.startswith(f"{name}:") for key in saved) - 1
    return [saved[f"{name}:{i}"] for i in range(count)], saved[f"{name}:sums"]

"""One encoder, rebuilt natively and trained beside hub.KerasLayer."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf
import tf_keras

from trainer.encoders import architectures, classifier, hub_format, native, random_encoders, registry, saved_models
from trainer.train import optimizers, steps

COLUMNS = ("encoder", "family", "parameters", "difference", "Hub", "float32", "bfloat16", "Hub / bfloat16")


@dataclasses.dataclass(frozen=True)
class EncoderCheck:
    """What is found of an encoder. Without a family, it cannot be rebuilt, for the reason given."""

    name: str
    parameters: int
    step_ms: Mapping[str, float]  # "Hub", "float32", "bfloat16" -> the median of its steps.
    family: str = ""
    difference: float = float("nan")  # The largest absolute one of an output from the original's.
    reason: str = ""

    @property
    def speedup(self) -> float:
        """How many times faster the native encoder is in bfloat16 than hub.KerasLayer."""
        return self.step_ms["Hub"] / self.step_ms.get("bfloat16", float("nan"))

    def cells(self) -> list[str]:
        """The row of COLUMNS."""
        times = [f"{self.step_ms[name]:.0f}" if name in self.step_ms else "-" for name in COLUMNS[4:7]]
        rebuilt = [f"{self.difference:.1e}", f"{self.speedup:.2f}"] if self.family else ["-", "-"]
        return [self.name, self.family or "none", f"{self.parameters:,}", rebuilt[0], *times, rebuilt[1]]


def resolve_encoder(name: str, folder: str) -> registry.EncoderFolders:
    """Find an encoder by what --encoder may be, or random:PRESET, which is made in `folder`.

    Raises UserError if there is none.
    """
    if not name.startswith("random:"):
        return registry.resolve_encoder(name, need_preprocess=False)
    hub_format.write_encoder(
        random_encoders.build_random_encoder(name.removeprefix("random:"), Path(folder)), f"{folder}/made"
    )
    return dataclasses.replace(registry.resolve_encoder(f"{folder}/made", need_preprocess=False), name=name)


def check_encoder(folders: registry.EncoderFolders, *, batch_size: int, seq_length: int, rounds: int) -> EncoderCheck:
    """Rebuild an encoder and measure train steps on the CPU, in turn so that other work slows all of them alike.

    A step is what a job's is: dropout, gradients of all variables, clipping, AdamW. Raises UserError if it is no
    encoder.
    """
    strategy = tf.distribute.OneDeviceStrategy("/cpu:0")
    with strategy.scope():
        saved = saved_models.load_encoder(folders)
        parameters = sum(int(np.prod(variable.shape)) for variable in saved.trainable_variables)
        check = EncoderCheck(folders.name, parameters, {})
        layers = {"Hub": classifier.build_hub_encoder(saved)}
        try:
            architecture, values = native.rebuild_encoder(saved)
        except architectures.CannotRebuild as reason:
            check = dataclasses.replace(check, reason=str(reason))
        else:
            for precision in classifier.POLICIES:
                layers[precision] = classifier.build_native_encoder(architecture, values, precision)
            sizes = architecture.vocab_size, architecture.max_positions
            difference = native.largest_output_difference(saved, layers["float32"], *sizes)
            check = dataclasses.replace(check, family=architecture.family, difference=difference)
        batch = random_batch(batch_size, seq_length, int(saved.trainable_variables[0].shape[0]))
        train_steps = {name: build_step(strategy, layer, batch) for name, layer in layers.items()}
    return dataclasses.replace(check, step_ms=measure_in_turn(train_steps, rounds))


def random_batch(batch_size: int, seq_length: int, vocab_size: int) -> steps.Batch:
    """Texts without padding, of random ids below `vocab_size`, int32 [batch_size, seq_length]; labels and weights."""
    rng = np.random.default_rng(0)
    shape = (batch_size, seq_length)
    values = (rng.integers(0, vocab_size, shape), np.ones(shape), np.zeros(shape))
    batch = {name: tf.constant(value, tf.int32) for name, value in zip(native.INPUT_NAMES, values, strict=True)}
    label = tf.constant(rng.integers(0, 2, batch_size), tf.int32)
    return {**batch, "label": label, "weight": tf.ones([batch_size])}


def build_step(
    strategy: tf.distribute.Strategy, layer: tf_keras.layers.Layer, batch: steps.Batch
) -> Callable[[], None]:
    """A function that trains a classifier on the batch, for one step, and returns when it is done.

    Call it in the scope of the strategy, of one device.
    """
    model = classifier.build_classifier(layer, 2, classifier.HEAD_DROPOUT, seed=0)
    optimizer = optimizers.build_adamw(1e-5, steps=1000, warmup_fraction=0.1, weight_decay=0.01)
    optimizers.create_slots(optimizer, model.trainable_variables)
    sums = steps.create_train_sums()
    train_step = steps.build_train_step(model, optimizer, sums, seed=0, clip_norm=1.0)
    compiled = tf.function(lambda: strategy.run(train_step, (batch,)))

    def run() -> None:
        compiled()
        sums.loss.numpy()

    return run


def measure_in_turn(train_steps: Mapping[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """The median milliseconds of each function in `rounds` calls, after one that traces it."""
    for step in train_steps.values():
        step()
    times: dict[str, list[float]] = {name: [] for name in train_steps}
    for _ in range(rounds):
        for name, step in train_steps.items():
            started = time.perf_counter()
            step()
            times[name].append(1000 * (time.perf_counter() - started))
    return {name: statistics.median(values) for name, values in times.items()}

"""One encoder, rebuilt natively and trained beside hub.KerasLayer."""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf

from trainer.encoders import architectures, classifier, hub_format, native, random_encoders, registry, saved_models
from trainer.train import step_timing

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
        batch = step_timing.random_batch(batch_size, seq_length, int(saved.trainable_variables[0].shape[0]))
        train_steps = {
            name: functools.partial(step_timing.build_step(strategy, layer), batch) for name, layer in layers.items()
        }
    return dataclasses.replace(check, step_ms=step_timing.measure_in_turn(train_steps, rounds))

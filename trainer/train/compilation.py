"""What XLA compiles (model.compile, model.fused)."""

import tensorflow as tf

from trainer.distributed import strategies
from trainer.errors import Problem, UsageError


def resolve_compile(setting: str, *, native: bool, strategy: tf.distribute.Strategy) -> str:
    """What model.compile=`setting` means here, the same on every worker: "xla" or "off".

    `auto` is xla if every worker computes on GPUs: on a CPU it is slower, and a TPU compiles in any case. An encoder
    that is not `native`, hub.KerasLayer, would be compiled again in every step.
    """
    if setting != "auto":
        return setting
    suits = native and strategies.has_accelerator(strategy) and not isinstance(strategy, tf.distribute.TPUStrategy)
    unsuited = strategies.build_all_reduce_max(strategy)({"without XLA": not suits})
    return "off" if unsuited["without XLA"] else "xla"


def resolve_fused(setting: str, resolved_compile: str, *, native: bool, strategy: tf.distribute.Strategy) -> str:
    """What model.fused=`setting` means here, the same on every worker: "on" or "off".

    `auto` is on if every worker computes on CPUs, and XLA does not compile whole steps. Only `native` encoders have
    layers to fuse. Raises UsageError for "on" where XLA compiles whole steps.
    """
    whole_steps = compiles_each_shape(resolved_compile, strategy)
    if setting == "on" and whole_steps:
        advice = "Change it with --model.fused=off."
        raise UsageError(Problem("model.fused", "be auto or off where XLA compiles whole steps", setting, advice))
    if setting != "auto":
        return setting
    suits = native and not whole_steps and not strategies.has_accelerator(strategy)
    unsuited = strategies.build_all_reduce_max(strategy)({"not fused": not suits})
    return "off" if unsuited["not fused"] else "on"


def compiles_each_shape(resolved: str, strategy: tf.distribute.Strategy) -> bool:
    """Whether each shape of a batch is another program to compile, so that batches should have few."""
    return resolved == "xla" or isinstance(strategy, tf.distribute.TPUStrategy)


def compiles_steps(resolved: str, strategy: tf.distribute.Strategy) -> bool:
    """Whether a step's functions are compiled each for itself. On a TPU, the whole step is one program in any case."""
    return resolved == "xla" and not isinstance(strategy, tf.distribute.TPUStrategy)

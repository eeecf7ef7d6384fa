"""STRATEGIES: a name -> a tf.distribute.Strategy, with a clear failure where the hardware is missing."""

import dataclasses
from collections.abc import Callable

import tensorflow as tf

from trainer.environment import UsageError


@dataclasses.dataclass(frozen=True)
class Chosen:
    strategy: tf.distribute.Strategy
    description: str  # which devices, and why where they were chosen for the user


def _devices(kind: str) -> list[str]:
    return [device.name.removeprefix("/device:") for device in tf.config.list_logical_devices(kind)]


def _cpu() -> Chosen:
    tf.config.set_visible_devices([], "GPU")
    return Chosen(tf.distribute.OneDeviceStrategy("/cpu:0"), "the CPU")


def _one_device() -> Chosen:
    if tf.config.list_physical_devices("GPU"):
        return Chosen(tf.distribute.OneDeviceStrategy("/gpu:0"), "the first GPU")
    return Chosen(tf.distribute.OneDeviceStrategy("/cpu:0"), "the CPU (there is no GPU)")


def _mirrored() -> Chosen:
    gpus, cpus = _devices("GPU"), _devices("CPU")
    if not gpus and len(cpus) < 2:
        raise UsageError(
            "--strategy=mirrored needs GPUs. Received: a machine without one. Use --strategy=cpu, or "
            "--virtual_devices=2 to try replicas on the CPU."
        )
    devices = gpus or cpus
    return Chosen(tf.distribute.MirroredStrategy(devices), f"{len(devices)} replicas on {', '.join(devices)}")


def _auto() -> Chosen:
    gpus = tf.config.list_physical_devices("GPU")
    chosen = _mirrored() if len(gpus) > 1 or len(_devices("CPU")) > 1 else _one_device()
    return dataclasses.replace(chosen, description=f"{chosen.description}, chosen by --strategy=auto")


STRATEGIES: dict[str, Callable[[], Chosen]] = {
    "auto": _auto,
    "cpu": _cpu,
    "one_device": _one_device,
    "mirrored": _mirrored,
}


def has_bfloat16(strategy: tf.distribute.Strategy) -> bool:
    """Whether the strategy's devices compute in bfloat16, rather than emulate it."""
    if tf.config.list_logical_devices("TPU"):
        return True
    if "GPU" in strategy.extended.worker_devices[0]:
        details = tf.config.experimental.get_device_details(tf.config.list_physical_devices("GPU")[0])
        return bool(details.get("compute_capability", (0, 0)) >= (8, 0))
    return bool({"amx_bf16", "avx512_bf16"} & _cpu_flags())


def _cpu_flags() -> set[str]:
    """What the processor can do, as Linux names it; empty where there is no /proc."""
    try:
        with open("/proc/cpuinfo") as file:
            return set(next((line for line in file if line.startswith("flags")), "").split())
    except OSError:
        return set()


def build(name: str, virtual_devices: int | None = None) -> Chosen:
    """The strategy of this name; call it before TensorFlow starts up.

    `virtual_devices` splits the CPU into that many logical devices.
    Raises UsageError for an unknown name, or hardware that is not there.
    """
    if name not in STRATEGIES:
        raise UsageError(f"--strategy must be one of {', '.join(STRATEGIES)}. Received: {name}.")
    if virtual_devices is not None:
        if virtual_devices < 1:
            raise UsageError(f"--virtual_devices must be at least 1. Received: {virtual_devices}.")
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * virtual_devices)
    return STRATEGIES[name]()

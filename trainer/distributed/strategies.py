"""STRATEGIES: a name -> a tf.distribute.Strategy, with a clear failure where the hardware is missing.

Also what a worker of several has to know: which it is, and what the others say.
"""

import dataclasses
import faulthandler
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf

from trainer.distributed import tpu_probe
from trainer.distributed.rendezvous import Cluster
from trainer.errors import UsageError

# Seconds that a worker waits for the others in one exchange: longer than any does alone (saving to a bucket).
# One that has died is noticed within a second, one that hangs within 20: TensorFlow's heartbeats see to that.
COLLECTIVE_TIMEOUT_S = 600
# Seconds for TensorFlow's servers to find one another, after the workers have met.
STARTUP_TIMEOUT_S = 120


@dataclasses.dataclass(frozen=True)
class DeviceRequest:
    """What a strategy may be built on, as far as TensorFlow cannot see it."""

    virtual_devices: int | None = None  # the CPU is split into so many
    tpu: str | None = None  # the one that --tpu or the environment names
    cluster: Cluster | None = None


@dataclasses.dataclass(frozen=True)
class StrategyChoice:
    strategy: tf.distribute.Strategy
    description: str  # which devices, and why where they were chosen for the user


def _devices(kind: str) -> list[str]:
    return [device.name.removeprefix("/device:") for device in tf.config.list_logical_devices(kind)]


def _cpu(machine: DeviceRequest) -> StrategyChoice:
    tf.config.set_visible_devices([], "GPU")
    return StrategyChoice(tf.distribute.OneDeviceStrategy("/cpu:0"), "the CPU")


def _one_device(machine: DeviceRequest) -> StrategyChoice:
    if tf.config.list_physical_devices("GPU"):
        return StrategyChoice(tf.distribute.OneDeviceStrategy("/gpu:0"), "the first GPU")
    return StrategyChoice(tf.distribute.OneDeviceStrategy("/cpu:0"), "the CPU (there is no GPU)")


def _mirrored(machine: DeviceRequest) -> StrategyChoice:
    gpus, cpus = _devices("GPU"), _devices("CPU")
    if not gpus and len(cpus) < 2:
        raise UsageError(
            "--strategy=mirrored needs GPUs. Received: a machine on which TensorFlow finds none. "
            f"{describe_available_strategies()}, and mirrored with --virtual_devices=2 tries replicas on the CPU."
        )
    devices = gpus or cpus
    return StrategyChoice(tf.distribute.MirroredStrategy(devices), f"{len(devices)} replicas on {', '.join(devices)}")


def _multi_worker(machine: DeviceRequest) -> StrategyChoice:
    cluster = machine.cluster
    if cluster is None:
        raise UsageError(
            "--strategy=multi_worker needs the workers' addresses in TF_CONFIG or CLUSTER_SPEC. Received: neither. "
            f"{describe_available_strategies()}."
        )
    # From worker to worker, too, gRPC would take the proxy that the environment names for the world outside.
    hosts = [address.rpartition(":")[0].strip("[]") for address in cluster.addresses]
    os.environ["no_grpc_proxy"] = ",".join(hosts)  # noqa: SIM112  gRPC reads the small letters alone
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": list(cluster.addresses)}),
        task_type="worker",
        task_id=cluster.index,
        rpc_layer="grpc",
    )
    options = tf.distribute.experimental.CommunicationOptions(timeout_seconds=COLLECTIVE_TIMEOUT_S)
    print(f"joining {len(cluster.addresses)} workers, for {STARTUP_TIMEOUT_S} s at most", file=sys.stderr)
    # A worker that dies at this very moment would be waited for without end, deaf to signals and with Python's
    # lock held: only faulthandler's own thread can end that. It ends the process with code 1.
    with open(os.devnull, "w") as nowhere:
        faulthandler.dump_traceback_later(STARTUP_TIMEOUT_S, exit=True, file=nowhere)
        try:
            strategy = tf.distribute.MultiWorkerMirroredStrategy(resolver, options)
        finally:
            faulthandler.cancel_dump_traceback_later()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # TensorFlow has taken it, and does nothing with it
    return StrategyChoice(
        strategy,
        f"worker {cluster.index} of {len(cluster.addresses)}, {strategy.num_replicas_in_sync} replicas in all",
    )


def _tpu(machine: DeviceRequest) -> StrategyChoice:
    missing = find_missing_tpu(machine)
    if missing:
        raise UsageError(missing)
    name = machine.tpu
    resolver = tf.distribute.cluster_resolver.TPUClusterResolver(name)
    if name != "local":
        tf.config.experimental_connect_to_cluster(resolver)
    tf.tpu.experimental.initialize_tpu_system(resolver)
    strategy = tf.distribute.TPUStrategy(resolver)
    return StrategyChoice(strategy, f"{strategy.num_replicas_in_sync} cores of the TPU {name}")


def _auto(machine: DeviceRequest) -> StrategyChoice:
    """The TPU or the cluster that the environment names, else all GPUs, else the CPU."""
    if machine.tpu:
        chosen, why = _tpu(machine), "named by --tpu or TPU_NAME"
    elif machine.cluster and len(machine.cluster.addresses) > 1:
        chosen, why = _multi_worker(machine), "named by TF_CONFIG or CLUSTER_SPEC"
    elif len(tf.config.list_physical_devices("GPU")) > 1 or len(_devices("CPU")) > 1:
        chosen, why = _mirrored(machine), "all that there are"
    else:
        chosen, why = _one_device(machine), "no TPU is named and there is no second device"
    return dataclasses.replace(chosen, description=f"{chosen.description}; chosen by --strategy=auto: {why}")


STRATEGIES: dict[str, Callable[[DeviceRequest], StrategyChoice]] = {
    "auto": _auto,
    "cpu": _cpu,
    "one_device": _one_device,
    "mirrored": _mirrored,
    "multi_worker": _multi_worker,
    "tpu": _tpu,
}


def find_flag_problems(name: str, machine: DeviceRequest, model_dir: str | None) -> list[str]:
    """What is wrong with these flags, one line each. Looks at no device."""
    found = []
    if name not in STRATEGIES:
        found.append(f"--strategy must be one of {', '.join(STRATEGIES)}. Received: {name}.")
    if machine.virtual_devices is not None and machine.virtual_devices < 1:
        found.append(f"--virtual_devices must be at least 1. Received: {machine.virtual_devices}.")
    why = None
    if machine.tpu and name in ("auto", "tpu"):
        why = "with a TPU"
    elif machine.cluster and len(machine.cluster.hosts) > 1 and name in ("auto", "multi_worker"):
        why = f"on {len(machine.cluster.hosts)} hosts"
    if why and model_dir and "://" not in model_dir:
        found.append(
            f"--model_dir must be on shared storage, gs://..., for a run {why}. Received: {model_dir}, a local path."
        )
    return found


def find_missing_tpu(machine: DeviceRequest) -> str | None:
    """What is wrong with the TPU that was asked for; None if it is there. Takes accelerators.LOOK seconds at most."""
    name = machine.tpu
    why = tpu_probe.find_tpu_problem(name) if name else "neither that flag nor the variable TPU_NAME"
    if why is None:
        return None
    return (
        "--strategy=tpu needs the TPU that --tpu names, `local` for this host's own. "
        f"Received: {f'--tpu={name}, but ' if name else ''}{why}. {describe_available_strategies()}."
    )


def describe_available_strategies() -> str:
    """Which strategies this machine has the hardware for."""
    names = ["cpu", "one_device"]
    if _devices("GPU") or len(_devices("CPU")) > 1:
        names.append("mirrored")
    return f"Here --strategy={', '.join(names)} would work"


def build_strategy(name: str, machine: DeviceRequest) -> StrategyChoice:
    """The strategy of this name; call it before TensorFlow starts up.

    Raises UsageError for an unknown name, or hardware that is not there.
    """
    found = find_flag_problems(name, machine, None)
    if found:
        raise UsageError("\n".join(found))
    if machine.virtual_devices is not None:
        cpu = tf.config.list_physical_devices("CPU")[0]
        devices = [tf.config.LogicalDeviceConfiguration()] * machine.virtual_devices
        tf.config.set_logical_device_configuration(cpu, devices)
    return STRATEGIES[name](machine)


# --- A worker among others ------------------------------------------------------------------------


def worker_index_and_count(strategy: tf.distribute.Strategy) -> tuple[int, int]:
    """(this worker's index, the number of workers): (0, 1) unless the job has several machines."""
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return 0, 1
    resolver = strategy.cluster_resolver
    return resolver.task_id, resolver.cluster_spec().num_tasks("worker")


def build_all_reduce_max(strategy: tf.distribute.Strategy) -> Callable[[Sequence[float]], list[float]]:
    """A function of some numbers, the same count on every worker -> the largest that any worker says of each.

    Every worker has to call it at the same point of its run, and all go on together. Costs nothing with one worker.
    """
    if worker_index_and_count(strategy)[1] == 1:
        return lambda values: list(values)

    @tf.function
    def gathered(values: tf.Tensor) -> tf.Tensor:
        return strategy.run(
            lambda: tf.distribute.get_replica_context().all_gather(values[tf.newaxis], axis=0),
        )

    def largest(values: Sequence[float]) -> list[float]:
        said = gathered(tf.constant(values, tf.float64))
        (first, *_) = strategy.experimental_local_results(said)
        return [float(value) for value in first.numpy().max(axis=0)]

    return largest


# What TensorFlow raises when another worker is gone.
WORKER_LOST_ERRORS = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.FailedPreconditionError,
    tf.errors.InternalError,
)


def has_accelerator(strategy: tf.distribute.Strategy) -> bool:
    """Whether the replicas compute elsewhere than on the CPU."""
    return all("CPU" not in device for device in strategy.extended.worker_devices)


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


def distribute_batches(strategy: tf.distribute.Strategy, dataset: tf.data.Dataset) -> Iterator[Any]:
    """Global batches of a `dataset` that yields an element for each of this worker's replicas in turn (data.to_inputs).

    Take no more of them than there are: said to be infinite, the dataset spares the workers an exchange before each
    batch, on whether any of them has run dry.
    """
    endless = dataset.apply(tf.data.experimental.assert_cardinality(tf.data.experimental.INFINITE_CARDINALITY))
    return iter(strategy.distribute_datasets_from_function(lambda _: endless))

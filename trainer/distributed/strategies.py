"""STRATEGIES: a name -> a tf.distribute.Strategy, with a clear error where the hardware is missing.

Also what one of several workers needs (its index, and the largest of what all workers have), and what devices are.
"""

import dataclasses
import faulthandler
import logging
import os
import signal
import threading
from collections.abc import Callable, Mapping

import tensorflow as tf
from tensorflow.python.eager import context

from trainer.distributed import cluster_config, device_flags, gpu_support, processor, remote_hosts, tpu_probe
from trainer.distributed.cluster_config import Cluster
from trainer.errors import Problem, UsageError

# How long a worker waits for the others in one collective: longer than any of them is busy alone. The chief saves to a
# bucket, checks the export in a process that may take 10 minutes, and fits the bag of words of the report.
# TensorFlow's heartbeats notice a worker that has died within a second, and one that hangs within 20.
COLLECTIVE_TIMEOUT_S = 3600
# For TensorFlow's servers to connect, after the rendezvous of the workers.
STARTUP_TIMEOUT_S = 120
_RESTART = "Run it in a new process."

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class DeviceRequest:
    """The devices that the flags and the environment ask for."""

    virtual_devices: int | None = None  # Split the CPU into this many devices. None: leave it one.
    tpu: str | None = None  # The TPU of --tpu or TPU_NAME: `local`, its name or its address.
    cluster: Cluster | None = None


@dataclasses.dataclass(frozen=True)
class StrategyChoice:
    """A strategy that has been built."""

    strategy: tf.distribute.Strategy
    description: str  # For the user: the devices, and with --strategy=auto the reason for them.


def _devices(kind: str) -> list[str]:
    return [device.name.removeprefix("/device:") for device in tf.config.list_logical_devices(kind)]


def devices_started() -> bool:
    """Whether TensorFlow has started the devices of this process, which stay as they are from then on."""
    return context.context()._context_handle is not None  # No public function tells without starting them.


def _cpu(request: DeviceRequest) -> StrategyChoice:
    if not devices_started():
        tf.config.set_visible_devices([], "GPU")
    return StrategyChoice(tf.distribute.OneDeviceStrategy("/cpu:0"), "the CPU")


def _one_device(request: DeviceRequest) -> StrategyChoice:
    if tf.config.get_visible_devices("GPU"):
        return StrategyChoice(tf.distribute.OneDeviceStrategy("/gpu:0"), "the first GPU")
    hidden = tf.config.list_physical_devices("GPU")  # By an earlier --strategy=cpu of this process.
    reason = "the GPUs are hidden from this process" if hidden else "there is no GPU"
    return StrategyChoice(tf.distribute.OneDeviceStrategy("/cpu:0"), f"the CPU ({reason})")


def _mirrored(request: DeviceRequest) -> StrategyChoice:
    gpus, cpus = _devices("GPU"), _devices("CPU")
    if not gpus and len(cpus) < 2:
        advice = f"{describe_available_strategies()} With --virtual_devices=2, mirrored runs replicas on the CPU."
        received = "a host on which TensorFlow finds none"
        raise UsageError(Problem("--strategy=mirrored", "run on GPUs", received, advice))
    devices = gpus or cpus
    return StrategyChoice(tf.distribute.MirroredStrategy(devices), f"{len(devices)} replicas on {', '.join(devices)}")


def _multi_worker(request: DeviceRequest) -> StrategyChoice:
    cluster = request.cluster
    if cluster is None:
        required = "have the workers' addresses in TF_CONFIG or CLUSTER_SPEC"
        advice = describe_available_strategies()
        raise UsageError(Problem("--strategy=multi_worker", required, "neither of them", advice))
    remote_hosts.connect_without_proxy(cluster.addresses)
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": list(cluster.addresses)}),
        task_type="worker",
        task_id=cluster.index,
        rpc_layer="grpc",
    )
    options = tf.distribute.experimental.CommunicationOptions(timeout_seconds=COLLECTIVE_TIMEOUT_S)
    _LOG.info("connecting %d workers, for %d s at most", len(cluster.addresses), STARTUP_TIMEOUT_S)
    # For a worker that dies at this moment TensorFlow would wait without end, without handling signals and with
    # Python's lock held. Only faulthandler's own thread can end that; it ends the process with code 1.
    with open(os.devnull, "w") as null:
        faulthandler.dump_traceback_later(STARTUP_TIMEOUT_S, exit=True, file=null)
        try:
            strategy = tf.distribute.MultiWorkerMirroredStrategy(resolver, options)
        finally:
            faulthandler.cancel_dump_traceback_later()
    if threading.current_thread() is threading.main_thread():
        # Python's own again: that of TensorFlow ignores the signal.
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM) or signal.SIG_DFL)
    return StrategyChoice(
        strategy,
        f"worker {cluster.index} of {len(cluster.addresses)}, {strategy.num_replicas_in_sync} replicas in all",
    )


def _tpu(request: DeviceRequest) -> StrategyChoice:
    problem = find_missing_tpu(request)
    if problem:
        raise UsageError(problem)
    name = request.tpu or ""
    local = name == "local"
    resolver = tf.distribute.cluster_resolver.TPUClusterResolver(name) if local else remote_hosts.connect_hosts(name)
    strategy = build_tpu_strategy(resolver)
    return StrategyChoice(strategy, f"{strategy.num_replicas_in_sync} cores of the TPU {name}")


def build_tpu_strategy(resolver: tf.distribute.cluster_resolver.TPUClusterResolver) -> tf.distribute.TPUStrategy:
    """A strategy over all cores of the TPU that `resolver` is connected to."""
    tf.tpu.experimental.initialize_tpu_system(resolver)
    return tf.distribute.TPUStrategy(resolver)


def _auto(request: DeviceRequest) -> StrategyChoice:
    """The TPU or the cluster that the environment names, else all GPUs, else the CPU."""
    if request.tpu:
        choice, reason = _tpu(request), "named by --tpu or TPU_NAME"
    elif request.cluster and len(request.cluster.addresses) > 1:
        choice, reason = _multi_worker(request), "named by TF_CONFIG or CLUSTER_SPEC"
    elif len(tf.config.get_visible_devices("GPU")) > 1 or (request.virtual_devices or 1) > 1:
        choice, reason = _mirrored(request), "all that there are"
    else:
        choice, reason = _one_device(request), "no TPU is named and there is no second device"
    return dataclasses.replace(choice, description=f"{choice.description}; chosen by --strategy=auto: {reason}")


STRATEGIES: dict[str, Callable[[DeviceRequest], StrategyChoice]] = {  # Those of STRATEGY_NAMES.
    "auto": _auto,
    "cpu": _cpu,
    "one_device": _one_device,
    "mirrored": _mirrored,
    "multi_worker": _multi_worker,
    "tpu": _tpu,
}


def find_flag_problems(name: str, request: DeviceRequest) -> list[Problem]:
    """What is wrong with --strategy and --virtual_devices. Starts no device."""
    problems = device_flags.find_value_problems(name, request.virtual_devices)
    if problems:
        return problems
    if request.virtual_devices is not None and devices_started() and len(_devices("CPU")) != request.virtual_devices:
        received = f"{request.virtual_devices}, where TensorFlow has started {len(_devices('CPU'))}"
        problems.append(Problem("--virtual_devices", "be the number that this process began with", received, _RESTART))
    return problems


def request_devices(
    name: str,
    virtual_devices: int | None,
    tpu: str | None,
    environment: Mapping[str, str],
    *,
    trains: bool,
) -> DeviceRequest:
    """What the flags and the environment say of the devices. Only training runs on several workers.

    Raises UsageError with every problem. A TPU that is to be used is looked for.
    """
    problems: list[Problem] = []
    cluster = None
    try:
        cluster = cluster_config.read_cluster(environment) if trains and name in ("auto", "multi_worker") else None
    except UsageError as error:
        problems.extend(error.problems)
    request = DeviceRequest(virtual_devices, tpu, cluster)
    problems += find_flag_problems(name, request)
    if cluster and len(cluster.addresses) > 1 and devices_started():
        required, received = "start the devices of its process", f"{name}, where TensorFlow has started them"
        problems.append(Problem("--strategy=multi_worker", required, received, _RESTART))
    problems += gpu_support.find_gpu_problems(name, tpu)
    if not trains and name == "multi_worker":
        problems.append(Problem("--strategy", "be of one worker with this --mode", name, "Use another."))
    if name == "tpu" or (name == "auto" and tpu):
        missing = find_missing_tpu(request)
        problems += [missing] if missing else []
    if problems:
        raise UsageError(*problems)
    return request


def find_missing_tpu(request: DeviceRequest) -> Problem | None:
    """What is wrong with the requested TPU; None if it can be used. Takes tpu_probe.PROBE_TIMEOUT_S at most."""
    name = request.tpu
    reason = tpu_probe.find_tpu_problem(name) if name else "neither --tpu nor the variable TPU_NAME"
    if reason is None:
        return None
    required = "have the TPU that --tpu names, `local` for this host's own"
    received = f"--tpu={name}, but {reason}" if name else reason
    return Problem("--strategy=tpu", required, received, describe_available_strategies())


def describe_available_strategies() -> str:
    """A sentence that lists the strategies that this host has the devices for."""
    names = ["cpu", "one_device"]
    if _devices("GPU") or len(_devices("CPU")) > 1:
        names.append("mirrored")
    return f"This host can run --strategy={', '.join(names)}."


def build_strategy(name: str, request: DeviceRequest) -> StrategyChoice:
    """The strategy of this name. Call it before TensorFlow starts its devices.

    Raises UsageError for an unknown name, or if the hardware is missing.
    """
    problems = find_flag_problems(name, request)
    if problems:
        raise UsageError(*problems)
    if request.virtual_devices is not None:
        cpu = tf.config.list_physical_devices("CPU")[0]
        devices = [tf.config.LogicalDeviceConfiguration()] * request.virtual_devices
        tf.config.set_logical_device_configuration(cpu, devices)
    return STRATEGIES[name](request)


# --- One of several workers -----------------------------------------------------------------------


def worker_index_and_count(strategy: tf.distribute.Strategy) -> tuple[int, int]:
    """(this worker's index, the number of workers): (0, 1) unless the job has a cluster."""
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return 0, 1
    resolver = strategy.cluster_resolver
    return resolver.task_id, resolver.cluster_spec().num_tasks("worker")


def build_all_reduce_max(strategy: tf.distribute.Strategy) -> Callable[[Mapping[str, float]], dict[str, float]]:
    """A function of named numbers: for each name it returns the largest number of any worker.

    Every worker has to call it at the same point with the same names. One call is one collective; with one worker it
    is none.
    """
    if worker_index_and_count(strategy)[1] == 1:
        return lambda values: dict(values)

    @tf.function
    def all_gather(values: tf.Tensor) -> tf.Tensor:
        return strategy.run(
            lambda: tf.distribute.get_replica_context().all_gather(values[tf.newaxis], axis=0),
        )

    def all_reduce_max(values: Mapping[str, float]) -> dict[str, float]:
        gathered = all_gather(tf.constant(list(values.values()), tf.float64))
        (first, *_) = strategy.experimental_local_results(gathered)
        return dict(zip(values, map(float, first.numpy().max(axis=0)), strict=True))

    return all_reduce_max


# What TensorFlow raises when another worker is gone.
WORKER_LOST_ERRORS = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.FailedPreconditionError,
    tf.errors.InternalError,
)


# --- What the devices are -------------------------------------------------------------------------


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
    return processor.describe_processor().has_bfloat16

"""TensorFlow servers in the place of a TPU's hosts, and a job that uses them as one.

What is TensorFlow's own: the servers, the connection, the TPUStrategy with its input pipelines and its variables on
every host, checkpoints. In the place of a TPU: the hosts' CPUs, each of them a core; and of the compiled program, the
threads of a MirroredStrategy.

Where it is permitted, each host has a network and a disk of its own, so that it reaches no other by `localhost` and
sees no file of the job.
"""

import contextlib
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from helpers import free_addresses

from trainer.runtime import tensorflow_variables

SERVER = """
import sys
import tensorflow as tf
index, addresses, cores = int(sys.argv[1]), sys.argv[2].split(","), int(sys.argv[3])
config = tf.compat.v1.ConfigProto(device_count={"CPU": cores}, intra_op_parallelism_threads=1)
cluster = tf.train.ClusterSpec({"worker": addresses})
server = tf.distribute.Server(cluster, job_name="worker", task_index=index, protocol="grpc", config=config)
print("serving", flush=True)
server.join()
"""
PORT = 8470  # That of TPU hosts.
_CABLES = itertools.count()


@dataclass
class TpuHosts:
    """The servers, and what --tpu has to name."""

    processes: list[subprocess.Popen]
    tpu: str


def may_have_networks() -> bool:
    """Whether this process may give another one a network and a disk of its own."""
    try:
        return subprocess.run(["unshare", "--net", "--mount", "ip", "link"], capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@contextlib.contextmanager
def _bridge(name: str, address: str) -> Iterator[None]:
    _ip("link", "add", name, "type", "bridge")
    try:
        _ip("address", "add", f"{address}/24", "dev", name)
        _ip("link", "set", name, "up")
        yield
    finally:
        _ip("link", "delete", name)


@contextlib.contextmanager
def running(count: int, cores: int, hidden: Path) -> Iterator[TpuHosts]:
    """Start the hosts. The folder `hidden`, with the job's files, is empty for them where they have their own disks."""
    number, own = os.getpid() % 250, may_have_networks()
    network, bridge = f"10.199.{number}", f"tpu{number}"
    addresses = [f"{network}.{host + 2}:{PORT}" for host in range(count)] if own else list(free_addresses(count))
    with contextlib.ExitStack() as stack:
        if own:
            stack.enter_context(_bridge(bridge, f"{network}.1"))
        hosts = TpuHosts([], "grpc://" + ",".join(addresses))
        for host in range(count):
            command = [sys.executable, "-c", SERVER, str(host), ",".join(addresses), str(cores)]
            if own:
                script = (
                    f"mount -t tmpfs none '{hidden}'; ip link set lo up; "
                    "until ip link show eth0 2>/dev/null; do sleep 0.05; done >/dev/null; "
                    f'ip address add {network}.{host + 2}/24 dev eth0; ip link set eth0 up; exec "$@"'
                )
                command = ["unshare", "--net", "--mount", "bash", "-c", script, "host", *command]
            environment = {**os.environ, **tensorflow_variables.DEFAULTS}
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
            )
            hosts.processes.append(process)
            stack.callback(process.wait)
            stack.callback(process.kill)
            if own:
                _wait_for_namespace(process)
                cable = f"{bridge}c{next(_CABLES)}"  # A name is free again some time after its host's end.
                _ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", str(process.pid))
                _ip("link", "set", cable, "master", bridge, "up")
        for process in hosts.processes:
            assert process.stdout
            assert process.stdout.readline() == "serving\n"
        yield hosts


def _wait_for_namespace(process: subprocess.Popen) -> None:
    """Until the process has left this one's network."""
    while os.readlink(f"/proc/{process.pid}/ns/net") == os.readlink("/proc/self/ns/net"):
        time.sleep(0.01)


# --- The job: python -m fakes.tpu_hosts FLAGS OF trainer.task ---------------------------------------


def build_strategy(resolver):
    """In the place of strategies.build_tpu_strategy, which initializes a TPU."""
    import numpy as np
    import tensorflow as tf
    from tensorflow.python.client import session
    from tensorflow.python.distribute import mirrored_run
    from tensorflow.python.tpu import topology, tpu_system_metadata

    cpus = [device.name for device in tf.config.list_logical_devices("CPU") if "/job:worker" in device.name]
    hosts = resolver.cluster_spec().num_tasks("worker")
    cores = len(cpus) // hosts
    coordinates = [[[host * cores + core, 0, 0, 0] for core in range(cores)] for host in range(hosts)]
    mesh = topology.Topology(mesh_shape=[len(cpus), 1, 1, 1], device_coordinates=np.array(coordinates))
    metadata = tpu_system_metadata.TPUSystemMetadata(
        num_cores=len(cpus),
        num_hosts=hosts,
        num_of_cores_per_host=cores,
        topology=mesh,
        devices=[session._DeviceAttributes(cpu.replace("CPU", "TPU"), "TPU", 0, 0) for cpu in cpus],
    )
    resolver.get_tpu_system_metadata = lambda: metadata
    resolver.set_tpu_topology(mesh.serialized())
    strategy = tf.distribute.TPUStrategy(resolver)
    extended = strategy.extended
    extended._tpu_devices = np.array([[cpu] for cpu in cpus], dtype=object)
    for host, devices in extended._device_input_worker_devices.items():
        extended._device_input_worker_devices[host] = [device.replace("TPU", "CPU") for device in devices]
    strategy._enable_packed_variable_in_eager_mode = False  # Only real TPUs can pack.
    extended._get_replica_id_in_sync_group = lambda replica: replica

    def run(function, arguments, named, options=None):
        with strategy.scope():
            return mirrored_run.call_for_each_replica(strategy, function, arguments, named)

    extended.tpu_run = run
    return strategy


if __name__ == "__main__":
    from trainer import task
    from trainer.distributed import tpu_probe
    from trainer.runtime import app

    os.environ |= tpu_probe.REMOTE_TPU_VARIABLES  # The next line imports TensorFlow before the job is told of a TPU.
    from trainer.distributed import strategies

    strategies.build_tpu_strategy = build_strategy
    app.run(task.main, task.__doc__)

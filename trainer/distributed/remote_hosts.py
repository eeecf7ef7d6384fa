"""The hosts of a TPU that is not this machine's own: connecting to them, and what is to be placed where.

This process is then the coordinator. It reads and writes all files and makes the batches; the hosts have the variables
and run the steps. They need neither this project nor access to its files.
"""

import os
import socket
import threading
import time
from collections.abc import Callable, Sequence

import tensorflow as tf

from trainer.distributed.cluster_config import split_address

POLL_INTERVAL_S = 3.0
MAX_MISSES = 3
MAX_SILENCE_S = 20.0  # As long as TensorFlow's heartbeats wait for another worker.
JOB = "coordinator"  # TensorFlow's name for this process among the hosts.


def connect_hosts(tpu: str) -> tf.distribute.cluster_resolver.TPUClusterResolver:
    """Connect to every host of the TPU with this name or these grpc:// addresses, separated by commas."""
    resolver = tf.distribute.cluster_resolver.TPUClusterResolver
    hosts = resolver(tpu).cluster_spec().job_tasks("worker")
    # Left to itself, TensorFlow tells the hosts that this process is at "localhost", which to them is themselves. The
    # first batch would fail, since they have it made here.
    address = find_own_address(hosts[0])
    connect_without_proxy((*hosts, address))
    cluster = resolver(tpu, coordinator_name=JOB, coordinator_address=address)
    # The first host as the default device would read this machine's files from its own disk.
    tf.config.experimental_connect_to_cluster(cluster, job_name=JOB, make_master_device_default=False)
    return cluster


def connect_without_proxy(addresses: Sequence[str]) -> None:
    """Keep gRPC's connections to these HOST:PORT from the proxy that the environment names for the internet."""
    hosts = (split_address(address)[0] for address in addresses)
    os.environ["no_grpc_proxy"] = ",".join(hosts)  # noqa: SIM112  gRPC reads the lower case only


def watch_hosts(strategy: tf.distribute.Strategy, on_lost: Callable[[str], None]) -> None:
    """Call `on_lost` with a reason, in a thread, when a remote host is gone or hangs.

    It is gone if it has accepted no connection MAX_MISSES times in a row, and hangs if its server says nothing on one
    for MAX_SILENCE_S: the kernel accepts connections for a process that is stopped. TensorFlow mostly raises an error
    for the first, but may also wait for the host without end.
    """
    hosts = strategy.cluster_resolver.cluster_spec().job_tasks("worker")

    def watch() -> None:
        misses = dict.fromkeys(hosts, 0)
        while True:
            time.sleep(POLL_INTERVAL_S)
            for host in hosts:
                try:
                    socket.create_connection(split_address(host), timeout=POLL_INTERVAL_S).close()
                    misses[host] = 0
                    if not _answers(host):
                        on_lost(f"{host}: no answer for {MAX_SILENCE_S:.0f} s")
                except OSError as error:
                    misses[host] += 1
                    if misses[host] == MAX_MISSES:
                        on_lost(f"{host}: {error}")

    threading.Thread(target=watch, daemon=True).start()


def _answers(host: str) -> bool:
    """Whether the gRPC server at HOST:PORT completes a new connection, which needs its own first message."""
    import grpc  # type: ignore[import-untyped]  # The environment that traces for a TPU has none.

    with grpc.insecure_channel(
        host, options=[("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]
    ) as channel:
        try:
            grpc.channel_ready_future(channel).result(MAX_SILENCE_S)
        except grpc.FutureTimeoutError:
            return False
    return True


def find_own_address(host: str) -> str:
    """HOST:PORT at which `host`, HOST:PORT too, reaches this machine. Nothing listens there."""
    found = socket.getaddrinfo(*split_address(host), type=socket.SOCK_DGRAM)
    family, *_, target = min(found, key=lambda each: each[0] != socket.AF_INET)  # IPv4, if the host has it.
    with socket.socket(family, socket.SOCK_DGRAM) as datagrams:
        datagrams.connect(target)  # Chooses the network interface, and sends nothing.
        own = datagrams.getsockname()[0]
    with socket.create_server((own, 0), family=family) as server:
        return f"{f'[{own}]' if ':' in own else own}:{server.getsockname()[1]}"


def coordinator_device(strategy: tf.distribute.Strategy) -> str | None:
    """This process's CPU if the variables are on other hosts, which do not see this one's files; None if they are here.

    TensorFlow has to read and write files there: it is an `experimental_io_device`.
    """
    return _cpu(tf.identity(0).device) if _has_remote_devices(strategy) else None


def step_device(strategy: tf.distribute.Strategy) -> str | None:
    """The first host's CPU if the variables are on other hosts; None if they are here.

    Functions that call strategy.run are to be called there: a TPU's compiler is on its hosts, and an inner loop then
    waits for no answer from this process.
    """
    return _cpu(strategy.extended.worker_devices[0]) if _has_remote_devices(strategy) else None


def _has_remote_devices(strategy: tf.distribute.Strategy) -> bool:
    here, there = (_cpu(device) for device in (tf.identity(0).device, strategy.extended.worker_devices[0]))
    return here != there


def _cpu(device: str) -> str:
    """The CPU of the process that has this device."""
    return str(tf.DeviceSpec.from_string(device).replace(device_type="CPU", device_index=0).to_string())

"""The workers of a job on several machines: who they are, and their meeting before TensorFlow starts.

TensorFlow itself waits for a missing worker without a bound, and deaf to SIGTERM; so the workers first meet
here, over plain TCP on the very addresses that TensorFlow will use. There they also compare what they are about to run.
"""

import contextlib
import dataclasses
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

from trainer.errors import UsageError

HANDSHAKE_KEY = "hubtune"
# Seconds between two calls to a worker that has not answered, and for one answer.
POLL_INTERVAL_S, REPLY_TIMEOUT_S = 0.5, 5.0
# Bytes of the longest greeting: a resolved configuration takes about 1,500.
MAX_HANDSHAKE_BYTES = 1 << 16


@dataclasses.dataclass(frozen=True)
class Cluster:
    addresses: tuple[str, ...]  # host:port of every worker, the chief first
    index: int  # of this one

    @property
    def hosts(self) -> set[str]:
        """Names of hosts; this one's loopback has several."""
        names = {address.rpartition(":")[0] for address in self.addresses}
        return {"localhost" if name in ("127.0.0.1", "[::1]") else name for name in names}


def read_cluster(environment: Mapping[str, str]) -> Cluster | None:
    """The cluster that TF_CONFIG, or else Vertex's CLUSTER_SPEC, describes; None if there is neither.

    https://www.tensorflow.org/guide/distributed_training#TF_CONFIG has the one format,
    https://cloud.google.com/vertex-ai/docs/training/distributed-training the other, whose workerpool0 is the chief.
    Vertex sets CLUSTER_SPEC on every machine, TF_CONFIG beside it where there are several; AI Platform set TF_CONFIG
    on every machine.
    Raises UsageError for one that cannot be read.
    """
    for name in ("TF_CONFIG", "CLUSTER_SPEC"):
        if environment.get(name, "").strip():
            cluster = _parse(name, environment[name])
            if cluster:
                return cluster
    return None


def _parse(name: str, value: str) -> Cluster | None:
    """The cluster that the variable `name` describes; None for a job of one machine, which may have it all the same."""
    try:
        described = json.loads(value)
        jobs, task = described.get("cluster") or {}, described.get("task") or {}
        jobs = {job: [str(address) for address in addresses] for job, addresses in jobs.items() if addresses}
        job, index = str(task.get("type", "worker")), int(task.get("index", 0))
    except (ValueError, AttributeError, TypeError) as error:
        raise UsageError(
            f'{name} must be JSON such as {{"cluster": {{"worker": ["host:port", ...]}}, "task": {{"type": "worker", '
            f'"index": 0}}}}. Received: {value[:200]} ({error}).'
        ) from None
    if not jobs:
        return None
    training = [job for job in ("workerpool0", "chief", "master", "worker", "workerpool1") if job in jobs]
    others = sorted(set(jobs) - set(training))
    if others:
        raise UsageError(
            f"{name} must hold workers alone (chief, worker, workerpool0, workerpool1). Received: {', '.join(others)} "
            "too. There are no parameter servers and no evaluator: leave them out of the job."
        )
    if (not task and sum(map(len, jobs.values())) > 1) or job not in jobs or not 0 <= index < len(jobs[job]):
        there = ", ".join(f"{name} 0 to {len(addresses) - 1}" for name, addresses in jobs.items())
        raise UsageError(f"{name} must hold this task's address. Received: task {job} {index} of {there}.")
    addresses = [address for name in training for address in jobs[name]]
    if not all(map(_is_address, addresses)) or len(set(addresses)) < len(addresses):
        raise UsageError(
            f"{name} must hold a host:port for each worker, no two alike. Received: {', '.join(addresses)}."
        )
    return Cluster(tuple(addresses), sum(len(jobs[j]) for j in training[: training.index(job)]) + index)


def _is_address(address: str) -> bool:
    host, _, port = address.rpartition(":")
    return bool(host) and port.isdecimal() and 0 < int(port) < 1 << 16


def wait_for_workers(cluster: Cluster, plans: Mapping[str, Any], timeout: float) -> None:
    """Return once every worker has called every other and all run the same: `plans`, of plain JSON values.

    Raises UsageError, naming the key, if another worker's plans differ, and ValueError, naming the workers that
    are missing, after `timeout` seconds.
    """
    greeting = json.dumps({HANDSHAKE_KEY: cluster.index, "plans": plans}).encode() + b"\n"
    others = set(range(len(cluster.addresses))) - {cluster.index}
    answered: set[int] = set()  # whom we have called
    theirs: dict[int, dict[str, Any]] = {}  # plans
    began = said = time.monotonic()
    with _answering(cluster.addresses[cluster.index], greeting) as callers:
        while True:
            for index in sorted(others - answered):
                answer = _call(cluster.addresses[index], greeting)
                if answer is not None and answer[0] == index:
                    theirs[index] = answer[1]
                    answered.add(index)
                if time.monotonic() - began > timeout:
                    break
            theirs.update({caller: heard for caller, heard in list(callers.items()) if caller in others})
            absent = sorted(others - (answered & callers.keys()))
            waited = time.monotonic() - began
            if not absent or waited > timeout:
                for index in sorted(theirs):  # not before: a worker that left could tell nobody why
                    _check_alike(cluster, plans, index, theirs[index])
            if not absent:
                return
            missing = ", ".join(f"{index} ({cluster.addresses[index]})" for index in absent)
            if waited > timeout:
                raise ValueError(
                    f"Every worker must be reached within {timeout:.0f} s. Received: no answer from worker {missing}. "
                    "Start it, mend its address in TF_CONFIG or CLUSTER_SPEC, or raise --cluster_timeout."
                )
            if time.monotonic() - said > 15:
                said = time.monotonic()
                print(f"waiting for worker {missing}, {waited:.0f} of {timeout:.0f} s", file=sys.stderr)
            time.sleep(POLL_INTERVAL_S)


@contextlib.contextmanager
def _answering(address: str, greeting: bytes) -> Iterator[dict[int, dict[str, Any]]]:
    """Greet whoever calls on this worker's port, in a thread. Yields the callers' plans by index, as they come.

    The port is closed at the end: TensorFlow takes it after that.
    """
    port = int(address.rpartition(":")[2])
    family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
    try:
        listener = socket.create_server(("", port), family=family, dualstack_ipv6=family == socket.AF_INET6)
    except OSError as error:
        raise ValueError(
            f"This worker's port must be free. Received: {address} ({os.strerror(error.errno or 0)}). Another "
            "worker of the same index may be running."
        ) from None
    callers: dict[int, dict[str, Any]] = {}
    ended = threading.Event()

    def answer() -> None:
        while not ended.is_set():
            with contextlib.suppress(OSError):  # TimeoutError among them: nobody has called
                connection, _ = listener.accept()
                with connection:
                    caller = _exchange(connection, greeting)
                    if caller:
                        callers[caller[0]] = caller[1]

    listener.settimeout(POLL_INTERVAL_S)
    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    try:
        yield callers
    finally:
        ended.set()
        thread.join()
        listener.close()


def _call(address: str, greeting: bytes) -> tuple[int, dict[str, Any]] | None:
    """Greet a worker; its index and plans, or None if it is not there, or not at the meeting."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=REPLY_TIMEOUT_S) as connection:
            return _exchange(connection, greeting)
    except OSError:
        return None


def _exchange(connection: socket.socket, greeting: bytes) -> tuple[int, dict[str, Any]] | None:
    """Say who we are and hear who they are; None if they are not at the meeting: TensorFlow's server, say."""
    until = time.monotonic() + REPLY_TIMEOUT_S
    connection.settimeout(REPLY_TIMEOUT_S)
    connection.sendall(greeting)
    line = b""
    while not line.endswith(b"\n") and len(line) < MAX_HANDSHAKE_BYTES:
        connection.settimeout(max(until - time.monotonic(), 0.001))
        more = connection.recv(MAX_HANDSHAKE_BYTES)
        if not more:
            break
        line += more
    try:
        said = json.loads(line)
        index, plans = said[HANDSHAKE_KEY], dict(said["plans"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return (index, plans) if isinstance(index, int) else None


def _check_alike(cluster: Cluster, ours: Mapping[str, Any], index: int, theirs: Mapping[str, Any]) -> None:
    different = [
        f"{key}: {ours.get(key)} here, {theirs.get(key)} there"
        for key in sorted({*ours, *theirs})
        if ours.get(key) != theirs.get(key)
    ]
    if different:
        raise UsageError(
            f"Every worker must run the same configuration on the same data. Received: worker {index} "
            f"({cluster.addresses[index]}) with another ({'; '.join(different)}). Give all workers the same flags."
        )

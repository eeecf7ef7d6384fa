"""The workers of a job: who they are, and their rendezvous before TensorFlow starts.

TensorFlow waits for a missing worker without end, and without handling SIGTERM. So the workers first connect here, over
plain TCP on the addresses that TensorFlow will use, and compare what they are about to run.
"""

import contextlib
import dataclasses
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

from trainer.errors import Problem, UsageError, UserError

# The keys of a handshake, which is one line of JSON.
INDEX_KEY, SIGNATURE_KEY = "hubtune", "job_signature"
# Between two calls to a worker that has not answered; for one answer; between two lines of the log.
POLL_INTERVAL_S, REPLY_TIMEOUT_S, LOG_INTERVAL_S = 0.5, 5.0, 15.0
# The signature of a resolved configuration takes about 1,500 bytes.
MAX_HANDSHAKE_BYTES = 1 << 16

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The workers of a job, as one of them sees it."""

    addresses: tuple[str, ...]  # The host:port of every worker; the chief's is first.
    index: int  # This worker's place among the addresses.

    @property
    def hosts(self) -> set[str]:
        """The different hosts. The names of the loopback count as one."""
        names = {address.rpartition(":")[0] for address in self.addresses}
        return {"localhost" if name in ("127.0.0.1", "[::1]") else name for name in names}


def read_cluster(environment: Mapping[str, str]) -> Cluster | None:
    """The cluster that TF_CONFIG, or else Vertex AI's CLUSTER_SPEC, describes; None if there is neither.

    https://www.tensorflow.org/guide/distributed_training#TF_CONFIG describes the one format,
    https://cloud.google.com/vertex-ai/docs/training/distributed-training the other, whose workerpool0 is the chief.
    Vertex AI sets CLUSTER_SPEC in every job, and TF_CONFIG too if there are several workers; AI Platform set TF_CONFIG
    in every job. Raises UsageError for a value that cannot be read.
    """
    for variable in ("TF_CONFIG", "CLUSTER_SPEC"):
        if environment.get(variable, "").strip():
            cluster = _parse(variable, environment[variable])
            if cluster:
                return cluster
    return None


def _parse(variable: str, value: str) -> Cluster | None:
    """The cluster that a variable describes; None if it names no workers, as for a job on one host."""
    try:
        described = json.loads(value)
        jobs, task = described.get("cluster") or {}, described.get("task") or {}
        jobs = {job: [str(address) for address in addresses] for job, addresses in jobs.items() if addresses}
        job, index = str(task.get("type", "worker")), int(task.get("index", 0))
    except (ValueError, AttributeError, TypeError) as error:
        example = '{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}'
        raise UsageError(Problem(variable, f"be JSON such as {example}", f"{value[:200]} ({error})")) from None
    if not jobs:
        return None
    training = [job for job in ("workerpool0", "chief", "master", "worker", "workerpool1") if job in jobs]
    others = sorted(set(jobs) - set(training))
    if others:
        required = "hold nothing but workers (chief, worker, workerpool0, workerpool1)"
        advice = "There are no parameter servers and no evaluator: leave them out of the job."
        raise UsageError(Problem(variable, required, f"also {', '.join(others)}", advice))
    if (not task and sum(map(len, jobs.values())) > 1) or job not in jobs or not 0 <= index < len(jobs[job]):
        known = ", ".join(f"{name} 0 to {len(addresses) - 1}" for name, addresses in jobs.items())
        raise UsageError(Problem(variable, "hold this task's address", f"task {job} {index} of {known}"))
    addresses = [address for name in training for address in jobs[name]]
    if not all(map(_is_address, addresses)) or len(set(addresses)) < len(addresses):
        raise UsageError(Problem(variable, "hold a different host:port for each worker", ", ".join(addresses)))
    return Cluster(tuple(addresses), sum(len(jobs[j]) for j in training[: training.index(job)]) + index)


def _is_address(address: str) -> bool:
    host, _, port = address.rpartition(":")
    return bool(host) and port.isdecimal() and 0 < int(port) < 1 << 16


def wait_for_workers(cluster: Cluster, job_signature: Mapping[str, Any], timeout_s: float) -> None:
    """Return once every worker has reached every other one and all have the same job signature.

    `job_signature` maps names to plain JSON values. Raises UsageError, with the names that differ, if another worker
    has another one, and UserError, with the workers that are missing, after `timeout_s`.
    """
    handshake = json.dumps({INDEX_KEY: cluster.index, SIGNATURE_KEY: job_signature}).encode() + b"\n"
    others = set(range(len(cluster.addresses))) - {cluster.index}
    reached: set[int] = set()  # The workers that have answered our call; `callers` are those that have called us.
    signatures: dict[int, dict[str, Any]] = {}
    started = logged = time.monotonic()
    with _listen(cluster.addresses[cluster.index], handshake) as callers:
        while True:
            for index in sorted(others - reached):
                answer = _call(cluster.addresses[index], handshake)
                if answer is not None and answer[0] == index:
                    signatures[index] = answer[1]
                    reached.add(index)
                if time.monotonic() - started > timeout_s:
                    break
            signatures.update({caller: theirs for caller, theirs in list(callers.items()) if caller in others})
            absent = sorted(others - (reached & callers.keys()))
            waited_s = time.monotonic() - started
            if not absent or waited_s > timeout_s:
                for index in sorted(signatures):  # Not earlier: a worker that left could not tell the others why.
                    _check_signature(cluster, job_signature, index, signatures[index])
            if not absent:
                return
            missing = ", ".join(f"{index} ({cluster.addresses[index]})" for index in absent)
            if waited_s > timeout_s:
                required, received = f"be reached within {timeout_s:.0f} s", f"no answer from worker {missing}"
                advice = "Start it, correct its address in TF_CONFIG or CLUSTER_SPEC, or raise --cluster_timeout."
                raise UserError(Problem("Every worker", required, received, advice))
            if time.monotonic() - logged > LOG_INTERVAL_S:
                logged = time.monotonic()
                _LOG.info("waiting for worker %s, %.0f of %.0f s", missing, waited_s, timeout_s)
            time.sleep(POLL_INTERVAL_S)


@contextlib.contextmanager
def _listen(address: str, handshake: bytes) -> Iterator[dict[int, dict[str, Any]]]:
    """Answer calls on this worker's port, in a thread. Yields a dictionary, callers' index -> signature, that it fills.

    The port is closed at the end, so that TensorFlow can use it.
    """
    port = int(address.rpartition(":")[2])
    family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
    try:
        listener = socket.create_server(("", port), family=family, dualstack_ipv6=family == socket.AF_INET6)
    except OSError as error:
        received = f"{address} ({os.strerror(error.errno or 0)})"
        advice = "Another worker of the same index may be running."
        raise UserError(Problem("This worker's port", "be free", received, advice)) from None
    callers: dict[int, dict[str, Any]] = {}
    ended = threading.Event()

    def answer() -> None:
        while not ended.is_set():
            with contextlib.suppress(OSError):  # Among them TimeoutError, if nobody has called.
                connection, _ = listener.accept()
                with connection:
                    caller = _exchange(connection, handshake)
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


def _call(address: str, handshake: bytes) -> tuple[int, dict[str, Any]] | None:
    """Call a worker. Returns its index and signature; None if it does not answer with a handshake."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=REPLY_TIMEOUT_S) as connection:
            return _exchange(connection, handshake)
    except OSError:
        return None


def _exchange(connection: socket.socket, handshake: bytes) -> tuple[int, dict[str, Any]] | None:
    """Send our handshake and read theirs. None if it is none: another server may listen on that port."""
    deadline = time.monotonic() + REPLY_TIMEOUT_S
    connection.settimeout(REPLY_TIMEOUT_S)
    connection.sendall(handshake)
    line = b""
    while not line.endswith(b"\n") and len(line) < MAX_HANDSHAKE_BYTES:
        connection.settimeout(max(deadline - time.monotonic(), 0.001))
        more = connection.recv(MAX_HANDSHAKE_BYTES)
        if not more:
            break
        line += more
    try:
        theirs = json.loads(line)
        index, signature = theirs[INDEX_KEY], dict(theirs[SIGNATURE_KEY])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return (index, signature) if isinstance(index, int) else None


def _check_signature(cluster: Cluster, ours: Mapping[str, Any], index: int, theirs: Mapping[str, Any]) -> None:
    different = [
        f"{name}: {ours.get(name)} here, {theirs.get(name)} there"
        for name in sorted({*ours, *theirs})
        if ours.get(name) != theirs.get(name)
    ]
    if different:
        required = "run the same configuration on the same data"
        received = f"worker {index} ({cluster.addresses[index]}) with another ({'; '.join(different)})"
        raise UsageError(Problem("Every worker", required, received, "Start all workers with the same flags."))

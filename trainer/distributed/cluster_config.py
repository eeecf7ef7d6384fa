"""The workers of a job, and which of them this process is, as the environment describes them."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from trainer.errors import Problem, UsageError

CHIEFS = ("chief", "master", "workerpool0")
# The jobs whose tasks train, in the order of their workers.
TRAINING_JOBS = (*CHIEFS, "worker", "workerpool1")
KNOWN_JOBS = {*TRAINING_JOBS, "ps", "evaluator", "workerpool2", "workerpool3"}
_EXAMPLE = '{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}'
_NO_OTHERS = "There are no parameter servers and no evaluator (the chief evaluates): leave them out of the job."
# Kubeflow's training operator writes it for a TFJob with enableDynamicWorker: as `sparseCluster`, since 1.7 as
# `cluster` (https://github.com/kubeflow/trainer/pull/1798). It names this worker alone, by its index.
_NOT_DYNAMIC = "Set enableDynamicWorker: false in a TFJob. It names one worker alone, which would train by itself."


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The workers of a job, as one of them sees it."""

    addresses: tuple[str, ...]  # The host:port of every worker; the chief's is first.
    index: int  # This worker's place among the addresses.


def read_cluster(environment: Mapping[str, str]) -> Cluster | None:
    """The cluster that TF_CONFIG, or else Vertex AI's CLUSTER_SPEC, describes; None if there is neither.

    https://www.tensorflow.org/guide/distributed_training#TF_CONFIG describes the one format,
    https://cloud.google.com/vertex-ai/docs/training/distributed-training the other, whose workerpool0 is the chief.
    Vertex AI sets CLUSTER_SPEC in every job, and TF_CONFIG too if there are several workers; AI Platform set TF_CONFIG
    in every job; Kubeflow sets it in a TFJob of several replicas. Raises UsageError for a value that cannot be read, or
    that does not name every worker: a worker that took itself for the only one would be a second writer.
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
        _check_keys(variable, described)
        named, task = described.get("cluster") or {}, described.get("task") or {}
        sparse = [job for job, addresses in named.items() if isinstance(addresses, dict)]
        if sparse:
            received = f"{json.dumps({job: named[job] for job in sparse})[:200]} in its cluster"
            raise UsageError(Problem(variable, "list the addresses of all workers", received, _NOT_DYNAMIC))
        jobs = {job: [str(address) for address in addresses] for job, addresses in named.items() if addresses}
        job, index = str(task.get("type", "worker")), _read_index(task)
    except UsageError:
        raise
    except (ValueError, AttributeError, TypeError) as error:
        raise UsageError(Problem(variable, f"be JSON such as {_EXAMPLE}", f"{value[:200]} ({error})")) from None
    _check_jobs(variable, jobs, job)
    if not jobs:
        if named or index:  # Other tasks exist, and are not named.
            received = f"task {job} {index or 0}, without an address of any"
            raise UsageError(Problem(variable, "list the addresses of all workers", received))
        return None
    _check_task(variable, jobs, job, index, bool(task))
    training = [job for job in TRAINING_JOBS if job in jobs]
    addresses = [address for name in training for address in jobs[name]]
    _check_addresses(variable, addresses)
    return Cluster(tuple(addresses), sum(len(jobs[j]) for j in training[: training.index(job)]) + (index or 0))


def _read_index(task: Mapping[str, Any]) -> int | None:
    """The task's index, a number or its digits; None if it has none. Raises ValueError for anything else."""
    index = task.get("index") if "index" in task else ""
    if index == "":
        return None
    if isinstance(index, bool) or not isinstance(index, int | str):
        raise ValueError(f"the index {index!r}")
    return int(index)


def _check_keys(variable: str, described: Mapping[str, Any]) -> None:
    """Raises UsageError for a key beside `cluster` that says who the workers are: without it the job is another one.

    What the services and TensorFlow add says nothing of that: environment, rpc_layer, job (as it was submitted).
    """
    others = [
        key
        for key, value in described.items()
        if key not in ("cluster", "task", "job")
        and ("cluster" in key.lower() or "worker" in key.lower() or (isinstance(value, dict) and KNOWN_JOBS & {*value}))
    ]
    if others:
        advice = _NOT_DYNAMIC if any("sparse" in key.lower() for key in others) else f"Write {_EXAMPLE}."
        raise UsageError(Problem(variable, "describe the workers in `cluster` alone", ", ".join(others), advice))


def _check_jobs(variable: str, jobs: Mapping[str, list[str]], job: str) -> None:
    """Raises UsageError for jobs that do not train, also this task's own, and for more than one chief."""
    others = sorted({*jobs} - {*TRAINING_JOBS})
    if others:
        required = "hold nothing but workers (chief, worker, workerpool0, workerpool1)"
        raise UsageError(Problem(variable, required, f"also {', '.join(others)}", _NO_OTHERS))
    if job in KNOWN_JOBS - {*TRAINING_JOBS}:  # An evaluator is not in the cluster, by Kubeflow and by TensorFlow.
        raise UsageError(Problem(variable, "be that of a worker", f"the task {job}", _NO_OTHERS))
    chiefs = [name for name in CHIEFS if name in jobs]
    if sum(len(jobs[name]) for name in chiefs) > 1:
        received = ", ".join(f"{name} {', '.join(jobs[name])}" for name in chiefs)
        raise UsageError(Problem(variable, "name one chief", received, "Make the others workers."))


def _check_task(variable: str, jobs: Mapping[str, list[str]], job: str, index: int | None, has_task: bool) -> None:
    """Raises UsageError unless the task is one of the jobs', and says which."""
    several = sum(map(len, jobs.values())) > 1
    unsaid = several and (not has_task or (index is None and len(jobs.get(job, ())) > 1))
    if unsaid or job not in jobs or not 0 <= (index or 0) < len(jobs[job]):
        known = ", ".join(f"{name} 0 to {len(addresses) - 1}" for name, addresses in jobs.items())
        task = f"task {job} {index or 0}" if not unsaid else "no task" if not has_task else f"task {job} without index"
        raise UsageError(Problem(variable, "hold this task's address", f"{task} of {known}"))


def _check_addresses(variable: str, addresses: list[str]) -> None:
    schemes = [address for address in addresses if "://" in address]
    if schemes:
        advice = f"Drop the scheme: {schemes[0].partition('://')[2].rstrip('/')}."
        raise UsageError(Problem(variable, "hold addresses as host:port", ", ".join(schemes), advice))
    if not all(map(_is_address, addresses)) or len({*addresses}) < len(addresses):
        raise UsageError(Problem(variable, "hold a different host:port for each worker", ", ".join(addresses)))


def _is_address(address: str) -> bool:
    host, _, port = address.rpartition(":")
    plain = host and not any(character in "/@," or character.isspace() for character in address)
    bracketed = (host.startswith("[") and host.endswith("]")) or ":" not in host
    return bool(plain and bracketed and port.isascii() and port.isdecimal() and 0 < int(port) < 1 << 16)


def split_address(address: str) -> tuple[str, int]:
    """The host and the port of HOST:PORT. A host of IPv6 loses its brackets."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)

"""The machines that the flags name: found in what Vertex AI offers, and held against it."""

import dataclasses
import difflib
from collections.abc import Iterable, Mapping

from trainer.cloud.machine_types import (
    ACCELERATORS,
    ATTACHED,
    CLOUD_TPU,
    GPU_TYPES,
    NO_TENSORFLOW,
    REGIONS,
    SHORT,
    TPU_CORES,
    TYPES,
    V5E,
    Host,
)

PAGE = "https://cloud.google.com/vertex-ai/docs/training/configure-compute"


def listed(accelerator: str) -> str:
    """As REGIONS has it."""
    return accelerator.removeprefix("NVIDIA_").removeprefix("TESLA_")


def chosen(
    machine: str,
    accelerator: str = "",
    topology: str = "",
    replicas: int | None = None,
    short: Mapping[str, tuple[Host, int]] = SHORT,
) -> tuple[Host, int]:
    """The host that the flags name, with what they imply, and how many; `check` says what is wrong with it.

    `accelerator`: NVIDIA_TESLA_T4 or NVIDIA_TESLA_T4:2; T4:2 will do. `short`: what short names stand for.
    """
    host, usual = short.get(machine, (Host(machine), 1))
    if accelerator:
        name, _, count = accelerator.partition(":")
        full = {listed(known): known for known in ACCELERATORS}.get(name.upper(), name.upper().replace("-", "_"))
        if count and not count.isdecimal():
            full, count = accelerator, ""  # which check does not know
        host = dataclasses.replace(host, accelerator=full, count=int(count or (TPU_CORES if host.tpu else 1)))
    elif host.type in GPU_TYPES:
        name, gpus = GPU_TYPES[host.type]
        host = dataclasses.replace(host, accelerator=name, count=gpus)
    single = [name for name, hosts in V5E.get(host.type, {}).items() if hosts == 1]
    host = dataclasses.replace(host, topology=topology or "".join(single))
    return host, usual if replicas is None else replicas


def strategy(host: Host, replicas: int) -> str:
    """trainer.task's --strategy for `replicas` such hosts; for one GPU too it is one that does not do without."""
    if host.tpu:
        return "tpu"
    if replicas > 1:
        return "multi_worker"
    return "mirrored" if host.count else "cpu"


def nearest(name: str, known: Iterable[str], otherwise: str | None = None) -> str:
    """For the end of a message: the nearest that is known, or all of them, or `otherwise`."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if near:
        return f"; the nearest is {near[0]}"
    return f"; there are {', '.join(names)}" if otherwise is None else otherwise


def check(host: Host, replicas: int, region: str) -> list[str]:
    """What is wrong with so many such hosts there, a message each; empty if nothing is."""
    found = _check_tpu(host, replicas) if host.tpu else _check_gpu(host)
    if host.type.startswith(NO_TENSORFLOW):
        found = [
            "--machine must be one that runs TensorFlow. Received: "
            f"{host.type}; from TPU v6e on, Vertex AI has no TensorFlow. Take tpu_v5e, tpu_v3 or tpu_v2, or a GPU."
        ]
    elif host.type not in TYPES:
        near = nearest(host.type, [*SHORT, *TYPES], f"; take {', '.join(SHORT)}, or a type of {PAGE}")
        found = [f"--machine must be a machine type of Vertex AI. Received: {host.type}{near}."]
    if replicas < 1:
        found.append(f"--replicas must be at least 1. Received: {replicas}.")
    if host.topology and host.type not in V5E:
        found.append(f"--tpu_topology is for a TPU v5e ({', '.join(V5E)}). Received: {host.topology} for {host.type}.")
    if region not in REGIONS:
        return [*found, f"--region must be a region of Vertex AI. Received: {region}{nearest(region, REGIONS)}."]
    return found or _check_region("TPU_V5E" if host.type in V5E else host.accelerator, region)


def _check_region(accelerator: str, region: str) -> list[str]:
    name = listed(accelerator)
    if not accelerator or name in REGIONS[region].split():
        return []
    others = [other for other, there in REGIONS.items() if name in there.split()]
    there = REGIONS[region].replace(" ", ", ") or "no accelerator at all"
    return [
        f"--region must have {accelerator} for training: {', '.join(others)}. Received: {region}, which has {there}. "
        "Change --region or --machine."
    ]


def _check_gpu(host: Host) -> list[str]:
    if host.type in GPU_TYPES:
        name, count = GPU_TYPES[host.type]
        if (host.accelerator, host.count) == (name, count):
            return []
        given = f"{host.accelerator}:{host.count}"
        return [f"--accelerator must be left out with {host.type}, which comes with {name}:{count}. Received: {given}."]
    if not host.accelerator:
        return []
    if host.accelerator not in ACCELERATORS:
        near = nearest(host.accelerator, ACCELERATORS)
        return [f"--accelerator must be one of Vertex AI's. Received: {host.accelerator}{near}."]
    if host.accelerator not in ATTACHED:
        homes = [name for name, (gpu, _) in GPU_TYPES.items() if gpu == host.accelerator] or [CLOUD_TPU]
        return [
            f"--machine must be one that has {host.accelerator}: {', '.join(homes)}. Received: {host.type}. "
            "Change --machine or --accelerator."
        ]
    if not host.type.startswith("n1-"):
        return [f"--machine must be an n1 machine to take {host.accelerator}. Received: {host.type}."]
    size = int(host.type.rsplit("-", 1)[1]) if host.type in TYPES else 8
    counts = next(counts for most, counts in ATTACHED[host.accelerator].items() if size <= most)
    if host.count not in counts:
        wanted = " or ".join(f"{host.accelerator}:{count}" for count in counts)
        return [f"--accelerator must be {wanted} with {host.type}. Received: {host.accelerator}:{host.count}."]
    return []


def _check_tpu(host: Host, replicas: int) -> list[str]:
    found = []
    if replicas > 1:
        found.append(f"--replicas must be 1 with a TPU. Received: {replicas}.")
    if host.type == CLOUD_TPU:
        given = f"{host.accelerator}:{host.count}" if host.accelerator else "none"
        if given not in (f"TPU_V2:{TPU_CORES}", f"TPU_V3:{TPU_CORES}"):
            found.append(
                f"--accelerator must be TPU_V2:{TPU_CORES} or TPU_V3:{TPU_CORES} with {CLOUD_TPU}: one host, since the "
                f"batches are made in one process. Received: {given}."
            )
        return found
    if host.accelerator:
        found.append(f"--accelerator must be left out with {host.type}. Received: {host.accelerator}:{host.count}.")
    topologies = V5E[host.type]
    if host.topology not in topologies:
        wanted = " or ".join(topologies)
        found.append(f"--tpu_topology must be {wanted} with {host.type}. Received: {host.topology}.")
    elif topologies[host.topology] > 1:
        one = next(name for name, hosts in topologies.items() if hosts == 1)
        found.append(
            f"--tpu_topology must be of one host, since the batches are made in one process: {one} with {host.type}, "
            f"or 2x4 with ct5lp-hightpu-8t. Received: {host.topology}, which has {topologies[host.topology]} hosts."
        )
    return found

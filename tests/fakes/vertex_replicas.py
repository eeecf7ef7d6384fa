"""What Vertex AI starts on each machine of a CustomJob: its command and its environment.

The environment is documented in
https://cloud.google.com/vertex-ai/docs/training/code-requirements (AIP_*) and
https://cloud.google.com/vertex-ai/docs/training/distributed-training (CLUSTER_SPEC, TF_CONFIG).
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

PORT = 2222


@dataclass(frozen=True)
class Replica:
    pool: int
    index: int  # In its pool.
    command: list[str]
    environment: dict[str, str]


def default_address(pool: int, index: int) -> str:
    """A replica's address for the others, as in the documentation's example."""
    return f"cmle-training-workerpool{pool}-ab-{index}:{PORT}"


def replicas(
    job: Mapping, address: Callable[[int, int], str] = default_address, trial: str | None = None
) -> list[Replica]:
    """Each replica of a CustomJob in its JSON mapping, the chief first.

    `address` gives a replica's host:port, by pool and index. `trial`: the id of a tuning job's trial.
    """
    spec = job["jobSpec"]
    pools = spec["workerPoolSpecs"]
    places = [(pool, index) for pool, described in enumerate(pools) for index in range(int(described["replicaCount"]))]
    started = []
    for pool, index in places:
        container = pools[pool]["containerSpec"]
        given = {variable["name"]: variable["value"] for variable in container.get("env", [])}
        cluster = _cluster(spec, places, (pool, index), address, trial)
        started.append(
            Replica(
                pool,
                index,
                [*container.get("command", []), *container.get("args", [])],
                {**_folders(spec, trial), **cluster, **given},
            )
        )
    return started


def _folders(spec: Mapping, trial: str | None) -> dict[str, str]:
    base = spec.get("baseOutputDirectory", {}).get("outputUriPrefix", "").rstrip("/")
    if not base:
        return {}
    base = f"{base}/{trial}" if trial else base
    return {
        "AIP_MODEL_DIR": f"{base}/model/",
        "AIP_CHECKPOINT_DIR": f"{base}/checkpoints/",
        "AIP_TENSORBOARD_LOG_DIR": f"{base}/logs/",
    }


def _cluster(
    spec: Mapping,
    places: list[tuple[int, int]],
    own: tuple[int, int],
    address: Callable[[int, int], str],
    trial: str | None,
) -> dict[str, str]:
    """CLUSTER_SPEC, and with several replicas also TF_CONFIG, which names the pools differently."""
    pools = sorted({pool for pool, _ in places})
    addresses = {pool: [address(*place) for place in places if place[0] == pool] for pool in pools}
    common = {"environment": "cloud", "job": spec}
    extra = {"trial": trial} if trial else {}
    described = {
        "cluster": {f"workerpool{pool}": names for pool, names in addresses.items()},
        "task": {"type": f"workerpool{own[0]}", "index": own[1], **extra},
        **common,
    }
    variables = {"CLUSTER_SPEC": json.dumps(described)}
    if len(places) > 1:
        role = ["chief", "worker", "ps", "evaluator"]
        described = {
            # An evaluator is never part of the cluster.
            "cluster": {role[pool]: names for pool, names in addresses.items() if pool < 3},
            "task": {"type": role[own[0]], "index": own[1], "cloud": "ab", **extra},
            **common,
        }
        variables["TF_CONFIG"] = json.dumps(described)
    return variables

"""A Vertex AI job as plain data: CustomJob in the JSON mapping of its proto, which is what is printed and submitted.

https://cloud.google.com/vertex-ai/docs/reference/rest/v1/projects.locations.customJobs has every field.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from trainer.cloud.machine_types import Host
from trainer.config import schema
from trainer.config.schema import Config

COMMAND = ("python", "-m", "trainer.task")
# The trainer finds the TPU of its own host by the first; the rest is what v5e wants of TensorFlow:
# https://cloud.google.com/vertex-ai/docs/training/training-with-tpu-vm and https://cloud.google.com/tpu/docs/runtimes
TPU = {"TPU_NAME": "local"}
TPU_V5E = {
    **TPU,
    "PJRT_DEVICE": "TPU",
    "NEXT_PLUGGABLE_DEVICE_USE_C_API": "true",
    "TF_PLUGGABLE_DEVICE_LIBRARY_PATH": "/lib/libtpu.so",
}
# Vertex takes most codes for an error of the program, and ends the job; after this one it starts the worker again:
# https://cloud.google.com/vertex-ai/docs/training/understanding-training-service
STOPPED = {"STOPPED_CODE": "134"}


def task_flags(config: Config, strategy: str) -> list[str]:
    """What trainer.task has to be told for the same run: the paths, and each key that is not at its default.

    As flags and not as a file, so that the job is the whole of its configuration.
    """
    keys = dict(schema.flatten(dataclasses.asdict(config)))
    paths = {name: keys.pop(name) for name in ("data_dir", "encoder")}
    changed = {key: value for key, value in keys.items() if value != schema.DEFAULTS[key]}
    return [
        f"--strategy={strategy}",
        *(f"--{name}={path}" for name, path in paths.items()),
        *(f"--set={key}={_text(value)}" for key, value in changed.items()),
    ]


def _text(value: Any) -> str:
    """As --set reads it."""
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def custom_job(
    *,
    name: str,
    host: Host,
    replicas: int,
    image: str,
    flags: Sequence[str],
    base_output_directory: str,
    spot: bool = False,
    restarts: bool = True,
    timeout: float = 7 * 86400,
    service_account: str = "",
    network: str = "",
    labels: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """A CustomJob of `replicas` machines like `host`, each of which runs trainer.task with `flags`.

    The first machine is a pool of its own, as the service wants it: the chief. `timeout` is in seconds.
    """
    counts = [1, *([replicas - 1] if replicas > 1 else [])]
    pools = [
        {
            "machineSpec": machine_spec(host),
            "replicaCount": count,
            "containerSpec": {"imageUri": image, "command": list(COMMAND), "args": list(flags), **_environment(host)},
        }
        for count in counts
    ]
    spec = {
        "workerPoolSpecs": pools,
        "scheduling": {
            "timeout": f"{timeout:.0f}s",
            "restartJobOnWorkerRestart": restarts,
            **({"strategy": "SPOT"} if spot else {}),
        },
        "serviceAccount": service_account,
        "network": network,
        "baseOutputDirectory": {"outputUriPrefix": base_output_directory},
    }
    job = {"displayName": name, "jobSpec": {key: value for key, value in spec.items() if value}}
    return {**job, "labels": dict(labels)} if labels else job


def machine_spec(host: Host) -> dict[str, Any]:
    spec = {"machineType": host.type, "acceleratorType": host.accelerator, "acceleratorCount": host.count}
    return {key: value for key, value in {**spec, "tpuTopology": host.topology}.items() if value}


def _environment(host: Host) -> dict[str, Any]:
    variables = STOPPED | (TPU_V5E if host.topology else TPU if host.tpu else {})
    return {"env": [{"name": key, "value": value} for key, value in variables.items()]}

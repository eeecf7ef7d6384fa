"""A Vertex AI job as plain data: CustomJob in the JSON mapping of its proto, which is what is printed and submitted.

https://cloud.google.com/vertex-ai/docs/reference/rest/v1/projects.locations.customJobs has every field.
"""

from typing import Any

from trainer.cloud.job_request import JobRequest
from trainer.cloud.machine_types import Machine
from trainer.config import loading
from trainer.config.schema import Config
from trainer.distributed import tpu_probe
from trainer.errors import STOPPED_CODE_VARIABLE
from trainer.runtime.tensorflow_variables import ONEDNN_VARIABLES

TRAINER_COMMAND = ("python", "-m", "trainer.task")
# TPU_NAME has the trainer use the TPU of its own host. TensorFlow needs the other variables on a TPU v5e:
# https://cloud.google.com/vertex-ai/docs/training/training-with-tpu-vm and https://cloud.google.com/tpu/docs/runtimes
_TPU_VARIABLES = {"TPU_NAME": "local"}
_TPU_V5E_VARIABLES = {
    **_TPU_VARIABLES,
    **tpu_probe.TPU_VARIABLES,
    "TF_PLUGGABLE_DEVICE_LIBRARY_PATH": "/lib/libtpu.so",
}
# Vertex AI ends a job after most exit codes. After this one it starts the worker again:
# https://cloud.google.com/vertex-ai/docs/training/understanding-training-service
RESTART_EXIT_CODE = "134"


def changed_keys(config: Config) -> list[str]:
    """Each key of the configuration that is not at its default, as the "section.key=value" of --set; paths apart."""
    return [
        f"{key}={loading.format_value(value)}"
        for key, value in loading.changed_settings(config).items()
        if key not in ("data_dir", "encoder")
    ]


def trainer_flags(request: JobRequest) -> list[str]:
    """The flags of trainer.task on each machine.

    They hold the complete configuration, so that the job that is printed is all of what runs.
    """
    return [
        f"--strategy={request.strategy}",
        f"--data_dir={request.config.data_dir}",
        f"--encoder={request.config.encoder}",
        *(f"--set={change}" for change in changed_keys(request.config)),
    ]


def build_custom_job(request: JobRequest) -> dict[str, Any]:
    """A CustomJob whose machines each run trainer.task. The chief is a worker pool of its own, as the service wants."""
    pools = [_build_worker_pool(request, 1)]
    if request.replicas > 1:
        pools.append(_build_worker_pool(request, request.replicas - 1))
    scheduling = {"timeout": f"{request.timeout_s:.0f}s", "restartJobOnWorkerRestart": request.restarts}
    spec = {
        "workerPoolSpecs": pools,
        "scheduling": {**scheduling, "strategy": "SPOT"} if request.spot else scheduling,
        "serviceAccount": request.service_account,
        "network": request.network,
        "baseOutputDirectory": {"outputUriPrefix": request.base_output_directory},
    }
    job = {"displayName": request.name, "jobSpec": {key: value for key, value in spec.items() if value}}
    return {**job, "labels": dict(request.labels)} if request.labels else job


def _build_worker_pool(request: JobRequest, replicas: int) -> dict[str, Any]:
    """A WorkerPoolSpec."""
    container = {
        "imageUri": request.image,
        "command": list(TRAINER_COMMAND),
        "args": trainer_flags(request),
        "env": _environment(request),
    }
    return {
        "machineSpec": build_machine_spec(request.machine),
        "replicaCount": replicas,
        "containerSpec": container,
    }


def build_machine_spec(machine: Machine) -> dict[str, Any]:
    """A MachineSpec."""
    spec = {
        "machineType": machine.machine_type,
        "acceleratorType": machine.accelerator_type,
        "acceleratorCount": machine.accelerator_count,
        "tpuTopology": machine.tpu_topology,
    }
    return {key: value for key, value in spec.items() if value}


def _environment(request: JobRequest) -> list[dict[str, str]]:
    machine = request.machine
    tpu = _TPU_V5E_VARIABLES if machine.tpu_topology else _TPU_VARIABLES if machine.has_tpu else {}
    variables = {STOPPED_CODE_VARIABLE: RESTART_EXIT_CODE, **ONEDNN_VARIABLES, **tpu, **request.variables}
    return [{"name": key, "value": value} for key, value in variables.items()]

"""AI Platform Training's contract: the gcloud command that submitted a job there, until Google ended the service.

Flags: https://cloud.google.com/sdk/gcloud/reference/ai-platform/jobs/submit/training
End: https://cloud.google.com/ai-platform/training/docs/deprecations
"""

import re

from trainer.cloud import job_spec
from trainer.cloud.job_request import JobRequest
from trainer.cloud.machine_types import Machine, MachineNames
from trainer.errors import Problem

DEPRECATION = (
    "Google ended AI Platform Training on 2025-01-31: https://cloud.google.com/ai-platform/training/docs/deprecations. "
    "Vertex AI replaces it: change --target=ai_platform to --target=vertex. (Its runtimes had Python 3.7, and this "
    "package needs 3.11.)"
)
# From 2.1 on with Python 3.7 alone: https://cloud.google.com/ai-platform/training/docs/tensorflow-2
RUNTIME_VERSION, PYTHON_VERSION = "2.11", "3.7"
# The short names for --machine: the service had no L4 and no TPU v5e.
SHORT_NAMES: MachineNames = {
    "cpu": (Machine("n1-standard-8"), 1),
    "gpu": (Machine("n1-standard-8", "NVIDIA_TESLA_T4", 1), 1),
    "gpus": (Machine("n1-standard-16", "NVIDIA_TESLA_T4", 2), 1),
    "workers": (Machine("n1-standard-8", "NVIDIA_TESLA_T4", 1), 2),
}


def find_problems(request: JobRequest) -> list[Problem]:
    """What Vertex AI takes and this service did not."""
    problems = []
    if not re.fullmatch(r"[a-zA-Z][a-zA-Z0-9_]*", request.name):
        problems.append(Problem("--name", "be letters, digits and underscores on AI Platform", request.name))
    if request.machine.machine_type.partition("-")[0] not in ("n1", "n2", "e2", "c2", "a2"):
        required = "be an n1, n2, e2, c2 or a2 machine on AI Platform"
        advice = "Use --machine=n1-standard-8 --accelerator=NVIDIA_TESLA_T4."
        problems.append(Problem("--machine", required, request.machine.machine_type, advice))
    return problems


def build_command(request: JobRequest) -> list[str]:
    """gcloud's arguments for the job, each of whose machines runs trainer.task.

    The service itself adds --job-dir to the trainer's flags.
    """
    machine = request.machine
    accelerator = ""
    if machine.accelerator_type:
        accelerator = f"count={machine.accelerator_count},type={machine.accelerator_type.lower().replace('_', '-')}"
    machines = {"master-machine-type": machine.machine_type, "master-accelerator": accelerator}
    if request.replicas > 1:
        machines |= {
            "worker-count": str(request.replicas - 1),
            "worker-machine-type": machine.machine_type,
            "worker-accelerator": accelerator,
            "use-chief-in-tf-config": "true",
        }
    named = {
        "package-path": "trainer",
        "module-name": "trainer.task",
        "job-dir": request.base_output_directory,
        "runtime-version": RUNTIME_VERSION,
        "python-version": PYTHON_VERSION,
        "scale-tier": "custom",
        **machines,
        "region": request.region,
        "project": request.project,
        "service-account": request.service_account,
        "labels": ",".join(f"{key}={value}" for key, value in request.labels.items()),
    }
    options = [f"--{key}={value}" for key, value in named.items() if value]
    submit = ["gcloud", "ai-platform", "jobs", "submit", "training", request.name]
    return [*submit, *options, "--", *job_spec.trainer_flags(request)]

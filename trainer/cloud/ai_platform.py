"""AI Platform Training's contract: the gcloud command that submitted a job there, until Google ended the service.

Flags: https://cloud.google.com/sdk/gcloud/reference/ai-platform/jobs/submit/training
End: https://cloud.google.com/ai-platform/training/docs/deprecations
"""

import re
from collections.abc import Mapping, Sequence

from trainer.cloud.machine_types import ATTACHED, GPU_TYPES, Host

ENDED = (
    "Google ended AI Platform Training on 2025-01-31: https://cloud.google.com/ai-platform/training/docs/deprecations. "
    "Vertex AI takes its place: change --target=ai_platform to --target=vertex. (Its runtimes had Python 3.7; this "
    "package needs 3.11.)"
)
# From 2.1 on with Python 3.7 alone: https://cloud.google.com/ai-platform/training/docs/tensorflow-2
RUNTIME, PYTHON = "2.11", "3.7"
# What the names of a short --machine stand for there; the service had no L4 and no v5e.
SHORT = {
    "cpu": (Host("n1-standard-8"), 1),
    "gpu": (Host("n1-standard-8", "NVIDIA_TESLA_T4", 1), 1),
    "gpus": (Host("n1-standard-16", "NVIDIA_TESLA_T4", 2), 1),
    "workers": (Host("n1-standard-8", "NVIDIA_TESLA_T4", 1), 2),
}
ACCELERATORS = ("NVIDIA_TESLA_A100", *ATTACHED)


def check(name: str, host: Host) -> list[str]:
    """What the service would not have taken, a message each, beside what Vertex AI does not take either."""
    found = []
    if not re.fullmatch(r"[a-zA-Z][a-zA-Z0-9_]*", name):
        found.append(f"--name must be letters, digits and underscores on AI Platform. Received: {name}.")
    if host.tpu:
        found.append(f"--machine must be one with GPUs, or without, on AI Platform. Received: {host.type}.")
    elif host.accelerator and host.accelerator not in ACCELERATORS:
        found.append(
            f"--machine must have one of {', '.join(ACCELERATORS)} on AI Platform. Received: {host.type}, which has "
            f"{host.accelerator}. Take --machine=n1-standard-8 --accelerator=NVIDIA_TESLA_T4."
        )
    elif not host.type.startswith(("n1-", "e2-", "n2-", "c2-")) and host.type not in GPU_TYPES:
        found.append(f"--machine must be an n1, n2, e2, c2 or a2 machine on AI Platform. Received: {host.type}.")
    return found


def command(
    *,
    name: str,
    host: Host,
    replicas: int,
    flags: Sequence[str],
    job_dir: str,
    project: str,
    region: str,
    service_account: str = "",
    labels: Mapping[str, str] | None = None,
) -> list[str]:
    """gcloud's arguments for a job of `replicas` machines like `host`, each of which runs trainer.task with `flags`.

    The service itself adds --job-dir to what the trainer is given.
    """
    accelerator = f"count={host.count},type={host.accelerator.lower().replace('_', '-')}" if host.accelerator else ""
    machines = {"master-machine-type": host.type, "master-accelerator": accelerator}
    if replicas > 1:
        machines |= {
            "worker-count": str(replicas - 1),
            "worker-machine-type": host.type,
            "worker-accelerator": accelerator,
            "use-chief-in-tf-config": "true",
        }
    named = {
        "package-path": "trainer",
        "module-name": "trainer.task",
        "job-dir": job_dir,
        "runtime-version": RUNTIME,
        "python-version": PYTHON,
        "scale-tier": "custom",
        **machines,
        "region": region,
        "project": project,
        "service-account": service_account,
        "labels": ",".join(f"{key}={value}" for key, value in (labels or {}).items()),
    }
    options = [f"--{key}={value}" for key, value in named.items() if value]
    return ["gcloud", "ai-platform", "jobs", "submit", "training", name, *options, "--", *flags]

"""A job for people who submit with gcloud: the file that its --config takes, and the command.

gcloud ai custom-jobs create takes a CustomJobSpec, gcloud ai hp-tuning-jobs create a HyperparameterTuningJob, both in
the JSON mapping of their proto. The name and the labels of a CustomJob are outside its spec, and are gcloud's flags:
https://cloud.google.com/sdk/gcloud/reference/ai/custom-jobs/create
https://cloud.google.com/sdk/gcloud/reference/ai/hp-tuning-jobs/create
"""

from collections.abc import Mapping
from typing import Any

from trainer.cloud import vertex_client
from trainer.cloud.job_request import JobRequest

CONFIG_FILE = "job.yaml"
_COMMANDS = {vertex_client.CUSTOM_JOBS: "custom-jobs", vertex_client.TUNING_JOBS: "hp-tuning-jobs"}


def build_config(job: Mapping[str, Any]) -> dict[str, Any]:
    """What --config takes of a job that job_spec or tuning_spec built: all but what `build_command` has as flags."""
    # gcloud reads YAML 1.1, where a name such as "n" is false: it is better off as a flag.
    return dict(
        job.get("jobSpec") or {key: value for key, value in job.items() if key not in ("displayName", "labels")}
    )


def build_command(request: JobRequest, collection: str) -> list[str]:
    """gcloud's arguments that create the job of CONFIG_FILE. `collection`: one of vertex_client."""
    options = {
        "project": request.project,
        "region": request.region,
        "display-name": request.name,
        "labels": ",".join(f"{key}={value}" for key, value in request.labels.items()),
        "config": CONFIG_FILE,
    }
    flags = [f"--{name}={value}" for name, value in options.items() if value]
    return ["gcloud", "ai", _COMMANDS[collection], "create", *flags]

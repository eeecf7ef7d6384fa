"""What a cloud service tells a job in its environment: where its results go, and which trial it is.

Vertex AI sets AIP_MODEL_DIR, AIP_CHECKPOINT_DIR and AIP_TENSORBOARD_LOG_DIR to <base>/model/, <base>/checkpoints/ and
<base>/logs/ (for a trial <base>/<trial>/model/ and so on) if a job has a base output directory:
https://cloud.google.com/vertex-ai/docs/reference/rest/v1/CustomJobSpec
"""

import json
from collections.abc import Mapping

from trainer.errors import Problem, UsageError
from trainer.storage import paths

# A field of run_files.RunFiles -> the variable that names its folder. The first one that is set decides the model_dir.
FOLDER_VARIABLES = {
    "export": "AIP_MODEL_DIR",
    "checkpoints": "AIP_CHECKPOINT_DIR",
    "tensorboard": "AIP_TENSORBOARD_LOG_DIR",
}

# Where Vertex AI mounts every bucket: https://cloud.google.com/vertex-ai/docs/training/cloud-storage-file-system
MOUNT = "/gcs/"

LEAVE_OUT = "Leave --model_dir (or --job-dir) out"


def mount_to_gcs(path: str) -> str:
    """The gs:// address of a path below MOUNT; any other path unchanged.

    The mount has no locks, and of two writers the last one wins
    (https://docs.cloud.google.com/run/docs/configuring/services/cloud-storage-volume-mounts): two runs could use one
    model_dir, and a reader could see a part of a file. The bucket itself has neither fault.
    """
    return f"gs://{path.removeprefix(MOUNT)}" if path.startswith(MOUNT) else path


def service_folders(environment: Mapping[str, str]) -> dict[str, str]:
    """The folders that the service names, by the fields of run_files.RunFiles. Raises UsageError for what is no path.

    They are in the form of paths.normalize_path.
    """
    problems: list[Problem] = []
    folders = {
        field: mount_to_gcs(paths.normalize_path(variable, environment.get(variable, "").strip(), problems))
        for field, variable in FOLDER_VARIABLES.items()
    }
    if problems:
        raise UsageError(*problems)
    return {field: folder for field, folder in folders.items() if folder}


def resolve_model_dir(given: str | None, environment: Mapping[str, str]) -> str | None:
    """The run's folder: the given one, or else the parent of the first folder that the service names.

    Raises UsageError for one that the trials of a tuning job would share, and if the export's folder would hold
    anything else of the run: an export replaces its folder.
    """
    folders = service_folders(environment)
    parent = next((folder.rpartition("/")[0] or "." for folder in folders.values()), None)
    root = mount_to_gcs(given) if given else parent
    others = {FOLDER_VARIABLES[field]: folder for field, folder in folders.items() if field != "export"}
    for setting, path in {"--model_dir": root, **others}.items():
        if "export" in folders and f"{path}/".startswith(f"{folders['export']}/"):
            required = f"lie outside AIP_MODEL_DIR, {folders['export']}, which the export replaces"
            raise UsageError(Problem(setting, required, str(path), f"{LEAVE_OUT}, or name the folder above."))
    for field, folder in folders.items():
        if folder.startswith("gs:") and "/" not in folder.removeprefix("gs://"):
            raise UsageError(Problem(FOLDER_VARIABLES[field], "be a folder of a bucket, gs://BUCKET/NAME", folder))
    if not given:
        return parent
    if parent and trial_number(environment) and root != parent:
        required = f"be the trial's own, {parent}, which is also the default"
        raise UsageError(Problem("--model_dir", required, f"{given}, the same for every trial", f"{LEAVE_OUT}."))
    return root


def folders_outside(model_dir: str | None, environment: Mapping[str, str]) -> dict[str, str]:
    """The folders that the service names outside model_dir, by their variables: their buckets need a check as well."""
    folders = {FOLDER_VARIABLES[field]: folder for field, folder in service_folders(environment).items()}
    return {variable: folder for variable, folder in folders.items() if not folder.startswith(f"{model_dir}/")}


def trial_number(environment: Mapping[str, str]) -> str | None:
    """The number of the tuning job's trial, from 1; None if this is no trial.

    It is in CLOUD_ML_TRIAL_ID, which cloudml-hypertune reads, or in the task's field `trial` of CLUSTER_SPEC and
    TF_CONFIG: https://cloud.google.com/vertex-ai/docs/training/distributed-training
    """
    number = environment.get("CLOUD_ML_TRIAL_ID", "").strip()
    for variable in ("CLUSTER_SPEC", "TF_CONFIG"):
        try:
            number = number or str(json.loads(environment.get(variable, "{}"))["task"]["trial"])
        except (ValueError, KeyError, TypeError):  # No trial, or a value that read_cluster refuses by name.
            continue
    return None if number in ("", "0") else number

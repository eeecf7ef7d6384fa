"""What a cloud service tells a job by its environment and its flags: where its results go, and which trial it is.

Vertex AI sets AIP_MODEL_DIR, AIP_CHECKPOINT_DIR and AIP_TENSORBOARD_LOG_DIR to <base>/model/, <base>/checkpoints/ and
<base>/logs/ (for a trial <base>/<trial>/model/ and so on) where a job has a base output directory:
https://cloud.google.com/vertex-ai/docs/reference/rest/v1/CustomJobSpec
"""

import json
import re
from collections.abc import Mapping, Sequence

from trainer.errors import UsageError

# What a run writes there, by its name in runs.Files. The order is that in which a model_dir is looked for.
VARIABLES = {"export": "AIP_MODEL_DIR", "checkpoints": "AIP_CHECKPOINT_DIR", "tensorboard": "AIP_TENSORBOARD_LOG_DIR"}

# Where Vertex AI mounts every bucket: https://cloud.google.com/vertex-ai/docs/training/cloud-storage-file-system
MOUNT = "/gcs/"


def mount_to_gcs(path: str) -> str:
    """The gs:// address of what is below the mount of buckets; any other path as it is.

    The mount knows no locks, and of two writers the last wins
    (https://docs.cloud.google.com/run/docs/configuring/services/cloud-storage-volume-mounts): a model_dir on it could
    be held by two runs, and a file be read half. The bucket itself has neither fault.
    """
    return f"gs://{path.removeprefix(MOUNT)}" if path.startswith(MOUNT) else path


def service_folders(environment: Mapping[str, str]) -> dict[str, str]:
    """The folders that the service names, by their names in runs.Files."""
    named = {name: environment.get(variable, "").strip() for name, variable in VARIABLES.items()}
    return {name: mount_to_gcs(path).rstrip("/") for name, path in named.items() if path}


def resolve_model_dir(given: str | None, environment: Mapping[str, str]) -> str | None:
    """Where the run is kept: as given, or the folder that holds those that the service names, the first one deciding.

    Raises UsageError for one that the trials of a tuning job would share, and for an export's folder that holds
    anything else of the run: an export replaces its folder.
    """
    named = service_folders(environment)
    own = next((folder.rpartition("/")[0] or "." for folder in named.values()), None)
    root = mount_to_gcs(given).rstrip("/") if given else own
    others = {"--model_dir": root, **{VARIABLES[name]: path for name, path in named.items() if name != "export"}}
    for flag, path in others.items():
        if "export" in named and f"{path}/".startswith(f"{named['export']}/"):
            raise UsageError(
                f"{flag} must lie outside AIP_MODEL_DIR, {named['export']}, which the export replaces. Received: "
                f"{path}. Leave --model_dir (or --job-dir) out, or name the folder above."
            )
    for name, path in named.items():
        if path.startswith("gs:") and "/" not in path.removeprefix("gs://"):
            raise UsageError(f"{VARIABLES[name]} must be a folder of a bucket, gs://BUCKET/NAME. Received: {path}.")
    if not given:
        return own
    if own and trial_number(environment) and mount_to_gcs(given).rstrip("/") != own:
        raise UsageError(
            f"--model_dir must be the trial's own, {own}, which is also what it is when not given. Received: {given}, "
            "the same for every trial. Leave --model_dir (or --job-dir) out."
        )
    return mount_to_gcs(given)


def folders_outside(model_dir: str | None, environment: Mapping[str, str]) -> dict[str, str]:
    """Variable -> folder, of those that are not in model_dir: their buckets have to be looked at, too."""
    named = {VARIABLES[name]: folder for name, folder in service_folders(environment).items()}
    return {variable: folder for variable, folder in named.items() if not folder.startswith(f"{model_dir}/")}


def trial_number(environment: Mapping[str, str]) -> str | None:
    """The number of the tuning job's trial that this is, from 1; None if it is none.

    CLOUD_ML_TRIAL_ID is what cloudml-hypertune reads; the task's field `trial` is in the documentation of CLUSTER_SPEC
    and TF_CONFIG: https://cloud.google.com/vertex-ai/docs/training/distributed-training
    """
    number = environment.get("CLOUD_ML_TRIAL_ID", "").strip()
    for name in ("CLUSTER_SPEC", "TF_CONFIG"):
        try:
            number = number or str(json.loads(environment.get(name, "{}"))["task"]["trial"])
        except (ValueError, KeyError, TypeError):  # not a trial, or a value that trainer.cluster will refuse by name
            continue
    return None if number in ("", "0") else number


# Keys of the configuration outside any section that are no flags of trainer.task: those have other uses as well.
TOP = ("seed", "precision", "preprocess")
_SETTING = re.compile(rf"--?(\w[\w-]*(?:\.[\w.-]+)|{'|'.join(TOP)})(?:=(.*))?", re.DOTALL)


def settings(arguments: Sequence[str]) -> list[str]:
    """Arguments with every --section.key=VALUE, or --section.key VALUE, as the --set that it stands for.

    A tuning service passes a trial's parameters as flags of their names:
    https://cloud.google.com/vertex-ai/docs/training/using-hyperparameter-tuning
    """
    found: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        setting = _SETTING.fullmatch(argument)
        if argument == "--":
            return [*found, argument, *rest]
        if setting:
            key, value = setting.groups()
            if value is None and rest and not rest[0].startswith("--"):
                value = rest.pop(0)
            argument = f"--set={key}" if value is None else f"--set={key}={value}"
        found.append(argument)
    return found

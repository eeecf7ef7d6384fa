"""The paths of a run, and the identity that its model_dir keeps."""

import dataclasses
import json
import sys
from collections.abc import Mapping
from typing import Any

from trainer.config import loading, schema
from trainer.config.schema import Config
from trainer.data import tasks
from trainer.distributed import strategies
from trainer.runtime import trial
from trainer.storage import fs
from trainer.train import builder, checkpoints, metrics_log


@dataclasses.dataclass(frozen=True)
class RunFiles:
    """The paths of a run: all in its model_dir, unless the service names another folder for some."""

    root: str
    config: str
    identity: str
    metrics: str
    result: str
    picture: str
    checkpoints: str
    best: str
    export: str
    tensorboard: str


def resolve_run_files(model_dir: str, elsewhere: Mapping[str, str] | None = None) -> RunFiles:
    """`elsewhere`: the folders that are not in it, by their names here, as service.folders has them."""
    names = (
        schema.CONFIG_FILE,
        "identity.json",
        "metrics.jsonl",
        "result.json",
        "history.png",
        "checkpoints",
        "best",
        "export",
        "tensorboard",
    )
    files = RunFiles(model_dir, *(fs.join(model_dir, name) for name in names))
    return dataclasses.replace(files, **(elsewhere or {}))


def read_finished_result(config: Config, files: RunFiles) -> dict[str, Any] | None:
    """result.json of a run that this configuration has finished in model_dir; None if there is none.

    Raises ValueError, naming the keys, if another configuration has written in model_dir, and where the run's
    checkpoints are, if that is not where these files have them.
    """
    _check_checkpoint_folder(files)
    if not fs.exists(files.config) or not (fs.exists(files.result) or checkpoints.list_checkpoints(files.checkpoints)):
        return None
    there = loading.load_config(files.config)
    if config.precision == "auto":
        config = dataclasses.replace(config, precision=there.precision)
    different = loading.find_differences(there, config)
    if different:
        raise ValueError(
            f"--model_dir must be new, or one that this configuration has begun. Received: {files.root}, begun with "
            f"another ({'; '.join(different)}). "
            "Choose another --model_dir, or the same values."
        )
    return json.loads(fs.read_text(files.result)) if fs.exists(files.result) else None


def report_finished_run(files: RunFiles, result: Mapping[str, Any]) -> None:
    """What a service must have heard of a finished run: its metric, if it is a trial; on standard error, no export."""
    metric = next(name for name in tasks.MAIN_METRIC.values() if name in result["validation"])
    trial.report_best(metrics_log.read_history(files.metrics, keep=False).of("validation"), metric)
    if not fs.exists(fs.join(files.export, "saved_model.pb")):
        print(f"warning: there is no export in {files.export}: --mode=export writes one.", file=sys.stderr)


def _check_checkpoint_folder(files: RunFiles) -> None:
    """Raises ValueError if the run has left its checkpoints elsewhere: it would start again at step 0, unasked."""
    ours = fs.join(files.root, "checkpoints")
    begun = fs.exists(files.identity)
    there = json.loads(fs.read_text(files.identity)).get("checkpoints", ours) if begun else ours
    if there != files.checkpoints and checkpoints.list_checkpoints(there if begun else files.checkpoints):
        raise ValueError(
            f"AIP_CHECKPOINT_DIR must hold the checkpoints of the run in --model_dir {files.root}. Received: "
            f"{files.checkpoints}, {f'but they are in {there}' if begun else 'which has those of another run'}. "
            f"Set AIP_CHECKPOINT_DIR={there}, or choose another --model_dir."
        )


def write_run_identity(job: builder.Job, files: RunFiles) -> None:
    """Write, as the chief, the resolved configuration and what it runs on.

    Raises ValueError for a model_dir begun with other data or weights.
    """
    identity = {"data_fingerprint": job.manifest.fingerprint, "encoder_sha256": job.encoder.sha256}
    if files.checkpoints != fs.join(files.root, "checkpoints"):
        identity["checkpoints"] = files.checkpoints
    if fs.exists(files.identity) and checkpoints.list_checkpoints(files.checkpoints):
        there = json.loads(fs.read_text(files.identity))
        for key, flag in (("data_fingerprint", "--data_dir"), ("encoder_sha256", "--encoder")):
            if there[key] != identity[key]:
                raise ValueError(
                    f"{flag} must be what --model_dir {files.root} was begun with ({key} {there[key][:12]}). Received: "
                    f"another ({identity[key][:12]})."
                )
    if strategies.worker_index_and_count(job.strategy)[0] != 0:
        return
    fs.write_text(files.config, loading.dump_config(job.config))
    fs.write_text(files.identity, json.dumps(identity, indent=1) + "\n")

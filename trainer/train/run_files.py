"""The paths of a run, and the identity that its model_dir keeps."""

import dataclasses
import logging
import shlex
from collections.abc import Mapping
from typing import Any

from trainer.config import loading, schema
from trainer.config.schema import Config
from trainer.data import manifests, tasks
from trainer.data.label_scale import LabelScale, RatingRange
from trainer.distributed import strategies
from trainer.errors import Problem, UserError
from trainer.runtime import trial
from trainer.storage import fs
from trainer.train import builder, checkpoints, metrics_log
from trainer.train.label_use import LabelUse

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class RunFiles:
    """The paths of a run: all in its model_dir, unless a service names another folder for some."""

    root: str
    config: str
    identity: str
    metrics: str
    result: str
    decision: str
    picture: str
    test_predictions: str
    checkpoints: str
    best: str
    export: str
    tensorboard: str
    sinks: str


def resolve_run_files(model_dir: str, elsewhere: Mapping[str, str] | None = None) -> RunFiles:
    """The paths of a run in `model_dir`. `elsewhere` has the folders outside it, by their field in RunFiles."""
    names = {
        "config": schema.CONFIG_FILE,
        "identity": "identity.json",
        "metrics": "metrics.jsonl",
        "result": "result.json",
        "decision": "decision.json",
        "picture": "history.png",
        "test_predictions": "test_predictions.parquet",
        "sinks": "metric_sinks.json",
        **{folder: folder for folder in ("checkpoints", "best", "export", "tensorboard")},
    }
    inside = {field: fs.join(model_dir, name) for field, name in names.items()}
    return RunFiles(root=model_dir, **{**inside, **(elsewhere or {})})


def read_identity(files: RunFiles) -> dict[str, Any]:
    """identity.json's values, {} if there is none."""
    return fs.read_json(files.identity) if fs.exists(files.identity) else {}


def read_label_use(files: RunFiles, manifest: manifests.Manifest, *, of_best: bool = False) -> LabelUse | None:
    """What the run made of its labels when it started. None if it has no checkpoint, and would start now.

    With `of_best` it is that of the weights in best/: a run that was killed before its first checkpoint may have some.
    When it starts again it may have other data and settings.

    A run from before this was kept learned numbers as they are, and its F1 is of the second of two classes. Raises
    UserError if identity.json is gone and the scale with it.
    """
    if not checkpoints.list_checkpoints(files.best if of_best else files.checkpoints):
        return None
    kept = read_identity(files)
    if not kept and manifest.kind == "regression":
        required = "hold the run's identity.json, which has the scale of its labels"
        raise UserError(Problem("--model_dir", required, f"{files.root}, without it"))
    second = manifest.labels[1] if manifest.classes == 2 and manifest.kind == "classification" else None
    scale, rating_range = kept.get("label_scale"), kept.get("rating_range")
    return LabelUse(
        LabelScale(**scale) if scale else None,
        kept.get("positive_class", second),
        RatingRange(**rating_range) if rating_range else None,
    )


def read_finished_result(config: Config, files: RunFiles) -> dict[str, Any] | None:
    """result.json of the run in model_dir, None if it is not finished.

    Raises UserError, with the keys, if model_dir has a run of another configuration, and if the run's checkpoints are
    in another folder than these files say.
    """
    _check_checkpoint_folder(files)
    started = _read_started_config(files)
    if started is None:
        return None
    differences = loading.find_differences(started, loading.resolve_as(started, config))
    if differences:
        required = "be new, or have a run of this configuration"
        received = f"{files.root}, with a run of another ({'; '.join(differences)})"
        raise UserError(Problem("--model_dir", required, received, advise_new_run(files, "the same values")))
    return fs.read_json(files.result) if fs.exists(files.result) else None


def read_result(files: RunFiles) -> dict[str, Any]:
    """result.json's values. Raises UserError if the run is not finished."""
    if not fs.exists(files.result):
        received = f"{files.root}, which has no result.json yet"
        raise UserError(Problem("--model_dir", "hold a run that is finished", received))
    return fs.read_json(files.result)


def _read_started_config(files: RunFiles) -> Config | None:
    """The configuration of the run in model_dir. None if it has neither a checkpoint nor a result: it would start."""
    if not fs.exists(files.config) or not (fs.exists(files.result) or checkpoints.list_checkpoints(files.checkpoints)):
        return None
    return loading.load_config(files.config)


def keep_resolved(config: Config, files: RunFiles) -> Config:
    """`config` with what the run in model_dir made of `auto` when it started, whatever hardware it resumes on."""
    started = _read_started_config(files)
    return loading.resolve_as(started, config) if started else config


def advise_new_run(files: RunFiles, same: str) -> str:
    """What to do with a run that cannot be resumed like this."""
    new_run = f"--init_from={shlex.quote(files.root)} and another --model_dir"
    return f"Use {same} to resume it. To go on from its best weights in a new run, use {new_run}."


def find_own_data(files: RunFiles) -> tuple[Config | None, manifests.Manifest | None]:
    """(a run's configuration, the manifest of the data that it was trained on), each None where it is not there.

    The manifest is not there either if its folder has other data by now.
    """
    if not fs.exists(files.config):
        return None, None
    config = loading.load_config(files.config)
    try:
        manifest = manifests.read_manifest(config.data_dir)
    except (OSError, UserError):
        return config, None
    return config, manifest if manifest.fingerprint == read_identity(files).get("data_fingerprint") else None


def changed_settings(config: Config) -> dict[str, Any]:
    """loading.changed_settings, for modules that do not see how configurations are loaded."""
    return loading.changed_settings(config)


def repeat_command(config: Config, files: RunFiles) -> str:
    """A shell's command that runs the same again in another folder."""
    changed = loading.changed_settings(config)
    settings = (f"--{key}={shlex.quote(loading.format_value(value))}" for key, value in changed.items())
    parts = ["python -m trainer.task", f"--model_dir={shlex.quote(files.root.rstrip('/') + '_again')}", *settings]
    return " \\\n  ".join(parts)


def warn_without_export(files: RunFiles) -> None:
    """Warn if a finished run has no export."""
    if not fs.exists(fs.join(files.export, "saved_model.pb")):
        _LOG.warning("there is no export in %s: --mode=export writes one.", files.export)


def report_trial_metric(model_dir: str, result: Mapping[str, Any]) -> None:
    """Report a finished run's metric to the tuning service, if it is a trial. Call it when all else is written.

    Raises UserError if it cannot be written.
    """
    if trial.metric_path() is None:
        return
    lines = metrics_log.read_history(resolve_run_files(model_dir).metrics, keep=False).of("validation")
    main = next(name for name in tasks.MAIN_METRIC.values() if name in result["validation"])
    metric = result.get("best_metric", main)
    problem = trial.report_best(lines, metric, lower_is_better=metric in tasks.LOWER_IS_BETTER)
    if problem:
        raise UserError(problem)


def _check_checkpoint_folder(files: RunFiles) -> None:
    """Raises UserError if the run's checkpoints are in another folder: it would silently start again at step 0."""
    default = fs.join(files.root, "checkpoints")
    started = fs.exists(files.identity)
    folder = read_identity(files).get("checkpoints", default)
    if folder != files.checkpoints and checkpoints.list_checkpoints(folder if started else files.checkpoints):
        other = f"but they are in {folder}" if started else "which has those of another run"
        required = f"hold the checkpoints of the run in --model_dir {files.root}"
        advice = f"Set AIP_CHECKPOINT_DIR={shlex.quote(folder)}, or use another --model_dir."
        raise UserError(Problem("AIP_CHECKPOINT_DIR", required, f"{files.checkpoints}, {other}", advice))


def write_run_identity(job: builder.Job, files: RunFiles) -> None:
    """Write the resolved configuration and what identifies the data, its labels and the weights. Only the chief writes.

    Raises UserError for a model_dir whose run has other data or weights.
    """
    scale, rating_range = job.label_use.scale, job.label_use.rating_range
    identity: dict[str, Any] = {
        "data_fingerprint": job.manifest.fingerprint,
        "encoder_sha256": job.encoder.sha256,
        "kind": job.manifest.kind,
        "labels": list(job.manifest.labels),
        "texts": job.manifest.texts,
        "label_scale": dataclasses.asdict(scale) if scale else None,
        "rating_range": dataclasses.asdict(rating_range) if rating_range else None,
        "positive_class": job.label_use.positive_class,
    }
    if job.parent:
        identity["parent"] = dataclasses.asdict(job.parent)
    if files.checkpoints != fs.join(files.root, "checkpoints"):
        identity["checkpoints"] = files.checkpoints
    if fs.exists(files.identity) and checkpoints.list_checkpoints(files.checkpoints):
        started = read_identity(files)
        for key, flag in (("data_fingerprint", "--data_dir"), ("encoder_sha256", "--encoder")):
            if started[key] != identity[key]:
                required = f"be that of the run in --model_dir {files.root} ({key} {started[key][:12]})"
                received = f"another ({identity[key][:12]})"
                raise UserError(Problem(flag, required, received, advise_new_run(files, "the run's own")))
    if strategies.worker_index_and_count(job.strategy)[0] != 0:
        return
    fs.write_text(files.config, loading.dump_config(job.config))
    fs.write_json(files.identity, identity)

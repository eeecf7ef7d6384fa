"""A run: a job in its model_dir. What the loop, a later evaluation and a later export all work on."""

import dataclasses
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from trainer import (
    build,
    checkpoint,
    data,
    evaluation,
    export,
    metrics,
    model,
    records,
    report,
    signals,
    steps,
    storage,
    strategies,
    trial,
)
from trainer import config as configs
from trainer.config import Config

# Validation texts whose scores an export must reproduce.
PARITY_TEXTS = 100


@dataclasses.dataclass(frozen=True)
class Files:
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


def files_of(model_dir: str, elsewhere: Mapping[str, str] | None = None) -> Files:
    """`elsewhere`: the folders that are not in it, by their names here, as service.folders has them."""
    names = (
        configs.NAME,
        "identity.json",
        "metrics.jsonl",
        "result.json",
        "history.png",
        "checkpoints",
        "best",
        "export",
        "tensorboard",
    )
    files = Files(model_dir, *(storage.join(model_dir, name) for name in names))
    return dataclasses.replace(files, **(elsewhere or {}))


@dataclasses.dataclass(frozen=True)
class Run:
    job: build.Job
    files: Files
    sums: steps.Totals
    checkpoints: checkpoint.Series  # all of the state, every save_every steps
    bests: checkpoint.Series  # the weights that were best on validation
    window: Callable[[Any, tf.Tensor], None]
    score: Callable[[steps.Batch], tuple[np.ndarray, np.ndarray]]
    agree: Callable[[Sequence[float]], list[float]]  # of what all workers say, the largest
    chief: bool  # writes to model_dir; the other workers write nowhere
    history: report.History
    events: report.Events | None
    elapsed: Callable[[], float]  # seconds of all the run's processes so far


def finished(config: Config, files: Files) -> dict[str, Any] | None:
    """result.json of a run that this configuration has finished in model_dir; None if there is none.

    Raises ValueError, naming the keys, if another configuration has written in model_dir, and where the run's
    checkpoints are, if that is not where these files have them.
    """
    _check_checkpoints(files)
    if not storage.exists(files.config) or not (storage.exists(files.result) or checkpoint.listed(files.checkpoints)):
        return None
    there = configs.load(files.config)
    if config.precision == "auto":
        config = dataclasses.replace(config, precision=there.precision)
    different = configs.differences(there, config)
    if different:
        raise ValueError(
            f"--model_dir must be new, or one that this configuration has begun. Received: {files.root}, begun with "
            f"another ({'; '.join(different)}). "
            "Choose another --model_dir, or the same values."
        )
    return json.loads(storage.read_text(files.result)) if storage.exists(files.result) else None


def say_again(files: Files) -> None:
    """What a service must have heard of a finished run: its metric, if it is a trial; on standard error, no export."""
    trial.report(report.read_history(files.metrics, keep=False).of("validation"))
    if not storage.exists(storage.join(files.export, "saved_model.pb")):
        print(f"warning: there is no export in {files.export}: --mode=export writes one.", file=sys.stderr)


def _check_checkpoints(files: Files) -> None:
    """Raises ValueError if the run has left its checkpoints elsewhere: it would start again at step 0, unasked."""
    ours = storage.join(files.root, "checkpoints")
    begun = storage.exists(files.identity)
    there = json.loads(storage.read_text(files.identity)).get("checkpoints", ours) if begun else ours
    if there != files.checkpoints and checkpoint.listed(there if begun else files.checkpoints):
        raise ValueError(
            f"AIP_CHECKPOINT_DIR must hold the checkpoints of the run in --model_dir {files.root}. Received: "
            f"{files.checkpoints}, {f'but they are in {there}' if begun else 'which has those of another run'}. "
            f"Set AIP_CHECKPOINT_DIR={there}, or choose another --model_dir."
        )


def claim(job: build.Job, files: Files) -> None:
    """Write, as the chief, the resolved configuration and what it runs on.

    Raises ValueError for a model_dir begun with other data or weights.
    """
    identity = {"data_fingerprint": job.manifest.fingerprint, "encoder_sha256": job.encoder.sha256}
    if files.checkpoints != storage.join(files.root, "checkpoints"):
        identity["checkpoints"] = files.checkpoints
    if storage.exists(files.identity) and checkpoint.listed(files.checkpoints):
        there = json.loads(storage.read_text(files.identity))
        for key, flag in (("data_fingerprint", "--data_dir"), ("encoder_sha256", "--encoder")):
            if there[key] != identity[key]:
                raise ValueError(
                    f"{flag} must be what --model_dir {files.root} was begun with ({key} {there[key][:12]}). Received: "
                    f"another ({identity[key][:12]})."
                )
    if strategies.place(job.strategy)[0] != 0:
        return
    storage.write_text(files.config, configs.dump(job.config))
    storage.write_text(files.identity, json.dumps(identity, indent=1) + "\n")


def open_run(job: build.Job, files: Files, started: float) -> Run:
    """The run in model_dir, its parts built, nothing restored. `started`: time.monotonic() at the process's start."""
    config = job.config
    # Outside the strategy's scope: workers cannot exchange a string.
    fingerprint = tf.Variable(build.fingerprint(config, job.encoder.sha256, job.manifest.fingerprint), trainable=False)
    with job.strategy.scope():
        sums = steps.totals()
    state = tf.train.Checkpoint(model=job.model, optimizer=job.optimizer, fingerprint=fingerprint, **sums.saved())
    weights = tf.train.Checkpoint(model=job.model)
    train_step = steps.train_step(
        job.model, job.optimizer, sums, config.seed, config.optimizer.clip_norm, config.training.accumulation_steps
    )
    worker, _ = strategies.place(job.strategy)
    chief = worker == 0
    background = config.training.background_saves
    if background is None:
        background = strategies.has_accelerator(job.strategy)
    history = report.read_history(files.metrics, keep=chief)
    earlier = max((line.get("seconds", 0.0) for line in history.lines), default=0.0)
    return Run(
        job=job,
        files=files,
        sums=sums,
        checkpoints=checkpoint.Series(state, files.checkpoints, config.training.keep_checkpoints, background),
        bests=checkpoint.Series(weights, files.best, 1),
        window=steps.train_window(job.strategy, train_step),
        score=steps.evaluation_step(job.strategy, steps.evaluation_replica_step(job.scorer)),
        agree=strategies.agreement(job.strategy),
        chief=chief,
        history=history,
        events=report.open_events(files.tensorboard) if config.logging.tensorboard and chief else None,
        elapsed=lambda: earlier + time.monotonic() - started,
    )


def restore(run: Run, series: checkpoint.Series) -> int | None:
    """Restore the newest whole checkpoint on every worker; its step, None if there is none yet.

    The chief goes first: where it falls back, it drops what is damaged. Raises what checkpoint.restore does, and
    ValueError on a worker that does not find what the chief has found.
    """
    step = checkpoint.restore(series) if run.chief else None
    (said,) = run.agree([-1 if step is None else step])
    if not run.chief and said >= 0:
        step = int(said)
        try:
            checkpoint.read(series, step)
        except ValueError as error:
            raise ValueError(
                f"--model_dir must be storage that all workers share. Received: {run.files.root}, in which the chief "
                f"has found the checkpoint of step {step}, but this worker: {error}"
            ) from None
    return step


def save(run: Run, series: checkpoint.Series, step: int, *, wait: bool = True) -> None:
    """Save on the chief. Its state is every worker's."""
    # Before: a run that goes on from this checkpoint writes none of its lines and events again.
    run.history.publish()
    if run.events:
        run.events.publish()
    if run.chief:
        checkpoint.save(series, step, wait=wait)


def stop_if_asked(run: Run, request: signals.Request) -> None:
    """Raises signals.Stopped on every worker if a signal has come to any."""
    (asked,) = run.agree([request.name is not None])
    request.stop_if(bool(asked))


def write(run: Run, line: report.Line) -> None:
    """Log a line to TensorBoard, then to metrics.jsonl: what is there is not written again."""
    if run.events:
        run.events.add(line)
        if line["split"] != "train":  # the other lines have a checkpoint after them
            run.events.publish()
    run.history.add(line)


def read_split(run: Run, split: str, *, with_text: bool = False) -> records.Columns:
    manifest = run.job.manifest
    return records.read_shards(run.job.config.data_dir, manifest.splits[split].shards, manifest, with_text=with_text)


def predict(run: Run, columns: records.Columns, name: str, request: signals.Request) -> metrics.Predictions:
    """The trained model's predictions, in float32. Raises signals.Stopped between two batches if a signal has come."""
    job = run.job
    model.copy_values(job.model, job.scorer)
    return evaluation.predict(
        job.strategy,
        run.score,
        columns,
        job.manifest,
        job.layout,
        name=name,
        progress=job.config.logging.progress and run.chief,
        between=lambda: stop_if_asked(run, request),
    )


def write_export(run: Run, request: signals.Request) -> float:
    """Export the model as it is, if the export scores validation texts as the job does. Returns the difference.

    All workers score; the chief alone writes.
    """
    job, config = run.job, run.job.config
    columns = read_split(run, "validation", with_text=True)
    few = data.select(columns, np.arange(min(PARITY_TEXTS, len(columns))))
    texts = [columns.texts] if columns.texts_b is None else [columns.texts, columns.texts_b]
    rows = list(zip(*(column[: len(few)] for column in texts if column), strict=True))
    scores = predict(run, few, "export", request).scores
    if not run.chief:
        return 0.0
    module, signature = export.build(
        job.scorer,
        build.tokenizer(config),
        texts=job.manifest.texts,
        labels=job.manifest.labels,
        seq_length=config.data.seq_length,
        truncation=config.data.truncation,
    )
    return export.write(module, signature, run.files.export, rows, scores)

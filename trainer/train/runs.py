"""A run: a job in its model_dir. What the loop, a later evaluation and a later export all work on."""

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from trainer.data import batching, records
from trainer.distributed import strategies
from trainer.encoders import classifier
from trainer.evals import evaluation, metrics
from trainer.export import saved_model
from trainer.runtime import signals
from trainer.train import builder, checkpoints, metrics_log, run_files, steps
from trainer.train.checkpoints import CheckpointSeries

# Validation texts whose scores an export must reproduce.
PARITY_TEXTS = 100


@dataclasses.dataclass(frozen=True)
class Run:
    job: builder.Job
    files: run_files.RunFiles
    sums: steps.TrainSums
    checkpoints: CheckpointSeries  # all of the state, every save_every steps
    bests: CheckpointSeries  # the weights that were best on validation
    window: Callable[[Any, tf.Tensor], None]
    score: Callable[[steps.Batch], tuple[np.ndarray, np.ndarray]]
    agree: Callable[[Mapping[str, float]], dict[str, float]]  # of what all workers say, the largest by name
    chief: bool  # writes to model_dir; the other workers write nowhere
    history: metrics_log.MetricsHistory
    events: metrics_log.EventLog | None
    elapsed: Callable[[], float]  # seconds of all the run's processes so far


def open_run(job: builder.Job, files: run_files.RunFiles, started: float) -> Run:
    """The run in model_dir, its parts built, nothing restored. `started`: time.monotonic() at the process's start."""
    config = job.config
    # Outside the strategy's scope: workers cannot exchange a string.
    fingerprint = tf.Variable(
        builder.run_fingerprint(config, job.encoder.sha256, job.manifest.fingerprint), trainable=False
    )
    with job.strategy.scope():
        sums = steps.create_train_sums()
    state = tf.train.Checkpoint(model=job.model, optimizer=job.optimizer, fingerprint=fingerprint, **sums.saved())
    weights = tf.train.Checkpoint(model=job.model)
    train_step = steps.build_train_step(
        job.model, job.optimizer, sums, config.seed, config.optimizer.clip_norm, config.training.accumulation_steps
    )
    worker, _ = strategies.worker_index_and_count(job.strategy)
    chief = worker == 0
    background = config.training.background_saves
    if background is None:
        background = strategies.has_accelerator(job.strategy)
    history = metrics_log.read_history(files.metrics, keep=chief)
    earlier = max((line.get("seconds", 0.0) for line in history.lines), default=0.0)
    return Run(
        job=job,
        files=files,
        sums=sums,
        checkpoints=checkpoints.CheckpointSeries(
            state, files.checkpoints, config.training.keep_checkpoints, background
        ),
        bests=checkpoints.CheckpointSeries(weights, files.best, 1),
        window=steps.build_inner_loop(job.strategy, train_step),
        score=steps.build_eval_step(job.strategy, steps.build_replica_eval_step(job.scorer)),
        agree=strategies.build_all_reduce_max(job.strategy),
        chief=chief,
        history=history,
        events=metrics_log.open_event_log(files.tensorboard) if config.logging.tensorboard and chief else None,
        elapsed=lambda: earlier + time.monotonic() - started,
    )


def restore(run: Run, series: checkpoints.CheckpointSeries) -> int | None:
    """Restore the newest whole checkpoint on every worker; its step, None if there is none yet.

    The chief goes first: where it falls back, it drops what is damaged. Raises what checkpoint.restore does, and
    ValueError on a worker that does not find what the chief has found.
    """
    step = checkpoints.restore_newest(series) if run.chief else None
    chiefs_step = int(run.agree({"step": -1 if step is None else step})["step"])
    if not run.chief and chiefs_step >= 0:
        step = chiefs_step
        try:
            checkpoints.restore_step(series, step)
        except ValueError as error:
            raise ValueError(
                f"--model_dir must be storage that all workers share. Received: {run.files.root}, in which the chief "
                f"has found the checkpoint of step {step}, but this worker: {error}"
            ) from None
    return step


def save(run: Run, series: checkpoints.CheckpointSeries, step: int, *, wait: bool = True) -> None:
    """Save on the chief. Its state is every worker's."""
    # Before: a run that goes on from this checkpoint writes none of its lines and events again.
    run.history.publish()
    if run.events:
        run.events.publish()
    if run.chief:
        checkpoints.save_checkpoint(series, step, wait=wait)


def stop_if_requested(run: Run, request: signals.StopRequest) -> None:
    """Raises signals.Stopped on every worker if a signal has come to any."""
    agreed = run.agree({"stop": request.reason is not None})
    signals.raise_if_requested(request, bool(agreed["stop"]))


def write_line(run: Run, line: metrics_log.LogLine) -> None:
    """Log a line to TensorBoard, then to metrics.jsonl: what is there is not written again."""
    if run.events:
        run.events.add(line)
        if line["split"] != "train":  # the other lines have a checkpoint after them
            run.events.publish()
    run.history.add(line)


def read_split(run: Run, split: str, *, with_text: bool = False) -> records.Columns:
    manifest = run.job.manifest
    return records.read_shards(run.job.config.data_dir, manifest.splits[split].shards, manifest, with_text=with_text)


def predict_split(run: Run, columns: records.Columns, name: str, request: signals.StopRequest) -> metrics.Predictions:
    """The trained model's predictions, in float32. Raises signals.Stopped between two batches if a signal has come."""
    job = run.job
    classifier.copy_variables(job.model, job.scorer)
    return evaluation.predict_rows(
        job.strategy,
        run.score,
        columns,
        job.manifest,
        job.layout,
        name=name,
        progress=job.config.logging.progress and run.chief,
        after_batch=lambda: stop_if_requested(run, request),
    )


def export_run(run: Run, request: signals.StopRequest) -> float:
    """Export the model as it is, if the export scores validation texts as the job does. Returns the difference.

    All workers score; the chief alone writes.
    """
    job, config = run.job, run.job.config
    columns = read_split(run, "validation", with_text=True)
    few = batching.select_rows(columns, np.arange(min(PARITY_TEXTS, len(columns))))
    texts = [columns.texts] if columns.texts_b is None else [columns.texts, columns.texts_b]
    rows = list(zip(*(column[: len(few)] for column in texts if column), strict=True))
    scores = predict_split(run, few, "export", request).scores
    if not run.chief:
        return 0.0
    module, signature = saved_model.build_serving_module(
        job.scorer,
        builder.load_data_tokenizer(config),
        texts=job.manifest.texts,
        labels=job.manifest.labels,
        seq_length=config.data.seq_length,
        truncation=config.data.truncation,
    )
    return saved_model.write_saved_model(module, signature, run.files.export, rows, scores)

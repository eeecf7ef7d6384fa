"""A run: a job in its model_dir. The loop, a later evaluation and a later export all work on it."""

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf
import tf_keras

from trainer.data import label_scale, records
from trainer.distributed import remote_hosts, strategies
from trainer.encoders import classifier
from trainer.errors import Problem, UserError
from trainer.evals import evaluation, metrics
from trainer.runtime import garbage, signals, watchdog
from trainer.train import (
    averages,
    builder,
    checkpoints,
    compilation,
    decisions,
    losses,
    metric_sinks,
    metrics_log,
    run_files,
    steps,
    throughput,
)
from trainer.train.checkpoints import CheckpointSeries
from trainer.train.decisions import Decision

# The chief, whose TensorFlow coordinates the workers, ends this long after them: what it sends last has to arrive.
LEAD_S = 1.0


@dataclasses.dataclass(frozen=True)
class Run:
    job: builder.Job
    files: run_files.RunFiles
    sums: steps.TrainSums
    checkpoints: CheckpointSeries  # The complete state, every training.save_every steps.
    best: CheckpointSeries  # The weights that were best on validation.
    inner_loop: steps.InnerLoop
    eval_step: steps.EvalStep
    all_reduce_max: Callable[[Mapping[str, float]], dict[str, float]]  # strategies.build_all_reduce_max
    chief: bool  # The chief alone writes to model_dir. The other workers write nowhere.
    history: metrics_log.MetricsHistory
    events: metrics_log.EventLog | None
    sinks: Sequence[metric_sinks.MetricSink]
    elapsed: Callable[[], float]  # Seconds of all the run's processes so far.
    peak_flops: float | None  # throughput.find_peak_flops


def open_run(job: builder.Job, files: run_files.RunFiles, started: float) -> Run:
    """The run in model_dir, with its parts built and nothing restored.

    `started` is time.monotonic() at the start of the process.
    """
    config = job.config
    with job.strategy.scope():
        sums = steps.create_train_sums()
    series, best = _open_checkpoints(job, files, sums)
    xla = compilation.compiles_steps(config.model.compile, job.strategy)
    train_step = _build_train_step(job, sums, xla=xla)
    chief = strategies.worker_index_and_count(job.strategy)[0] == 0
    history = metrics_log.read_history(files.metrics, keep=chief)
    earlier = max((line.get("seconds", 0.0) for line in history.lines), default=0.0)
    return Run(
        job=job,
        files=files,
        sums=sums,
        checkpoints=series,
        best=best,
        inner_loop=steps.build_inner_loop(job.strategy, train_step, job.static_widths),
        eval_step=_build_eval_step(job, xla=xla),
        all_reduce_max=strategies.build_all_reduce_max(job.strategy),
        chief=chief,
        history=history,
        events=metrics_log.open_event_log(files.tensorboard) if config.logging.tensorboard and chief else None,
        sinks=metric_sinks.open_sinks(
            builder.sink_targets(config) if chief else {}, files.root, files.sinks, builder.describe_config(config)
        ),
        elapsed=lambda: earlier + time.monotonic() - started,
        peak_flops=throughput.find_peak_flops(job.strategy, config.precision, config.logging.peak_flops),
    )


def _open_checkpoints(
    job: builder.Job, files: run_files.RunFiles, sums: steps.TrainSums
) -> tuple[CheckpointSeries, CheckpointSeries]:
    """(the series of the complete state, that of the best weights)."""
    training = job.config.training
    # Outside the strategy's scope, since workers cannot exchange a string.
    fingerprint = tf.Variable(
        builder.run_fingerprint(job.config, job.encoder.sha256, job.manifest.fingerprint, job.parent), trainable=False
    )
    state = tf.train.Checkpoint(
        model=job.model,
        optimizer=job.optimizer,
        fingerprint=fingerprint,
        **sums.saved(),
        **({"averages": job.averages.variables} if job.averages else {}),
    )
    weights = tf.train.Checkpoint(model=job.eval_model if job.averages else job.model)
    background = training.background_saves
    if background is None:
        background = strategies.has_accelerator(job.strategy)
    io_device = remote_hosts.coordinator_device(job.strategy)
    series = CheckpointSeries(state, files.checkpoints, training.keep_checkpoints, background, io_device)
    return series, CheckpointSeries(weights, files.best, 1, io_device=io_device)


def _build_train_step(job: builder.Job, sums: steps.TrainSums, *, xla: bool) -> Callable[[steps.Batch], None]:
    config, training = job.config, job.config.training
    return steps.build_train_step(
        job.model,
        job.optimizer,
        sums,
        config.seed,
        job.update,
        training.accumulation_steps,
        losses.build_train_losses(training.loss, training.label_smoothing, training.focal_gamma),
        job.averages,
        job.trained_variables,
        xla=xla,
    )


def _build_eval_step(job: builder.Job, *, xla: bool) -> steps.EvalStep:
    """One that builds itself and job.eval_model when it is first called."""

    @functools.cache
    def build() -> steps.EvalStep:
        step = steps.build_replica_eval_step(job.eval_model, xla=xla)
        return steps.build_eval_step(job.strategy, step, job.static_widths)

    return lambda batches: build()(batches)


def check_scratch_space(run: Run) -> None:
    """Raises UserError if a run in a bucket has too little local space for its checkpoints."""
    model, optimizer = run.job.model.variables, run.job.optimizer.variables()
    averaged = run.job.averages.variables if run.job.averages else []
    # One of each series may be on its way at the same time.
    needed_bytes = sum(v.dtype.size * v.shape.num_elements() for v in [*model, *optimizer, *averaged, *model])
    checkpoints.check_scratch_space(run.checkpoints, needed_bytes)


def restore(run: Run, series: checkpoints.CheckpointSeries) -> int | None:
    """Restore the newest complete checkpoint on every worker. Returns its step, None if there is none yet.

    The chief goes first, since it removes corrupt checkpoints when it falls back. Raises what restore_newest raises,
    and UserError on a worker that does not find the chief's checkpoint.
    """
    step = checkpoints.restore_newest(series) if run.chief else None
    chief_step = int(run.all_reduce_max({"step": -1 if step is None else step})["step"])
    if not run.chief and chief_step >= 0:
        step = chief_step
        try:
            checkpoints.restore_step(series, step)
        except ValueError as error:
            received = f"{run.files.root}, where the chief has the checkpoint of step {step}, but this worker: {error}"
            raise UserError(Problem("--model_dir", "be storage that all workers share", received)) from None
    return step


def restore_best(run: Run) -> int | None:
    """Restore the weights that were best on validation, on every worker. Returns and raises what `restore` does.

    What is evaluated and exported from now on has these weights.
    """
    step = restore(run, run.best)
    if run.job.averages and step is not None:
        averages.copy_from_model(run.job.averages, run.job.eval_model)
    return step


def save(run: Run, series: checkpoints.CheckpointSeries, step: int, *, wait: bool = True) -> None:
    """Save on the chief, whose state is that of every worker."""
    # Before the checkpoint: a run that resumes from it writes none of these lines and events again.
    run.history.publish()
    if run.events:
        run.events.publish()
    if run.chief:
        checkpoints.save_checkpoint(series, step, wait=wait)


def stop_if_requested(run: Run, request: signals.StopRequest) -> None:
    """Raises signals.Stopped on every worker if a signal has come to any."""
    agreed = run.all_reduce_max({"stop": request.reason is not None})
    signals.raise_if_requested(request, bool(agreed["stop"]))


def end_together(run: Run) -> None:
    """Return on every worker when the chief has written its results. Raises one of WORKER_LOST_ERRORS if it is lost.

    A service does not start a worker again that has ended well, and a chief that is lost in its export could not resume
    alone.
    """
    run.all_reduce_max({"finished": True})
    if run.chief and strategies.worker_index_and_count(run.job.strategy)[1] > 1:
        time.sleep(LEAD_S)


def write_line(run: Run, line: metrics_log.LogLine) -> None:
    """Log a line to TensorBoard, then to metrics.jsonl, and from there to the sinks.

    A resumed run does not write what is in metrics.jsonl again.
    """
    if run.events:
        run.events.add(line)
        if line["split"] != "train":  # A train line is published with the next checkpoint.
            run.events.publish()
    run.history.add(line)
    for sink in run.sinks:
        sink.sync(run.history.lines)


def write_evaluation(run: Run, step: int, split: str, summary: Mapping[str, float]) -> None:
    """Log the metrics of a split."""
    write_line(run, {"step": step, "split": split, **summary, "seconds": round(run.elapsed(), 3)})


def read_split(run: Run, split: str, *, with_text: bool = False) -> records.Columns:
    """The rows of a split, in the order of its shards."""
    return records.read_split(run.job.config.data_dir, run.job.manifest, split, with_text=with_text)


def update_eval_model(run: Run) -> tf_keras.Model:
    """Give the model that evaluates and is exported the run's weights, or their averages. Returns it."""
    job = run.job
    classifier.copy_variables(job.model, job.eval_model)
    if job.averages:
        averages.copy_to_model(job.averages, job.eval_model)
    return job.eval_model


def predict_split(
    run: Run, columns: records.Columns, name: str, decision: Decision | None, request: signals.StopRequest
) -> metrics.Predictions:
    """The trained model's predictions, in the label's own units, by the decision if there is one.

    They are computed in config.eval_precision. The losses are those of the standardized labels. Raises signals.Stopped
    between two batches.
    """
    job, scale = run.job, run.job.label_use.scale
    with watchdog.stop_if_stuck("the weights of an evaluation"):
        update_eval_model(run)
    predictions = evaluation.predict_rows(
        job.strategy,
        run.eval_step,
        label_scale.standardize(columns, scale),
        job.manifest,
        job.eval_layout,
        name=name,
        progress=job.config.logging.progress and run.chief,
        after_batch=lambda: stop_if_requested(run, request),
    )
    garbage.collect_recent()
    logits = label_scale.restore_units(predictions.logits, scale)
    predictions = dataclasses.replace(predictions, labels=columns.labels, logits=logits)
    return decisions.apply_decision(predictions, decision)


def measure(run: Run, predictions: metrics.Predictions) -> dict[str, float | int]:
    """The metrics of a split's predictions."""
    job = run.job
    return metrics.compute_metrics(predictions, job.manifest.kind, job.positive, job.label_use.rating_range)


def describe_classes(run: Run, predictions: metrics.Predictions) -> dict[str, Any]:
    """The positive class, the scores of each class and the confusion; of several labels, their scores alone.

    {} for regression.
    """
    job = run.job
    if job.manifest.kind == "regression":
        return {}
    described = metrics.describe_classes(predictions, job.manifest.labels)
    if job.manifest.kind == "multi_label":
        return described
    return {"positive_class": job.label_use.positive_class, **described}


def best_line(run: Run) -> metrics_log.LogLine | None:
    """The validation line of the best step so far.

    That of the weights in best/: a run from before ties were broken by the loss has kept the earliest of equals. A run
    that resumes before the step of best/ has no line for it, and will come to the same best again.
    """
    saved = checkpoints.list_steps(run.files.best)
    line = run.history.at("validation", saved[-1]) if saved else None
    return line or run.history.best(run.job.metric)


def fit_decision(run: Run, step: int, validation: metrics.Predictions) -> Decision | None:
    """What turns logits into scores and labels, with the weights of `step`. None for numbers."""
    if run.job.manifest.kind == "regression":
        return None
    training = run.job.config.training
    return decisions.fit_decision(
        validation,
        step,
        calibrate=training.calibrate,
        threshold_metric=training.threshold_metric,
        positive=run.job.positive,
    )


def load_decision(run: Run, step: int, request: signals.StopRequest) -> Decision | None:
    """The decision that was kept with the best weights, which are restored, those of `step`. None for numbers.

    All workers take part: a run from before decisions were kept evaluates on validation again.
    """
    kept = decisions.read_decision(run.files.decision, step) if run.chief else None
    missing = run.chief and kept is None and run.job.manifest.kind != "regression"
    if not run.all_reduce_max({"missing": missing})["missing"]:
        return kept
    return fit_decision(run, step, predict_split(run, read_split(run, "validation"), "validation", None, request))


def keep_decision(run: Run, decision: Decision | None) -> None:
    """Write decision.json, on the chief."""
    if run.chief and decision:
        decisions.write_decision(run.files.decision, decision)

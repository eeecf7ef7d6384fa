"""The complete run, top to bottom: restore, train, log, save, evaluate, finish."""

import contextlib
import logging
import math
import time
from collections.abc import Iterator
from typing import Any

import tensorflow as tf
import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from trainer.data import batching, label_scale, labels, model_inputs, records, tasks
from trainer.errors import Problem, UserError
from trainer.evals import metrics
from trainer.runtime import signals, trial, watchdog
from trainer.train import advice, checkpoints, example_weights, finish, metrics_log, profiling, runs, steps, throughput
from trainer.train.runs import Run

# The longest time on the device between two checks for a signal. It changes no result.
MAX_INNER_LOOP_S = 5.0
_STOP_FLAG = "--stop_at_step"

_LOG = logging.getLogger(__name__)


def due(step: int, every: int, total: int) -> bool:
    """Whether something that is due every `every` steps is due after this one. Everything is due after the last."""
    return step % every == 0 or step == total


def next_boundary(step: int, total: int, *cadences: int) -> int:
    """The first step after `step` at which anything is due."""
    return min(total, *(step - step % every + every for every in cadences))


def train_and_evaluate(
    run: Run,
    request: signals.StopRequest,
    stop_at_step: int | None = None,
    profiled: profiling.ProfiledSteps | None = None,
) -> dict[str, Any]:
    """Run to the end, or resume from the newest complete checkpoint. Returns what it wrote to result.json.

    The chief profiles the steps `profiled`, which have to be the same on every worker. Raises signals.Stopped, with a
    checkpoint written, after a signal, and after what is due at `stop_at_step`; UserError if the loss is not finite,
    with the last good checkpoint kept.
    """
    job, training = run.job, run.job.config.training
    total, eval_every = job.plan.steps, job.plan.eval_every
    end = min(total, stop_at_step or total)  # Cadences and the learning rate are those of the whole run.
    # Resume; otherwise the model has the pretrained values that it was built with.
    step = runs.restore(run, run.checkpoints) or 0
    run.history.drop_after(step)
    validation = runs.read_split(run, "validation")
    best = None  # The predictions of validation that were best, if this process computed them.
    try:
        if step and due(step, eval_every, total) and not run.history.at("validation", step):
            best = evaluate_at(run, step, validation, request)  # The run was interrupted during this evaluation.
        with (
            training_batches(run, step) as batches,
            progress(run, step) as bar,
            profiling.profile_steps(run.files.tensorboard, profiled if run.chief else None) as profile_at,
        ):
            max_steps, work = 1, throughput.start(step)
            waited = evaluations_waited(run)
            profile_at(step)
            while step < end and not out_of_patience(run, waited):
                boundary = next_boundary(step, end, training.log_every, training.save_every, eval_every)
                count = min(profiling.next_boundary(step, boundary, profiled) - step, max_steps)
                stop, seconds = run_inner_loop(run, batches, count, request, work)
                max_steps = max(1, int(count * MAX_INNER_LOOP_S / seconds))
                step += count
                profile_at(step)
                bar.update(job.plan.examples_at(step) - bar.n)
                evaluates = due(step, eval_every, total)
                # The last step logs and saves, before it evaluates: so does one whose evaluation may be the last.
                last = step == total or (evaluates and out_of_patience(run, waited + 1))
                if last or due(step, training.log_every, total):
                    log_steps(run, step, work, bar)
                    work = throughput.start(step)
                if stop or last or due(step, training.save_every, total):
                    runs.save(run, run.checkpoints, step, wait=stop or last)
                signals.raise_if_requested(request, stop)
                if evaluates:
                    best = evaluate_at(run, step, validation, request) or best
                    waited = evaluations_waited(run)
                    work = throughput.start(step)
        if step < total:
            if not out_of_patience(run, waited):
                request.reason = request.reason or _STOP_FLAG
                signals.raise_if_requested(request, True)
            _LOG.info("%s", advice.on_early_stop(step, total, job.metric, waited))
        return finish.finish_run(run, request, best)
    except signals.Stopped:
        raise save_for_resume(run, step, request) from None


def save_for_resume(run: Run, step: int, request: signals.StopRequest) -> signals.Stopped:
    """Save the state of this step, unless it is saved. Returns the error that says how the run goes on."""
    if step and not checkpoints.is_saved(run.checkpoints, step):
        runs.save(run, run.checkpoints, step)
    again = f"without {_STOP_FLAG}" if request.reason == _STOP_FLAG else "again"
    return signals.Stopped(
        f"stopped by {request.reason} at step {step:,} of {run.job.plan.steps:,}, with a checkpoint. Run the same "
        f"command {again} to resume."
    )


def evaluations_waited(run: Run) -> int:
    """How many evaluations in a row were no better than one before them, the same on every worker; 0 if none counts."""
    if run.job.config.training.patience is None:
        return 0
    waited = run.history.evaluations_since_best(run.job.metric) if run.chief else 0
    return int(run.all_reduce_max({"waited": waited})["waited"])


def out_of_patience(run: Run, waited: int) -> bool:
    """Whether a run ends that has waited for a better evaluation this often."""
    patience = run.job.config.training.patience
    return patience is not None and waited >= patience


def run_inner_loop(
    run: Run, batches: Any, count: int, request: signals.StopRequest, work: throughput.Throughput
) -> tuple[bool, float]:
    """Train `count` steps, and add them to `work`.

    Returns, the same on every worker, whether any has to stop and the longest time in seconds. Raises UserError if a
    loss or a gradient was not finite.
    """
    started = time.monotonic()
    with watchdog.stop_if_stuck("training steps"):
        throughput.add(work, run.inner_loop(batches, tf.constant(count)))
        stop_if_not_finite(run)
        largest = run.all_reduce_max({"stop": request.reason is not None, "seconds": time.monotonic() - started})
    return bool(largest["stop"]), largest["seconds"]


@contextlib.contextmanager
def training_batches(run: Run, step: int) -> Iterator[Any]:
    """An iterator over the global batches after `step`, in a block that raises what reading them raised."""
    job = run.job
    stream = batching.train_batches(
        job.config.data_dir, job.manifest, job.order, job.layout.batch_size, step, job.plan.examples
    )
    stream = (label_scale.standardize(batch, job.label_use.scale) for batch in stream)
    stream = (example_weights.weigh_examples(batch, job.class_weights) for batch in stream)
    with model_inputs.original_exceptions(stream) as stream:
        yield model_inputs.distribute_model_inputs(job.strategy, stream, job.manifest, job.layout)


@contextlib.contextmanager
def progress(run: Run, step: int) -> Iterator[tqdm.tqdm]:
    """A bar with examples/s and the time left, on standard error. Log lines are written above it."""
    plan = run.job.plan
    bar = tqdm.tqdm(
        total=plan.examples,
        initial=plan.examples_at(step),
        desc="training",
        unit=" examples",
        disable=not (run.job.config.logging.progress and run.chief),
        smoothing=0.1,
    )
    package_log = logging.getLogger("trainer")
    # In a service the logger has no handler of its own, and must not get a second one.
    with bar, logging_redirect_tqdm([package_log]) if package_log.handlers else contextlib.nullcontext():
        yield bar


def log_steps(run: Run, step: int, work: throughput.Throughput, bar: tqdm.tqdm) -> None:
    """Write the line of the steps since the last one, whose sums are set to zero."""
    line = train_line(run, step, work)
    steps.reset_sums(run.sums)
    runs.write_line(run, line)
    bar.set_postfix_str(f"loss {line['loss']:.4f}", refresh=False)


def train_line(run: Run, step: int, work: throughput.Throughput) -> metrics_log.LogLine:
    """The line of the steps since the last one. Loss and accuracy are means by weight, 0 if all weights are 0.

    What throughput.describe adds is of this process alone, and of `work`: an evaluation in between is left out.
    """
    lines = run.history.of("train")  # Only the chief has them, and writes this one.
    examples = run.job.plan.examples_at(step) - run.job.plan.examples_at(lines[-1]["step"] if lines else 0)
    weight = float(run.sums.weight.numpy()) or 1.0
    line = {"step": step, "split": "train", "examples": examples, "loss": float(run.sums.loss.numpy()) / weight}
    if run.job.manifest.kind == "classification":
        line["accuracy"] = float(run.sums.correct.numpy()) / weight
    line["learning_rate"] = float(run.job.optimizer.learning_rate(step - 1))
    examples_here = run.job.plan.examples_at(step) - run.job.plan.examples_at(work.step)
    line |= throughput.describe(work, examples_here, run.job.encoder.architecture, run.peak_flops)
    line["seconds"] = round(run.elapsed(), 3)
    return line


def stop_if_not_finite(run: Run) -> None:
    """Raises UserError if a loss or a gradient since the last log line was not finite."""
    step = int(run.sums.bad_step.numpy())
    if step:
        kept = checkpoints.list_checkpoints(run.checkpoints.folder)
        advice = (
            "Lower --optimizer.learning_rate or raise --optimizer.warmup_fraction, in another --model_dir. The last "
            f"good checkpoint is {kept[-1] if kept else 'none: none was due yet'}."
        )
        raise UserError(
            Problem("The loss and its gradients", "be finite", f"some that are not, at step {step}", advice)
        )


def evaluate_at(
    run: Run, step: int, validation: records.Columns, request: signals.StopRequest
) -> metrics.Predictions | None:
    """Evaluate on validation, keep the weights if they are the best so far, and log the line.

    Returns the predictions if they are the best so far, without a decision. Raises UserError if the metric that selects
    the best, or the loss, is no finite number.
    """
    metric = run.job.metric
    predictions = runs.predict_split(run, validation, "validation", None, request)
    summary = runs.measure(run, predictions)
    bad = [name for name in (metric, "loss") if not math.isfinite(summary.get(name, math.nan))]
    if bad:  # The accuracy is finite even if the loss is NaN.
        required, received = "be a number on validation", f"none at step {step:,}, with a loss of {summary['loss']}"
        raise UserError(Problem(bad[0], required, received, "Lower --optimizer.learning_rate, in another --model_dir."))
    earlier = runs.best_line(run)
    is_best = earlier is None or metrics_log.rank(summary, metric) > metrics_log.rank(earlier, metric)
    if is_best:
        runs.save(run, run.best, step)  # Before the line: a run that is interrupted here evaluates again.
        if run.chief:
            runs.keep_decision(run, runs.fit_decision(run, step, predictions))
    runs.write_evaluation(run, step, "validation", summary)
    if run.chief:
        lines = run.history.of("validation")
        if problem := trial.report_best(lines, metric, lower_is_better=metric in tasks.LOWER_IS_BETTER):
            _LOG.warning("%s", problem)  # It must not cost the run: at its end it is tried again.
        values = (labels.format_number(summary[name]) for name in (metric, "loss"))
        _LOG.info("step %s: validation %s %s, loss %s", f"{step:,}", metric, *values)
    return predictions if is_best else None

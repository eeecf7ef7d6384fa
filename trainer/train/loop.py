"""train_and_evaluate: the whole run, top to bottom. Restore, train, log, save, evaluate; then test, export, report."""

import json
import sys
import time
from importlib.metadata import version
from typing import Any

import tensorflow as tf
import tqdm

from trainer.data import batching, model_inputs
from trainer.distributed import strategies
from trainer.evals import metrics
from trainer.runtime import signals, trial, versions
from trainer.storage import fs
from trainer.train import checkpoints, metrics_log, report, runs, steps
from trainer.train.runs import Run

# The longest stretch on the device between two looks at the signals, in seconds; it changes no result.
MAX_INNER_LOOP_S = 5.0


def due(step: int, every: int, total: int) -> bool:
    """Whether what happens every `every` steps happens after this one. The last step has everything."""
    return step % every == 0 or step == total


def next_boundary(step: int, total: int, *cadences: int) -> int:
    """The first step after `step` at which anything is due."""
    return min(total, *(step - step % every + every for every in cadences))


def train_and_evaluate(run: Run, request: signals.StopRequest) -> dict[str, Any]:
    """Run to the end, or on to it from the newest whole checkpoint. Returns what it wrote to result.json.

    Raises signals.Stopped, with a checkpoint written, after a signal; ValueError if the loss is not
    finite, with the last good checkpoint kept.
    """
    job, training = run.job, run.job.config.training
    total, eval_every = job.plan.steps, job.plan.eval_every
    # Resume, or else the pretrained values that the model was built with.
    step = runs.restore(run, run.checkpoints) or 0
    run.history.drop_after(step)
    validation = runs.read_split(run, "validation")
    try:
        if step and due(step, eval_every, total) and not run.history.at("validation", step):
            evaluate_at(run, step, validation, request)  # cut during that evaluation
        batches = training_batches(run, step)
        with progress(run, step) as bar:
            allowed, logged = 1, (step, time.monotonic())
            while step < total:
                stop = min(
                    next_boundary(step, total, training.log_every, training.save_every, eval_every), step + allowed
                )
                began = time.monotonic()
                run.window(batches, tf.constant(stop - step))
                stop_if_not_finite(run)
                agreed = run.agree({"stop": request.reason is not None, "seconds": time.monotonic() - began})
                asked = bool(agreed["stop"])
                allowed = max(1, int((stop - step) * MAX_INNER_LOOP_S / agreed["seconds"]))
                step = stop
                bar.update(run.job.plan.examples_at(step) - bar.n)
                if due(step, training.log_every, total):
                    line = train_line(run, step, *logged)
                    bar.set_postfix_str(f"loss {line['loss']:.4f}", refresh=False)
                    runs.write_line(run, line)
                    logged = (step, time.monotonic())
                if asked or due(step, training.save_every, total):
                    runs.save(run, run.checkpoints, step, wait=asked or step == total)
                signals.raise_if_requested(request, asked)
                if due(step, eval_every, total):
                    evaluate_at(run, step, validation, request)
                    logged = (step, time.monotonic())
        return close(run, request)
    except signals.Stopped:
        if step and not checkpoints.is_saved(run.checkpoints, step):
            runs.save(run, run.checkpoints, step)
        raise signals.Stopped(
            f"stopped by {request.reason} at step {step:,} of {total:,}, with a checkpoint. Run the same command again "
            "to go on."
        ) from None


def training_batches(run: Run, step: int) -> Any:
    """An iterator over the global batches from `step` on."""
    job = run.job
    stream = batching.train_batches(
        job.config.data_dir, job.manifest, job.order, job.layout.batch_size, step, job.plan.examples
    )
    return strategies.distribute_batches(job.strategy, model_inputs.to_model_inputs(stream, job.manifest, job.layout))


def progress(run: Run, step: int) -> tqdm.tqdm:
    """A bar with examples/s and the time left, on standard error."""
    plan = run.job.plan
    return tqdm.tqdm(
        total=plan.examples,
        initial=plan.examples_at(step),
        desc="training",
        unit=" examples",
        disable=not (run.job.config.logging.progress and run.chief),
        smoothing=0.1,
    )


def train_line(run: Run, step: int, logged_step: int, logged_at: float) -> metrics_log.LogLine:
    """The line of the steps since the last, and the sums back to zero. examples_per_second is of this process alone."""
    weight = float(run.sums.weight.numpy())
    line = {"step": step, "split": "train", "examples": round(weight), "loss": float(run.sums.loss.numpy()) / weight}
    if run.job.manifest.kind == "classification":
        line["accuracy"] = float(run.sums.correct.numpy()) / weight
    steps.reset_sums(run.sums)
    examples = run.job.plan.examples_at(step) - run.job.plan.examples_at(logged_step)
    line["learning_rate"] = float(run.job.optimizer.learning_rate(step - 1))
    line["examples_per_second"] = round(examples / (time.monotonic() - logged_at), 2)
    line["seconds"] = round(run.elapsed(), 3)
    return line


def stop_if_not_finite(run: Run) -> None:
    bad = int(run.sums.bad_step.numpy())
    if bad:
        kept = checkpoints.list_checkpoints(run.checkpoints.folder)
        raise ValueError(
            f"The loss and its gradients must be finite. Received: some that are not, at step {bad}. Lower "
            "optimizer.learning_rate or raise "
            "optimizer.warmup_fraction with --set, in another --model_dir. The last good checkpoint is "
            f"{kept[-1] if kept else 'none: none was due yet'}."
        )


def evaluate_at(run: Run, step: int, validation: Any, request: signals.StopRequest) -> None:
    """Evaluate on validation, keep the weights if they are the best so far, log the line."""
    metric = run.job.metric
    summary = metrics.compute_metrics(runs.predict_split(run, validation, "validation", request), run.job.manifest.kind)
    best = run.history.best(metric)
    if best is None or summary[metric] > best[metric]:
        runs.save(run, run.bests, step)  # before the line: a run cut between the two evaluates again
    runs.write_line(run, {"step": step, "split": "validation", **summary, "seconds": round(run.elapsed(), 3)})
    if run.chief:
        trial.report_best(run.history.of("validation"), metric)
        tqdm.tqdm.write(
            f"step {step:,}: validation {metric} {summary[metric]:.4f}, loss {summary['loss']:.4f}", file=sys.stderr
        )


def close(run: Run, request: signals.StopRequest) -> dict[str, Any]:
    """With the best checkpoint by validation: the test, once; the export; the picture; result.json last.

    All workers take part in the test; the chief alone writes.
    """
    job, history = run.job, run.history
    best = history.best(job.metric)
    assert best is not None  # the last step evaluates
    if run.chief:
        # Again for a run that was interrupted before it, or resumed on another machine.
        trial.report_best(history.of("validation"), job.metric)
    runs.restore(run, run.bests)
    if not history.of("test"):  # it is there if the run was cut after it
        summary = metrics.compute_metrics(
            runs.predict_split(run, runs.read_split(run, "test"), "test", request), job.manifest.kind
        )
        runs.write_line(run, {"step": job.plan.steps, "split": "test", **summary, "seconds": round(run.elapsed(), 3)})
    (test,) = history.of("test")
    difference = runs.export_run(run, request)
    if not run.chief:
        return {}
    report.draw_history(
        history,
        job.metric,
        run.files.picture,
        f"{job.manifest.task}, {job.config.encoder}: test {job.metric} {test[job.metric]:.4f}",
    )
    result = {
        "task": job.manifest.task,
        "steps": job.plan.steps,
        "best_step": best["step"],
        "seconds": round(run.elapsed(), 3),
        "validation": metrics_log.metric_values(best),
        "test": metrics_log.metric_values(test),
        "export_difference": difference,
        "precision": job.config.precision,
        "encoder": {"name": job.config.encoder, "path": job.encoder.path, "sha256": job.encoder.sha256},
        "data_fingerprint": job.manifest.fingerprint,
        "versions": {package: version(package) for package in versions.REQUIRED_VERSIONS},
    }
    fs.write_text(run.files.result, json.dumps(result, indent=1) + "\n")
    return result

"""The end of a run: the test with the best weights, the export, the picture, result.json, and then the report."""

import dataclasses
import logging
import math
from importlib.metadata import version
from typing import Any

from trainer.data import tasks
from trainer.data.labels import format_number
from trainer.evals import metrics, prediction_files
from trainer.runtime import signals, versions
from trainer.storage import fs
from trainer.train import (
    advice,
    decisions,
    machine,
    metrics_log,
    optimizers,
    run_exports,
    run_report,
    run_summary,
    runs,
)
from trainer.train.metrics_log import LogLine
from trainer.train.runs import Run

_LOG = logging.getLogger(__name__)


def finish_run(run: Run, request: signals.StopRequest, validation: metrics.Predictions | None = None) -> dict[str, Any]:
    """Test and export the best weights by validation. Returns what the chief writes to result.json; {} elsewhere.

    `validation` are these weights' predictions of it, without a decision, if they have been computed. All workers take
    part in the test, and end together. Raises signals.Stopped after a signal; the same command resumes here.
    """
    job = run.job
    step = runs.restore_best(run)
    best = runs.best_line(run)
    assert step is not None  # The last step evaluates.
    assert best is not None
    decision = runs.load_decision(run, step, request)
    runs.keep_decision(run, decision)
    predictions = runs.predict_split(run, runs.read_split(run, "test"), "test", decision, request)
    test = test_line(run, predictions)
    difference = run_exports.export_run(run, decision, request, predictions)
    if run.chief:
        keep_test_predictions(run, predictions)
    decided = decisions.describe_result(decision, predictions, job.manifest.labels)
    result = write_result(run, best, test, predictions, decided, difference) if run.chief else {}
    run_report.write_at_end(run, result, predictions, decision, request, validation)
    runs.end_together(run)
    return result


def write_result(
    run: Run,
    best: LogLine,
    test: LogLine,
    predictions: metrics.Predictions,
    decided: dict[str, Any],
    export_difference: float,
) -> dict[str, Any]:
    """Draw history.png and write result.json, whose values it returns.

    `best` and `test` are lines of metrics.jsonl, `predictions` those of test, and `decided` is of
    decisions.describe_result.
    """
    job = run.job
    unlearned = advice.on_reference(job.manifest, job.label_use.scale, predictions)
    for note in unlearned:
        _LOG.warning("%s", note)
    draw_picture(run, best, test)
    warmup = optimizers.warmup_steps(job.plan.steps, job.config.optimizer.warmup_fraction)
    evaluated = [line["step"] for line in run.history.of("validation")]
    notes = [*unlearned, *advice.on_best_step(best["step"], evaluated, warmup)]
    if evaluated[-1] < job.plan.steps:
        waited = run.history.evaluations_since_best(job.metric)
        notes.append(advice.on_early_stop(evaluated[-1], job.plan.steps, job.metric, waited))
    classes = runs.describe_classes(run, predictions)
    result = build_result(run, best, test, classes, notes, export_difference) | decided
    fs.write_json(run.files.result, result)
    return result


def keep_test_predictions(run: Run, predictions: metrics.Predictions) -> None:
    """Write the test's predictions, by which scripts/compare.py compares runs."""
    manifest = run.job.manifest
    source = prediction_files.PredictionSource(manifest.fingerprint, "test", manifest.kind, manifest.labels)
    prediction_files.write_predictions(run.files.test_predictions, predictions, source)


def draw_picture(run: Run, best: LogLine, test: LogLine) -> None:
    """Draw history.png: the loss, in the label's own units, and the metric that selects the best."""
    job, scale = run.job, run.job.label_use.scale
    kind = job.manifest.kind
    # The loss has a chart of its own: for a metric like it, the main one is shown.
    metric = tasks.MAIN_METRIC[kind] if job.metric in tasks.LOWER_IS_BETTER else job.metric
    title = f"{job.manifest.task}, {job.config.encoder}: test {metric} {format_number(test.get(metric, math.nan))}"
    squared_unit = (scale.deviation if scale else 1.0) ** 2 if kind == "regression" else None
    run_summary.draw_history(run.history, metric, best["step"], run.files.picture, title, squared_unit)


def last_step(run: Run) -> int:
    """The steps that the run was trained for. The last one evaluates."""
    return int(run.history.of("validation")[-1]["step"])


def test_line(run: Run, predictions: metrics.Predictions) -> LogLine:
    """The line of the test split. It is written unless a process of this run has done so before."""
    if not run.history.of("test"):
        runs.write_evaluation(run, last_step(run), "test", runs.measure(run, predictions))
    (line,) = run.history.of("test")
    return line


def build_result(
    run: Run,
    best: LogLine,
    test: LogLine,
    test_classes: dict[str, Any],
    notes: list[str],
    export_difference: float,
) -> dict[str, Any]:
    """result.json's values. `best` and `test` are lines of metrics.jsonl."""
    job, scale = run.job, run.job.label_use.scale
    return {
        "task": job.manifest.task,
        "texts": job.manifest.texts,
        "steps": last_step(run),
        "planned_steps": job.plan.steps,
        "stopped_early": last_step(run) < job.plan.steps,
        "best_step": best["step"],
        "best_metric": job.metric,
        "seconds": round(run.elapsed(), 3),
        "validation": metrics_log.metric_values(best),
        "test": metrics_log.metric_values(test),
        "test_classes": test_classes,
        "label_scale": dataclasses.asdict(scale) if scale else None,
        "notes": notes,
        "export_difference": export_difference,
        "precision": job.config.precision,
        "machine": machine.describe_machine(job.strategy),
        "encoder": {"name": job.config.encoder, "path": job.encoder.path, "sha256": job.encoder.sha256},
        "data_fingerprint": job.manifest.fingerprint,
        **({"parent": dataclasses.asdict(job.parent)} if job.parent else {}),
        "versions": {package: version(package) for package in versions.REQUIRED_VERSIONS},
    }

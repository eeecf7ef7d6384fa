"""The end of a run: the test with the best weights, the export, the picture, and result.json last."""

import dataclasses
import json
from importlib.metadata import version
from typing import Any

from trainer.evals import metrics
from trainer.runtime import signals, trial, versions
from trainer.storage import fs
from trainer.train import metrics_log, report, runs
from trainer.train.metrics_log import LogLine
from trainer.train.runs import Run


def finish_run(run: Run, request: signals.StopRequest) -> dict[str, Any]:
    """Test and export the best weights by validation. Returns what the chief writes to result.json; {} elsewhere.

    All workers take part in the test. Raises signals.Stopped after a signal; the same command resumes here.
    """
    best = run.history.best(run.job.metric)
    assert best is not None  # The last step evaluates.
    if run.chief:
        # Again, for a run that was interrupted before it, or resumed on another machine.
        trial.report_best(run.history.of("validation"), run.job.metric)
    runs.restore(run, run.best)
    test = test_once(run, request)
    difference = runs.export_run(run, request)
    if not run.chief:
        return {}
    job = run.job
    title = f"{job.manifest.task}, {job.config.encoder}: test {job.metric} {test[job.metric]:.4f}"
    report.draw_history(run.history, job.metric, run.files.picture, title)
    result = build_result(run, best, test, difference)
    fs.write_text(run.files.result, json.dumps(result, indent=1) + "\n")
    return result


def test_once(run: Run, request: signals.StopRequest) -> LogLine:
    """The line of the test split, which is evaluated unless a process of this run has done so before."""
    if not run.history.of("test"):
        predictions = runs.predict_split(run, runs.read_split(run, "test"), "test", request)
        runs.write_evaluation(
            run, run.job.plan.steps, "test", metrics.compute_metrics(predictions, run.job.manifest.kind)
        )
    (line,) = run.history.of("test")
    return line


def build_result(run: Run, best: LogLine, test: LogLine, export_difference: float) -> dict[str, Any]:
    """result.json's values. `best` and `test` are lines of metrics.jsonl."""
    job = run.job
    return {
        "task": job.manifest.task,
        "steps": job.plan.steps,
        "best_step": best["step"],
        "seconds": round(run.elapsed(), 3),
        "validation": metrics_log.metric_values(best),
        "test": metrics_log.metric_values(test),
        "export_difference": export_difference,
        "precision": job.config.precision,
        "encoder": {"name": job.config.encoder, "path": job.encoder.path, "sha256": job.encoder.sha256},
        "data_fingerprint": job.manifest.fingerprint,
        **({"parent": dataclasses.asdict(job.parent)} if job.parent else {}),
        "versions": {package: version(package) for package in versions.REQUIRED_VERSIONS},
    }

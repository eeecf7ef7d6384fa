"""A trial of a tuning job: what it is judged by, told through Google's cloudml-hypertune, whose file the service reads.

One tag, validation/<main metric>: validation/accuracy, or validation/pearson for a regression. Its value is the best
so far, which is what best/ and the export hold. So the trial is judged by result.json's validation metric whether the
service takes a trial's last measurement (its default) or its best:
https://cloud.google.com/vertex-ai/docs/reference/rest/v1/StudySpec#measurementselectiontype
"""

import json
import os
from collections.abc import Sequence
from typing import Any

from trainer.runtime import vertex_env


def metric_tag(metric: str) -> str:
    """What the trainer reports `metric` as, such as validation/accuracy."""
    return f"validation/{metric}"


def report_best(lines: Sequence[dict[str, Any]], metric: str) -> None:
    """Report the best of these lines of metrics.jsonl (the validation's so far) at the last one's step.

    Nothing if the step has been reported, by this process or by one before it on this machine, nor if this is no trial.
    """
    number = vertex_env.trial_number(os.environ)
    if number is None or not lines:
        return
    import hypertune

    tag = metric_tag(metric)
    reporter = hypertune.HyperTune()  # makes the file's folder
    reporter.trial_id = number
    reporter.metrics_queue.extend(_measurements(reporter.metric_path))  # it writes the file anew for each
    steps = [int(measured["global_step"]) for measured in reporter.metrics_queue if tag in measured]
    if lines[-1]["step"] > max(steps, default=-1):
        best = max(line[metric] for line in lines)
        reporter.report_hyperparameter_tuning_metric(tag, best, lines[-1]["step"])


def _measurements(path: str) -> list[dict[str, str]]:
    """What the file holds; a line that was cut by a kill is left out."""
    found = []
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            for line in file:
                try:
                    found.append(json.loads(line))
                except ValueError:
                    continue
    return found

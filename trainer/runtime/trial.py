"""A trial of a tuning job: the metric file that the tuning service reads.

The file's format is that of cloudml-hypertune, which Vertex AI's documentation has a trainer report with
(https://cloud.google.com/vertex-ai/docs/training/code-requirements#hp-tuning-metric): a JSON object a line, the newest
100 (https://github.com/GoogleCloudPlatform/cloudml-hypertune/blob/master/hypertune/hypertune.py). It is written here,
since that package has development releases only.

One tag, validation/<the metric that selects the best step>: training.best_metric, by default validation/accuracy, or
validation/pearson for a regression. Its value is the best so far, which is what best/ and the export hold. So the trial
is judged by result.json's validation metric whether the service reads a trial's last measurement (its default) or its
best:
https://cloud.google.com/vertex-ai/docs/reference/rest/v1/StudySpec#measurementselectiontype
"""

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainer.runtime import vertex_env

MAX_MEASUREMENTS = 100


def metric_tag(metric: str) -> str:
    """The name under which a trial reports `metric`, such as validation/accuracy."""
    return f"validation/{metric}"


def report_best(lines: Sequence[dict[str, Any]], metric: str, *, lower_is_better: bool = False) -> None:
    """Report the best value of `metric` so far, at the step of the last evaluation.

    `lines` are those of metrics.jsonl for validation. Does nothing outside a trial, nor if that step has been reported,
    by this process or by an earlier one on this machine.
    """
    number = vertex_env.trial_number(os.environ)
    if number is None or not lines:
        return
    path = Path(os.environ.get("CLOUD_ML_HP_METRIC_FILE", "/tmp/hypertune/output.metrics"))
    tag, step = metric_tag(metric), lines[-1]["step"]
    measurements = _read_measurements(path)
    if step <= max((int(row["global_step"]) for row in measurements if tag in row), default=-1):
        return
    measurement = {
        "timestamp": time.time(),
        "trial": number,
        tag: str(float((min if lower_is_better else max)(line[metric] for line in lines))),
        "global_step": str(step),
        "checkpoint_path": "",
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [json.dumps(row, sort_keys=True) + "\n" for row in [*measurements, measurement][-MAX_MEASUREMENTS:]]
    path.write_text("".join(rows), encoding="utf-8")


def _read_measurements(path: Path) -> list[dict[str, Any]]:
    """The file's measurements, without a line that a kill interrupted."""
    if not path.exists():
        return []
    measurements = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            measurements.append(json.loads(line))
        except ValueError:
            continue
    return measurements

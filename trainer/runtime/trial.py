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

Vertex AI names /var/hypertune/output.metrics, in a folder of root's
(https://github.com/GoogleCloudPlatform/cloudml-hypertune/issues/6). In the images that folder is their user's, and that
user may take the one that the service mounts in its place. Whether the file can be written is checked before anything
is trained. After that it stops no run: what could not be written is reported when the run is complete.
"""

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainer.errors import Problem, UsageError
from trainer.runtime import vertex_env

MAX_MEASUREMENTS = 100
SERVICE_FOLDER = Path("/var/hypertune")
# The one command that the user of the images may run as root.
TAKE_SERVICE_FOLDER = ("sudo", "--non-interactive", "/usr/bin/chown", "trainer", str(SERVICE_FOLDER))


def metric_tag(metric: str) -> str:
    """The name under which a trial reports `metric`, such as validation/accuracy."""
    return f"validation/{metric}"


def metric_path() -> Path | None:
    """The file that the tuning service reads; None outside a trial."""
    if vertex_env.trial_number(os.environ) is None:
        return None
    return Path(os.environ.get("CLOUD_ML_HP_METRIC_FILE", "/tmp/hypertune/output.metrics"))


def check_metric_file() -> None:
    """Raises UsageError if this is a trial whose metric could not be written. No file is left behind."""
    path = metric_path()
    if path is None:
        return
    try:
        try:
            _try_to_write(path)
        except PermissionError:
            if path.parent != SERVICE_FOLDER or not shutil.which(TAKE_SERVICE_FOLDER[0]):
                raise
            subprocess.run(TAKE_SERVICE_FOLDER, capture_output=True, check=False)
            _try_to_write(path)
    except OSError as error:
        advice = "Build the image with --build-arg=RUN_AS=root, or change the owner of the folder."
        raise UsageError(_describe_problem(path, error, advice)) from None


def _try_to_write(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        path.open("a").close()
    else:
        tempfile.TemporaryFile(dir=path.parent).close()


def _describe_problem(path: Path, error: OSError, advice: str) -> Problem:
    required = "name a file that this user can write: the tuning service reads the trial's metric there"
    received = f"{path}, and for the user with the id {os.getuid()}: {error.strerror or error}"
    return Problem("CLOUD_ML_HP_METRIC_FILE", required, received, advice)


def report_best(lines: Sequence[dict[str, Any]], metric: str, *, lower_is_better: bool = False) -> Problem | None:
    """Report the best value of `metric` so far, at the step of the last evaluation.

    `lines` are those of metrics.jsonl for validation. Does nothing outside a trial, nor if that step has been reported,
    by this process or by an earlier one on this machine. Returns the problem if the file cannot be written.
    """
    path = metric_path()
    if path is None or not lines:
        return None
    tag, step = metric_tag(metric), lines[-1]["step"]
    measurement = {
        "timestamp": time.time(),
        "trial": vertex_env.trial_number(os.environ),
        tag: str(float((min if lower_is_better else max)(line[metric] for line in lines))),
        "global_step": str(step),
        "checkpoint_path": "",
    }
    try:
        measurements = _read_measurements(path)
        if step <= max((int(row["global_step"]) for row in measurements if tag in row), default=-1):
            return None
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [json.dumps(row, sort_keys=True) + "\n" for row in [*measurements, measurement][-MAX_MEASUREMENTS:]]
        path.write_text("".join(rows), encoding="utf-8")
    except OSError as error:
        advice = (
            "What was trained is kept in the model_dir. The same command, where the file can be written, reports the "
            "metric of a complete run without training again."
        )
        return _describe_problem(path, error, advice)
    return None


def _read_measurements(path: Path) -> list[dict[str, Any]]:
    """The file's measurements, without a line that a kill interrupted."""
    if not path.exists():
        return []
    measurements = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            measurements.append(json.loads(line))
        except ValueError:
            continue
    return measurements

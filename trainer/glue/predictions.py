"""What the export of a run predicts for texts, kept in its folder."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trainer import child_process
from trainer.data import glue, tasks
from trainer.glue import processes
from trainer.runtime.signals import StopRequest
from trainer.storage import fs

FOLDER = "glue"  # In the model_dir.
# Tasks whose labels are 0 and 1 in the files. Of the others the submission has the classes' names.
_NUMBERED = ("cola", "sst2", "mrpc", "qqp", "wnli")
SCORE_DECIMALS = 3  # As STS-B's own.


def predict(model_dir: str, name: str, rows: Sequence[Sequence[str]], request: StopRequest) -> list[dict[str, Any]]:
    """What the run's export predicts for rows of one text or two: {"scores": [number, ...], "label": class} of each.

    The scores are one for each class, or the number; the label is None for numbers. They are kept in the run's folder
    as glue/NAME.json, and computed again for other texts or another result of the run. Raises what processes.run does.
    """
    content = json.dumps(rows)
    path = fs.join(model_dir, FOLDER, f"{name}.json")
    result = fs.read_text(fs.join(model_dir, "result.json"))
    key = hashlib.sha256(f"{result}\0{content}".encode()).hexdigest()
    kept = fs.read_json(path) if fs.exists(path) else {}
    if kept.get("key") != key or "predicted" not in kept:
        command = child_process.command("trainer.export.predict", fs.join(model_dir, "export"))
        output = processes.run(f"The prediction of {name}", command, request, content)
        kept = {"key": key, "predicted": json.loads(output.splitlines()[-1])}
        fs.make_folder(fs.join(model_dir, FOLDER))
        fs.write_text(path, json.dumps(kept))
    predicted: list[dict[str, Any]] = kept["predicted"]
    return predicted


def submission_labels(task: str, predicted: Sequence[Mapping[str, Any]]) -> list[str]:
    """The labels of a submission, as GLUE's server expects them, of what `predict` returns.

    They are those that the export decides on, and not the likeliest classes: a run with a threshold of its own
    (training.threshold_metric) is measured on dev with it, and the server has to measure the same.
    """
    names = tasks.TASKS[task].labels
    if names is None:
        lowest, highest = glue.SCORE_RANGE
        return [f"{min(max(row['scores'][0], lowest), highest):.{SCORE_DECIMALS}f}" for row in predicted]
    return [str(names.index(row["label"])) if task in _NUMBERED else row["label"] for row in predicted]


def mismatched_accuracy(model_dir: str, glue_dir: str, request: StopRequest) -> float:
    """The accuracy of a run of mnli on dev_mismatched, other genres than those of train."""
    rows = glue.read_mismatched(glue_dir)
    predicted = predict(model_dir, "dev_mismatched", [(row.text, row.text_b or "") for row in rows], request)
    return float(np.mean([found["label"] == row.label for found, row in zip(predicted, rows, strict=True)]))

"""Scores of texts with the export of a run, kept in its folder."""

import hashlib
import json
from collections.abc import Sequence

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


def score(model_dir: str, name: str, rows: Sequence[Sequence[str]], request: StopRequest) -> np.ndarray:
    """The scores of rows of one text or two, float32 [rows, classes], [rows, 1] for numbers.

    They are kept in the run's folder as glue/NAME.json, and computed again for other texts or another result of the
    run. Raises what processes.run does.
    """
    content = json.dumps(rows)
    path = fs.join(model_dir, FOLDER, f"{name}.json")
    result = fs.read_text(fs.join(model_dir, "result.json"))
    key = hashlib.sha256(f"{result}\0{content}".encode()).hexdigest()
    kept = json.loads(fs.read_text(path)) if fs.exists(path) else {}
    if kept.get("key") != key:
        command = child_process.command("trainer.export.predict", fs.join(model_dir, "export"))
        output = processes.run(f"The prediction of {name}", command, request, content)
        kept = {"key": key, "scores": json.loads(output.splitlines()[-1])}
        fs.make_folder(fs.join(model_dir, FOLDER))
        fs.write_text(path, json.dumps(kept))
    scores: np.ndarray = np.array(kept["scores"], np.float32)
    return scores


def submission_labels(task: str, scores: np.ndarray) -> list[str]:
    """The labels of a submission, as GLUE's server expects them, from scores, float32 [rows, classes]."""
    names = tasks.TASKS[task].labels
    if names is None:
        return [f"{value:.{SCORE_DECIMALS}f}" for value in np.clip(scores[:, 0], *glue.SCORE_RANGE)]
    likeliest = scores.argmax(axis=1)
    return [str(index) if task in _NUMBERED else names[index] for index in likeliest]


def mismatched_accuracy(model_dir: str, glue_dir: str, request: StopRequest) -> float:
    """The accuracy of a run of mnli on dev_mismatched, other genres than those of train."""
    rows = glue.read_mismatched(glue_dir)
    scores = score(model_dir, "dev_mismatched", [(row.text, row.text_b or "") for row in rows], request)
    names = tasks.TASKS["mnli"].labels or ()
    return float(np.mean([names[index] == row.label for index, row in zip(scores.argmax(1), rows, strict=True)]))

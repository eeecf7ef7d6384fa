"""Runs with few predictions, as their model_dirs hold them."""

import json

import numpy as np
import pytest
import yaml

from trainer.comparison import compared_runs
from trainer.evals import metrics, prediction_files


@pytest.fixture
def leave_run(tmp_path):
    """A function (name, labels, predicted...) -> the model_dir of a finished run that predicted so."""

    def write(name, labels, predicted, *, kind="classification", data="a" * 64, settings=(), ids=None):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        names = ("no", "yes", "<b>maybe</b>") if kind == "classification" else ()
        if names:
            logits = 4 * np.eye(len(names), dtype=np.float32)[predicted]
            labels = np.array(labels, np.int32)
            losses = -np.log(metrics.Predictions([], labels, logits, labels).scores[np.arange(len(labels)), labels])
        else:
            labels = np.array(labels, np.float32)
            logits = np.array(predicted, np.float32)[:, np.newaxis]
            losses = (logits[:, 0] - labels) ** 2
        made = metrics.Predictions(ids or list(range(len(labels))), labels, logits, losses)
        source = prediction_files.PredictionSource(data, "test", kind, names)
        prediction_files.write_predictions(str(folder / "test_predictions.parquet"), made, source)
        result = {"seconds": 7.25, "steps": 10, "best_step": 5}
        result |= {split: metrics.compute_metrics(made, kind) for split in ("test", "validation")}
        (folder / "result.json").write_text(json.dumps(result))
        config = {"seed": 0, "data_dir": "data/none", "optimizer": {"learning_rate": 1e-4}, **dict(settings)}
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        return str(folder)

    return write


@pytest.fixture
def read(leave_run):
    """A function (labels, (predicted, ...), ...) -> the predictions of a run for each."""

    def make(labels, *predicted, **options):
        folders = [leave_run(f"run{number}", labels, each, **options) for number, each in enumerate(predicted)]
        return [run.predictions for run in compared_runs.read_runs(folders)]

    return make

"""The runs that are compared, read from their model_dirs and compared with each other."""

import dataclasses
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

from trainer.config import schema
from trainer.data import manifests
from trainer.errors import Problem, UserError
from trainer.evals import prediction_files
from trainer.evals.prediction_files import KeptPredictions
from trainer.storage import fs

_LOG = logging.getLogger(__name__)

PREDICTIONS_FILE = "test_predictions.parquet"


@dataclasses.dataclass(frozen=True)
class ComparedRun:
    name: str  # Its folder, as short as tells it from the others.
    model_dir: str
    settings: Mapping[str, Any]  # Of its config.yaml, by key.
    result: Mapping[str, Any]  # result.json's values.
    predictions: KeptPredictions


def read_runs(model_dirs: Sequence[str]) -> list[ComparedRun]:
    """The runs, whose test is the same as that of the first. Raises UserError with every problem of every run."""
    problems = [problem for model_dir in model_dirs for problem in _find_file_problems(model_dir)]
    if problems:
        raise UserError(*problems)
    runs = [_read_run(name, model_dir) for name, model_dir in zip(_short_names(model_dirs), model_dirs, strict=True)]
    problems = [problem for run in runs for problem in _find_differences(runs[0], run)]
    if problems:
        raise UserError(*problems)
    return runs


def _find_file_problems(model_dir: str) -> Iterable[Problem]:
    if not fs.exists(fs.join(model_dir, "result.json")):
        yield Problem(model_dir, "be the model_dir of a finished run", "no result.json in it")
    elif not fs.exists(fs.join(model_dir, PREDICTIONS_FILE)):
        advice = (
            "A run of an earlier version has none. Remove its result.json, and run its training command again: it "
            "trains nothing, but tests and exports once more."
        )
        yield Problem(model_dir, f"have the run's {PREDICTIONS_FILE}", "none", advice)


def _read_run(name: str, model_dir: str) -> ComparedRun:
    settings = yaml.safe_load(fs.read_text(fs.join(model_dir, schema.CONFIG_FILE)))
    result = fs.read_json(fs.join(model_dir, "result.json"))
    kept = prediction_files.read_predictions(fs.join(model_dir, PREDICTIONS_FILE))
    return ComparedRun(name, model_dir, dict(schema.flatten(settings)), result, kept)


def _find_differences(first: ComparedRun, run: ComparedRun) -> Iterable[Problem]:
    """Why a run's test is not that of the first."""
    ours, other = first.predictions.source, run.predictions.source
    if other.data_fingerprint != ours.data_fingerprint:
        required = f"be a run on the data of {first.model_dir} (fingerprint {ours.data_fingerprint[:12]})"
        received = f"one on {run.settings.get('data_dir')} (fingerprint {other.data_fingerprint[:12]})"
        yield Problem(run.model_dir, required, received, "A data set of another vocabulary is another one.")
    elif run.predictions.ids != first.predictions.ids:
        yield Problem(run.model_dir, f"have the test texts of {first.model_dir}, in their order", "others")


def _short_names(model_dirs: Sequence[str]) -> list[str]:
    """The last parts of the folders, as many as tell them apart."""
    parts = [model_dir.rstrip("/").split("/") for model_dir in model_dirs]
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(each[-count:]) for each in parts]
        if len(set(names)) == len(names):
            return names
    return list(model_dirs)


def find_differing_settings(runs: Sequence[ComparedRun]) -> dict[str, list[Any]]:
    """Key -> the value of each run, of the settings that differ. One that a run's version did not have is None."""
    keys = dict.fromkeys(key for run in runs for key in run.settings)
    values = {key: [run.settings.get(key) for run in runs] for key in keys}
    return {key: each for key, each in values.items() if any(value != each[0] for value in each)}


def read_texts(runs: Sequence[ComparedRun], rows: Sequence[int]) -> list[str]:
    """The texts of these rows of the test, those of a pair on two lines. [] if no run's data can be read any more."""
    fingerprint = runs[0].predictions.source.data_fingerprint
    for run in runs if rows else ():
        folder = str(run.settings.get("data_dir") or "")
        try:
            manifest = manifests.read_manifest(folder)
            if manifest.fingerprint == fingerprint:
                return _read_rows(folder, manifest, rows)
        except (OSError, UserError) as error:
            _LOG.info("the texts of %s are not shown: %s", os.path.basename(folder), error)
    return []


def _read_rows(folder: str, manifest: manifests.Manifest, rows: Sequence[int]) -> list[str]:
    from trainer.data import records  # Imports TensorFlow.

    columns = records.read_split(folder, manifest, "test", with_text=True)
    assert columns.texts is not None
    second = columns.texts_b
    return [columns.texts[row] + (f"\n{second[row]}" if second else "") for row in rows]

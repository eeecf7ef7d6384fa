"""Trials of two settings, and model_dirs such as runs leave."""

import json
from pathlib import Path

import pytest

from trainer.config import loading
from trainer.sweeps import space, trials

SPACE = {"grid": {"optimizer.learning_rate": [1e-4, 1e-3], "data.truncation": ["head"]}}


@pytest.fixture
def write_space(tmp_path):
    """A function (content of a space) -> its file."""

    def write(content: object) -> str:
        path = tmp_path / "space.yaml"
        path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")  # JSON is YAML.
        return str(path)

    return write


@pytest.fixture
def build(write_space):
    """A function (content of a space, settings "key=value"...) -> its trials."""

    def make(content: object, *settings: str) -> list[trials.Trial]:
        found = space.read_space(write_space(content))
        drawn = space.draw_settings(found)
        return trials.build_trials(found, drawn, lambda values: loading.load_config(None, settings, values))

    return make


@pytest.fixture
def runs(build, tmp_path):
    """Two trials with two seeds each, whose model_dirs are missing."""
    return trials.plan_runs(build(SPACE), [0, 1], str(tmp_path / "sweep"))


@pytest.fixture
def leave():
    """A function (run, accuracies at steps 50, 100, ..., test accuracy or None) that writes its files."""

    def write(run: trials.TrialRun, accuracies: list[float], test: float | None = None) -> None:
        folder = Path(run.model_dir)
        folder.mkdir(parents=True, exist_ok=True)
        lines = [
            {"step": 50 * number, "split": "validation", "loss": 1 - accuracy, "accuracy": accuracy}
            for number, accuracy in enumerate(accuracies, 1)
        ]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        if test is not None:
            result = {"seconds": 7.0, "test": {"examples": 30, "loss": 1 - test, "accuracy": test}}
            (folder / "result.json").write_text(json.dumps(result))

    return write

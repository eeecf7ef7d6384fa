"""Two real runs, compared: the figures are those of their results, and the texts those of their data set."""

import csv
import json

import pytest
from helpers import excerpt, python


@pytest.fixture(scope="module")
def compared(flags, finished_run, tmp_path_factory):
    """(model_dirs of two runs, what compare.py printed of them, the page that it wrote)."""
    folder = tmp_path_factory.mktemp("compared")
    weak = [*flags, "--training.steps=20", "--optimizer.learning_rate=1e-6", "--strategy=cpu"]
    python("-m", "trainer.task", *weak, f"--model_dir={folder / 'weak'}", check=True)
    model_dirs = [folder / "weak", finished_run]
    done = python("scripts/compare.py", *model_dirs, f"--output={folder / 'compare.html'}", check=True)
    return model_dirs, done.stdout, (folder / "compare.html").read_text(encoding="utf-8")


def test_the_figures_are_those_of_the_runs(compared):
    model_dirs, printed, page = compared
    weak, strong = (json.loads((each / "result.json").read_text())["test"]["accuracy"] for each in model_dirs)
    lines = [line.split() for line in printed.splitlines()]
    assert ["test", "accuracy", f"{weak:.4f}", f"{strong:.4f}"] in lines
    (difference,) = (line for line in lines if line[:2] == ["accuracy", f"{strong - weak:+.4f}"])
    assert float(difference[2]) <= strong - weak <= float(difference[4])
    assert ["optimizer.learning_rate", "1e-06", "0.001"] in lines
    assert f"{strong - weak:+.4f}" in page


def test_the_texts_on_which_they_disagree_are_on_the_page(compared, prepared):
    with open(prepared.parent / "reviews.csv", newline="", encoding="utf-8") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    assert sum(text in compared[2] for text in texts) > 0


def test_runs_on_other_data_are_refused(compared, points_run):
    done = python("scripts/compare.py", compared[0][0], points_run)
    assert done.returncode == 1, excerpt(done.stderr)
    assert f"{points_run} must be a run on the data of {compared[0][0]}" in done.stderr


def test_one_run_is_not_compared(compared):
    done = python("scripts/compare.py", compared[0][0], compared[0][0])
    assert done.returncode == 2
    assert "RUN RUN ... must name two runs or more" in done.stderr

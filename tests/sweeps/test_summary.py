import json

import pytest

from trainer.sweeps import results, summary
from trainer.sweeps.summary import Sweep


@pytest.fixture
def make(runs):
    """A function (errors, jobs) -> the sweep of the runs as they are."""

    def build(errors=(), jobs=()):
        states = results.summarize_trials(map(results.read_run, runs), "accuracy")
        return Sweep("accuracy", {"precision": "float32"}, {"grid": {}}, [0, 1], states, dict(errors), dict(jobs))

    return build


def finish(runs, leave):
    for run, (accuracy, test) in zip(runs, ((0.5, 0.95), (0.6, 0.95), (0.7, 0.3), (0.8, 0.5)), strict=True):
        leave(run, [accuracy], test)


def test_the_best_on_validation_is_chosen_and_no_other_has_a_test(runs, leave, make):
    finish(runs, leave)
    described = summary.describe_sweep(make())
    chosen = described["chosen"]
    assert chosen["settings"] == {"optimizer.learning_rate": 1e-3, "data.truncation": "head"}
    assert chosen["validation"] == pytest.approx({"n": 2, "mean": 0.75, "std": 0.0707107, "min": 0.7, "max": 0.8})
    assert chosen["test"]["accuracy"]["mean"] == pytest.approx(0.4)
    assert '"test"' not in json.dumps(described["trials"])
    assert [each["settings"]["optimizer.learning_rate"] for each in described["trials"]] == [1e-3, 1e-4]
    printed = summary.format_sweep(make(), "out")
    assert "0.9500" not in printed
    assert "test    accuracy 0.4000 (std 0.1414, 0.3000 to 0.5000, 2 seeds)" in printed


def test_what_is_not_finished_says_where_it_is(runs, leave, make):
    assert summary.describe_sweep(make())["chosen"] is None
    leave(runs[0], [0.5, 0.5])
    leave(runs[1], [0.5])
    failed = make(errors={runs[2].name: "error: no memory"})
    assert [each["status"] for each in summary.describe_sweep(failed)["trials"]] == ["at step 50", "failed"]
    printed = summary.format_sweep(failed, "out")
    assert f"failed: {runs[2].name}: error: no memory" in printed
    assert "0 of 2" in printed
    assert "chosen" not in printed
    submitted = make(jobs={runs[3].name: "projects/p/customJobs/1"})
    assert summary.describe_status(submitted.trials[1], submitted) == "submitted"


def test_finished_trials_come_before_better_ones_that_are_not(runs, leave, make):
    for run in runs[:2]:
        leave(run, [0.5], 0.5)
    for run in runs[2:]:
        leave(run, [0.9])
    assert [each["status"] for each in summary.describe_sweep(make())["trials"]] == ["finished", "at step 50"]


def test_a_sweep_is_read_back(runs, make, tmp_path):
    assert summary.read_sweep(str(tmp_path)) == {}
    summary.write_sweep(str(tmp_path), make())
    assert summary.read_sweep(str(tmp_path)) == summary.describe_sweep(make())

import json

import pytest
import yaml
from helpers import ROOT

from trainer.errors import Problem, UserError
from trainer.sweeps import running, space, summary, trials
from trainer.sweeps.running import SweepPlan

GRID = {"optimizer.learning_rate": [1e-4, 1e-3]}


@pytest.fixture
def make_plan(build, write_space, tmp_path):
    """A function (grid, settings...) -> a plan of two seeds in the same folder."""

    def make(grid=GRID, *settings):
        found = build({"grid": grid}, *settings)
        base = trials.describe_base(found[0].config, list(grid), with_content=False)
        read = space.read_space(write_space({"grid": grid}))
        return SweepPlan(
            str(tmp_path / "sweep"),
            found,
            [0, 1],
            read,
            "accuracy",
            base,
            ("--encoder=tiny", "--data_dir=gs://b/data/mine"),
        )

    return make


def finish(plan, leave):
    for run in plan.runs:
        leave(run, [0.5], 0.5)


def test_a_folder_holds_one_sweep_at_a_time(make_plan):
    with running.hold_sweep(make_plan()) as before:
        assert before == {}
        with pytest.raises(UserError, match="--output must be used by one sweep"), running.hold_sweep(make_plan()):
            pass


def test_the_space_may_change_and_the_rest_may_not(make_plan, leave):
    plan = make_plan()
    with running.hold_sweep(plan) as before:
        finish(plan, leave)
        running.submit_sweep(plan, before, lambda run: "", again=False, keep=True)
    with running.hold_sweep(make_plan({**GRID, "model.dropout": [0.1]})) as before:
        assert len(before["trials"]) == 2
    with pytest.raises(UserError, match="precision: float32 in the sweep, bfloat16 here"):  # noqa: SIM117
        with running.hold_sweep(make_plan(GRID, "precision=bfloat16")):
            pass


def test_what_was_submitted_or_is_finished_is_not_submitted_again(make_plan, leave):
    plan, submitted = make_plan(), []

    def submit(run):
        submitted.append(run.name)
        if len(submitted) == 3:
            raise UserError(Problem("The job", "be submitted", "a refusal"))
        return f"job {len(submitted)}"

    leave(plan.runs[0], [0.5], 0.5)
    first = running.submit_sweep(plan, {}, submit, again=False, keep=True)
    names = [run.name for run in plan.runs]
    assert submitted == names[1:]
    assert list(first.errors) == [names[3]]
    kept = summary.read_sweep(plan.output)
    assert kept["jobs"] == {names[1]: "job 1", names[2]: "job 2"}
    assert [each["status"] for each in kept["trials"]] == ["submitted", "failed"]
    running.submit_sweep(plan, kept, submit, again=False, keep=True)
    assert submitted == [*names[1:], names[3]]
    finish(plan, leave)
    assert running.submit_sweep(plan, kept, submit, again=True, keep=True).chosen is not None
    assert len(submitted) == 4


def test_what_was_only_printed_is_not_remembered(make_plan, tmp_path):
    plan = make_plan()
    (tmp_path / "sweep").mkdir()
    running.submit_sweep(plan, {}, lambda run: "a job", again=False, keep=False)
    assert summary.read_sweep(plan.output)["jobs"] == {}


def test_a_submitted_job_is_the_trials_run(make_plan):
    plan = make_plan({"training.steps": [7]})
    run = trials.plan_runs(plan.trials, [3], "gs://b/sweeps/mine")[0]
    script = str(ROOT / "scripts/submit.py")
    flags = ["--project=my-project", "--region=us-central1", "--bucket=b", "--dry_run"]
    job = yaml.safe_load(running.submit_run(plan, run, script, flags))
    spec = job["jobSpec"]
    assert spec["baseOutputDirectory"]["outputUriPrefix"] == run.model_dir
    arguments = json.dumps(spec["workerPoolSpecs"])
    assert "training.steps=7" in arguments
    assert "seed=3" in arguments
    with pytest.raises(UserError, match="The job of steps-7-"):
        running.submit_run(plan, run, script, ["--dry_run"])

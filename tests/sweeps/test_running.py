import json

import pytest
import yaml
from helpers import ROOT, python

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


def test_runs_are_those_of_one_base_however_the_space_changes(make_plan, leave):
    first, second = make_plan(), make_plan({"model.dropout": [0.1]})
    for plan in (first, second):
        with running.hold_sweep(plan) as before:
            finish(plan, leave)
            running.submit_sweep(plan, before, lambda run: "", again=False, keep=True)
    with running.hold_sweep(make_plan()) as before:
        again = running.submit_sweep(first, before, submit=None, again=False, keep=True)  # All runs are reused.
    assert [state.run.name for each in again.trials for state in each.runs] == [run.name for run in first.runs]
    others = [(GRID, "model.dropout=0.3"), ({"model.dropout": [0.1]}, "optimizer.learning_rate=0.2")]
    for (grid, other), before in zip(others, ("None", "0.0001"), strict=True):
        key, value = other.split("=")
        with (
            pytest.raises(UserError, match=f"{key}: {before} in the sweep, {value} here"),
            running.hold_sweep(make_plan(grid, other)),
        ):
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


def test_a_submission_without_an_answer_is_an_error_of_its_run(make_plan, tmp_path, monkeypatch):
    monkeypatch.setattr(running, "SUBMIT_TIMEOUT_S", 0.2)
    script = tmp_path / "submit.py"
    script.write_text("import time; time.sleep(60)")
    plan = make_plan()
    with pytest.raises(
        UserError, match=r"be submitted within 0.2 s\. Received: no answer\. It may have been"
    ) as caught:
        running.submit_run(plan, plan.runs[0], str(script), [])
    assert caught.value.problems[0].setting == f"The job of {plan.runs[0].name}"


def test_a_sweep_in_a_bucket_prints_its_jobs_and_collects_their_results(simulator, write_space):
    output = "gs://bucket/sweeps/mine"
    command = ["scripts/sweep.py", f"--space={write_space({'grid': GRID})}", f"--output={output}", "--seeds=0,1"]
    command += ["--data_dir=gs://bucket/data/mine", "--training.best_metric=accuracy"]
    command += ["--submit=--project=my-project --region=us-central1 --bucket=bucket --dry_run"]
    environment = simulator.environment(PYTHONPATH=str(ROOT))
    done = python(*command, env=environment, check=True)
    jobs = [job for job in yaml.safe_load_all(done.stdout.partition("by accuracy on validation")[0]) if job]
    folders = [job["jobSpec"]["baseOutputDirectory"]["outputUriPrefix"] for job in jobs]
    assert len(set(folders)) == 4
    assert all(folder.startswith(f"{output}/runs/") for folder in folders)
    line = {"step": 10, "split": "validation", "loss": 0.5, "accuracy": 0.75}
    result = {"seconds": 7.0, "test": {"examples": 30, "loss": 0.5, "accuracy": 0.7}}
    for folder in folders[:2]:  # What jobs of the first trial would leave.
        for name, content in (("metrics.jsonl", line), ("result.json", result)):
            put = f"fs.write_text({f'{folder}/{name}'!r}, {json.dumps(content)!r})"
            simulator.storage_python(put)
    done = python(*command, env=environment, check=True)
    assert done.stdout.count("baseOutputDirectory") == 2
    assert "chosen  --optimizer.learning_rate=0.0001" in done.stdout
    kept = json.loads(simulator.storage_python(f"print(fs.read_text({f'{output}/sweep.json'!r}))")[0])
    assert kept["chosen"]["test"]["accuracy"]["mean"] == pytest.approx(0.7)
    assert kept["jobs"] == {}
    names = simulator.storage_python(f"print(*fs.list_names({output!r}))")[0].split()
    assert {"sweep.json", "sweep.png", "tensorboard", "runs"} <= set(names)

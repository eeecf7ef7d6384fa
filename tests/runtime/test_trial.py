"""The metric file of a trial, in the format of cloudml-hypertune, which the service reads."""

import json
import os

import pytest

from trainer.errors import UsageError
from trainer.runtime import trial

LINES = [
    {"step": step, "split": "validation", "loss": 0.5, "accuracy": value}
    for step, value in ((50, 0.7), (100, 0.9), (150, 0.8))
]


@pytest.fixture
def path(tmp_path, monkeypatch):
    """The metric file of the third trial."""
    path = tmp_path / "hypertune/output.metrics"
    monkeypatch.setenv("CLOUD_ML_HP_METRIC_FILE", str(path))
    monkeypatch.setenv("CLOUD_ML_TRIAL_ID", "3")
    return path


def measurements(path) -> list[tuple[str, str]]:
    return [(row["global_step"], row["validation/accuracy"]) for row in map(json.loads, path.read_text().splitlines())]


def report_each(lines) -> None:
    for count in range(1, len(lines) + 1):
        trial.report_best(lines[:count], "accuracy")


def test_each_evaluation_reports_the_best_so_far_at_its_step(path):
    report_each(LINES)
    assert measurements(path) == [("50", "0.7"), ("100", "0.9"), ("150", "0.9")]
    row = json.loads(path.read_text().splitlines()[0])
    assert row.pop("timestamp") > 0
    assert row == {"trial": "3", "validation/accuracy": "0.7", "global_step": "50", "checkpoint_path": ""}


def test_a_regression_reports_its_correlation(path):
    trial.report_best([{"step": 10, "split": "validation", "pearson": -0.25, "mean_squared_error": 2.0}], "pearson")
    assert json.loads(path.read_text())["validation/pearson"] == "-0.25"


def test_the_lowest_value_is_the_best_of_a_metric_like_the_loss(path):
    lines = [{"step": step, "loss": loss} for step, loss in ((10, 0.5), (20, 0.25), (30, 0.75))]
    trial.report_best(lines, "loss", lower_is_better=True)
    assert json.loads(path.read_text())["validation/loss"] == "0.25"


def test_a_step_that_has_been_reported_is_not_reported_again(path):
    report_each(LINES[:2])
    before = path.read_text()
    trial.report_best(LINES[:2], "accuracy")  # At the end of the run.
    trial.report_best(LINES[:1], "accuracy")  # Resumed from a checkpoint before its last evaluation.
    trial.report_best(LINES[:2], "accuracy")
    assert path.read_text() == before
    trial.report_best(LINES, "accuracy")
    assert measurements(path) == [("50", "0.7"), ("100", "0.9"), ("150", "0.9")]


def test_on_a_new_machine_the_next_report_holds_the_best_so_far(path):
    trial.report_best(LINES, "accuracy")
    assert measurements(path) == [("150", "0.9")]


def test_a_line_that_a_kill_interrupted_is_written_again(path):
    report_each(LINES[:2])
    path.write_text(path.read_text()[:-20])
    trial.report_best(LINES[:2], "accuracy")
    assert measurements(path) == [("50", "0.7"), ("100", "0.9")]


def test_the_file_keeps_the_newest_measurements(path):
    lines = [{"step": step, "accuracy": step / 1000} for step in range(1, 111)]
    report_each(lines)
    trial.report_best(lines, "accuracy")
    assert measurements(path) == [(str(step), str(step / 1000)) for step in range(11, 111)]  # It keeps 100.


@pytest.mark.parametrize("number", [None, "", "0"])
def test_a_job_that_is_no_trial_writes_no_file(path, monkeypatch, number):
    monkeypatch.delenv("CLOUD_ML_TRIAL_ID")
    if number is not None:
        monkeypatch.setenv("CLOUD_ML_TRIAL_ID", number)
    trial.report_best(LINES, "accuracy")
    assert not path.parent.exists()


def test_a_trial_without_an_evaluation_reports_nothing(path):
    trial.report_best([], "accuracy")
    assert not path.exists()


# --- A file that cannot be written ------------------------------------------------------------------


@pytest.fixture
def unwritable(tmp_path, monkeypatch):
    """The metric file of a trial, in a folder that no user can make: it is below a file."""
    (tmp_path / "file").touch()
    path = tmp_path / "file/output.metrics"
    monkeypatch.setenv("CLOUD_ML_HP_METRIC_FILE", str(path))
    monkeypatch.setenv("CLOUD_ML_TRIAL_ID", "3")
    return path


def test_a_trial_whose_metric_cannot_be_written_is_refused(unwritable):
    with pytest.raises(UsageError) as caught:
        trial.check_metric_file()
    (problem,) = caught.value.problems
    assert problem.setting == "CLOUD_ML_HP_METRIC_FILE"
    assert problem.received.startswith(str(unwritable))
    assert "RUN_AS=root" in problem.advice


@pytest.mark.parametrize("written", [False, True])
def test_the_check_leaves_the_metric_file_as_it_is(path, written):
    if written:
        trial.report_best(LINES, "accuracy")
    before = path.read_text() if written else None
    trial.check_metric_file()
    assert (path.read_text() if path.exists() else None) == before
    assert [entry.name for entry in path.parent.iterdir()] == ([path.name] if written else [])


def test_a_job_that_is_no_trial_is_not_checked(unwritable, monkeypatch):
    monkeypatch.delenv("CLOUD_ML_TRIAL_ID")
    trial.check_metric_file()
    assert trial.report_best(LINES, "accuracy") is None


def test_a_metric_that_cannot_be_written_is_a_problem_and_no_error(unwritable):
    problem = trial.report_best(LINES, "accuracy")
    assert problem.setting == "CLOUD_ML_HP_METRIC_FILE"
    assert "The same command" in problem.advice


@pytest.mark.skipif(os.getuid() != 0, reason="only root can start another user's process")
def test_a_folder_of_root_is_refused_for_another_user(tmp_path):
    """The folder of the service, without the rule that the images have for sudo."""
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    folder = tmp_path / "hypertune"
    folder.mkdir(mode=0o755)
    variables = {"CLOUD_ML_TRIAL_ID": "1", "CLOUD_ML_HP_METRIC_FILE": str(folder / "output.metrics")}
    read, write = os.pipe()
    child = os.fork()  # Not another interpreter: the user may not read this one's packages.
    if not child:
        os.environ |= variables
        os.setuid(1000)
        try:
            trial.check_metric_file()
        except UsageError as error:
            os.write(write, str(error).encode())
        os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with os.fdopen(read) as message:
        assert "the user with the id 1000: Permission denied" in message.read()

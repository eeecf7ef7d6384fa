import pytest

from trainer.comparison import compared_runs
from trainer.errors import UserError

LABELS = [0, 1, 1]


def problems_of(*model_dirs):
    with pytest.raises(UserError) as raised:
        compared_runs.read_runs(model_dirs)
    return raised.value.problems


def test_settings_that_differ_are_found(leave_run):
    first = leave_run("first", LABELS, LABELS)
    second = leave_run("second", LABELS, LABELS, settings={"optimizer": {"learning_rate": 1e-3}, "seed": 0, "new": 1})
    runs = compared_runs.read_runs([first, second])
    differing = compared_runs.find_differing_settings(runs)
    assert differing == {"optimizer.learning_rate": [1e-4, 1e-3], "new": [None, 1]}


def test_names_are_as_long_as_tells_them_apart(leave_run):
    runs = compared_runs.read_runs([leave_run(name, LABELS, LABELS) for name in ("a/seed_0", "b/seed_0", "b/seed_1")])
    assert [run.name for run in runs] == ["a/seed_0", "b/seed_0", "b/seed_1"]


def test_other_data_is_refused_by_name(leave_run):
    first = leave_run("first", LABELS, LABELS)
    other = leave_run("other", LABELS, LABELS, data="b" * 64)
    renamed = leave_run("renamed", LABELS, LABELS, ids=[5, 6, 7])
    found = problems_of(first, other, renamed)
    assert [problem.setting for problem in found] == [other, renamed]
    assert "bbbbbbbbbbbb" in found[0].received


def test_what_is_no_finished_run_is_named(leave_run, tmp_path):
    first, second = leave_run("first", LABELS, LABELS), leave_run("second", LABELS, LABELS)
    (tmp_path / "second/test_predictions.parquet").unlink()
    (tmp_path / "empty").mkdir()
    found = problems_of(first, second, str(tmp_path / "empty"))
    assert [problem.setting for problem in found] == [second, str(tmp_path / "empty")]


def test_texts_of_data_that_is_gone_are_left_out(leave_run):
    runs = compared_runs.read_runs([leave_run("first", LABELS, LABELS)])
    assert compared_runs.read_texts(runs, [0]) == []

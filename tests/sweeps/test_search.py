import pytest

from trainer.runtime.signals import Stopped
from trainer.sweeps import results, search, trials
from trainer.sweeps.search import Rung
from trainer.sweeps.space import Halving

TOTAL_STEPS = 400


@pytest.fixture
def six(build, tmp_path):
    """Six trials with two seeds each: data.batch_size 1 to 6."""
    found = build({"grid": {"data.batch_size": [1, 2, 3, 4, 5, 6]}})
    return trials.plan_runs(found, [0, 1], str(tmp_path / "sweep"))


@pytest.fixture
def execute(leave):
    """Leaves what runs do: an accuracy of batch size / 10 + step / 10,000. Keeps what it was asked for."""

    def run_to(pending, stop_at_step):
        run_to.asked.append((stop_at_step, [run.trial.settings["data.batch_size"] for run in pending]))
        for run in pending:
            size, end = run.trial.settings["data.batch_size"], stop_at_step or TOTAL_STEPS
            if size in run_to.failing:
                continue
            values = [size / 10 + step / 10_000 for step in range(50, min(end, TOTAL_STEPS) + 1, 50)]
            leave(run, values, 0.5 if end >= TOTAL_STEPS else None)

    run_to.asked, run_to.failing = [], set()
    return run_to


def test_the_rungs_of_successive_halving():
    assert search.plan_rungs(Halving(100, 3), 9) == [Rung(100, 9), Rung(300, 3)]
    assert search.plan_rungs(Halving(100, 2), 5) == [Rung(100, 5), Rung(200, 3), Rung(400, 2)]
    assert search.plan_rungs(Halving(100, 2), 1) == []
    assert search.plan_rungs(None, 9) == []


def test_without_halving_every_run_goes_to_its_end_once(six, execute):
    search.run_search(six, None, "accuracy", execute)
    assert execute.asked == [(None, [1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6])]
    search.run_search(six, None, "accuracy", execute)
    assert execute.asked[1:] == [(None, [])]


def test_at_each_rung_the_best_go_on_from_where_they_were(six, execute):
    search.run_search(six, Halving(50, 2), "accuracy", execute)
    assert execute.asked == [
        (50, [1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6]),
        (100, [4, 4, 5, 5, 6, 6]),
        (200, [5, 5, 6, 6]),
        (None, [6, 6]),
    ]


def test_a_lower_loss_is_better(six, execute):
    search.run_search(six, Halving(50, 6), "loss", execute)
    assert execute.asked[-1] == (None, [6, 6])


def test_a_rung_after_the_last_step_ends_the_runs(six, execute):
    search.run_search(six, Halving(TOTAL_STEPS, 2), "accuracy", execute)
    assert [step for step, pending in execute.asked if pending] == [TOTAL_STEPS]
    assert {results.read_run(run).status for run in six} == {"finished"}


def test_what_has_failed_goes_no_further_and_the_others_do(six, execute):
    execute.failing = {6}
    search.run_search(six, Halving(50, 6), "accuracy", execute)
    assert execute.asked == [(50, [1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6]), (None, [5, 5])]


def test_a_search_that_was_stopped_goes_on_with_what_is_missing(six, execute):
    def stop_after_two(pending, stop_at_step):
        execute(pending[:2], stop_at_step)
        raise Stopped("stopped by SIGTERM")

    with pytest.raises(Stopped):
        search.run_search(six, Halving(50, 6), "accuracy", stop_after_two)
    search.run_search(six, Halving(50, 6), "accuracy", execute)
    assert execute.asked[1] == (50, [2, 2, 3, 3, 4, 4, 5, 5, 6, 6])


def test_a_larger_space_trains_what_is_new_and_decides_anew(six, execute):
    smaller = [run for run in six if run.trial.settings["data.batch_size"] < 5]
    search.run_search(smaller, Halving(50, 4), "accuracy", execute)
    execute.asked.clear()
    search.run_search(six, Halving(50, 6), "accuracy", execute)
    assert execute.asked == [(50, [5, 5, 6, 6]), (None, [6, 6])]

import pytest

from trainer.sweeps import results


def states(runs):
    return [results.read_run(run) for run in runs]


def test_a_run_is_missing_then_started_then_finished(runs, leave):
    run = runs[0]
    assert (results.read_run(run).status, results.read_run(run).step) == ("missing", 0)
    leave(run, [0.5, 0.7])
    assert (results.read_run(run).status, results.read_run(run).step) == ("started", 100)
    leave(run, [0.5, 0.7, 0.6], test=0.9)
    assert results.read_run(run).status == "finished"


def test_the_best_evaluation_is_that_of_the_steps_so_far(runs, leave):
    leave(runs[0], [0.5, 0.7, 0.6, 0.7, 0.8])
    state = results.read_run(runs[0])
    found = [results.best_evaluation(state, "accuracy", step) for step in (49, 100, 200, None)]
    assert [line and line["step"] for line in found] == [None, 100, 100, 250]
    assert results.best_evaluation(state, "loss")["step"] == 250


def test_a_spread_is_that_of_a_sample():
    spread = results.measure_spread([0.5, 0.75, 1.0])
    assert (spread.n, spread.mean, spread.min, spread.max) == (3, 0.75, 0.5, 1.0)
    assert spread.std == pytest.approx(0.25)
    assert results.measure_spread([0.5]).std is None


def test_trials_are_ranked_by_their_means(runs, leave):
    for run, accuracy in zip(runs, (0.9, 0.1, 0.6, 0.6), strict=True):
        leave(run, [accuracy])
    trials = results.summarize_trials(states(runs), "accuracy")
    assert [each.value.mean for each in trials] == pytest.approx([0.5, 0.6])
    assert results.rank_trials(trials, "accuracy") == [trials[1], trials[0]]
    by_loss = results.summarize_trials(states(runs), "loss")
    assert results.rank_trials(by_loss, "loss") == [by_loss[1], by_loss[0]]


def test_the_chosen_trial_is_finished_with_every_seed(runs, leave):
    for run, test in zip(runs, (0.8, 0.9, None, 0.7), strict=True):
        leave(run, [0.5 if run.trial is runs[0].trial else 0.9], test)
    trials = results.summarize_trials(states(runs), "accuracy")
    chosen = results.choose_trial(trials, "accuracy")
    assert chosen.trial == runs[0].trial
    assert results.describe_test(chosen)["accuracy"].mean == pytest.approx(0.85)
    leave(runs[2], [0.9], 0.1)  # Its test is worse, which decides nothing.
    assert results.choose_trial(results.summarize_trials(states(runs), "accuracy"), "accuracy").trial == runs[2].trial


def test_a_trial_without_an_evaluation_of_every_seed_has_no_value(runs, leave):
    leave(runs[0], [0.9])
    trials = results.summarize_trials(states(runs), "accuracy")
    assert [each.value for each in trials] == [None, None]
    assert results.rank_trials(trials, "accuracy") == []
    assert results.choose_trial(trials, "accuracy") is None

import pytest
from helpers import ROOT

from trainer.config import loading
from trainer.errors import UsageError
from trainer.sweeps import space, trials


def settings_of(raised):
    return [problem.setting for problem in raised.value.problems]


def test_a_value_counts_as_the_configuration_reads_it(build):
    found = build({"grid": {"optimizer.learning_rate": ["2e-5", 0.00002, "3e-5"], "model.dropout": [None]}})
    assert [trial.settings for trial in found] == [
        {"optimizer.learning_rate": 2e-5, "model.dropout": None},
        {"optimizer.learning_rate": 3e-5, "model.dropout": None},
    ]
    assert found[1].config.optimizer.learning_rate == 3e-5


def test_the_space_of_the_repository_suits_its_preset():
    found = space.read_space(str(ROOT / "configs/sweep_quickstart.yaml"))
    preset = str(ROOT / "configs/quickstart.yaml")
    drawn = space.draw_settings(found)
    assert len(trials.build_trials(found, drawn, lambda values: loading.load_config(preset, (), values))) == 6


def test_a_run_has_the_flags_and_the_folder_of_its_trial_and_seed(build):
    (trial,) = build({"grid": {"model.dropout": [None], "data.group_by_length": [False]}})
    first, second = trials.plan_runs([trial], [0, 7], "out")
    assert second.flags == ["--model.dropout=none", "--data.group_by_length=false", "--seed=7"]
    assert first.model_dir == f"out/runs/{trial.name}/seed_0"
    loaded = loading.load_config(None, (), dict(flag.removeprefix("--").split("=") for flag in second.flags))
    assert (loaded.model.dropout, loaded.data.group_by_length, loaded.seed) == (None, False, 7)


@pytest.mark.parametrize("weights", ["{no: 2, ja 😀: 0.5}", "balanced"])
def test_class_weights_are_a_setting_of_a_space(build, weights):
    (trial, _) = build({"grid": {"training.class_weights": [weights, None]}})
    (run,) = trials.plan_runs([trial], [0], "out")
    assert loading.load_config(None, [flag.removeprefix("--") for flag in run.flags]) == trial.config


def test_names_differ_where_settings_do(build):
    long = "x" * 100
    found = build({"grid": {"encoder": [f"{long}/1", f"{long}/2"], "precision": ["float32", "bfloat16"]}})
    assert len({trial.name for trial in found}) == 4
    assert all(len(trial.name) < 60 for trial in found)


def test_every_problem_of_every_trial_is_reported(build):
    content = {"grid": {"data.batch_size": [0, 16], "optimizer.learning_rate": [-1, 1], "data.batchsize": [1]}}
    with pytest.raises(UsageError) as raised:
        build(content)
    assert {"data.batch_size", "optimizer.learning_rate", "data.batchsize"} <= set(settings_of(raised))


@pytest.mark.parametrize("key", ["seed", "training.best_metric", "data_dir", "task", "data.positive_class"])
def test_what_would_make_trials_incomparable_is_no_parameter(build, key):
    with pytest.raises(UsageError) as raised:
        build({"grid": {key: [1] if key == "seed" else ["loss"]}})
    assert settings_of(raised) == [f"{key} in --space"]


@pytest.mark.parametrize(
    ("settings", "refused"), [((), True), (("training.eval_every=40",), True), (("training.eval_every=50",), False)]
)
def test_halving_compares_where_trials_are_evaluated(build, settings, refused):
    content = {"grid": {"data.batch_size": [16, 32]}, "halving": {"first_steps": 100}}
    if not refused:
        assert len(build(content, *settings)) == 2
        return
    with pytest.raises(UsageError) as raised:
        build(content, *settings)
    assert settings_of(raised) == ["training.eval_every"]


def test_a_setting_that_does_not_suit_the_data_is_found(build, prepared):
    content = {"grid": {"data.batch_size": [16, 32]}}
    good = build(content, f"data_dir={prepared}")
    assert trials.find_data_problems(good) == []
    bad = build(content, f"data_dir={prepared}", "training.best_metric=pearson")
    assert {problem.setting for problem in trials.find_data_problems(bad)} == {"training.best_metric"}
    assert {problem.setting for problem in trials.find_data_problems(build(content))} == {"--data_dir"}
    bad = build({"grid": {"training.class_weights": ["{spam: 2}"]}}, f"data_dir={prepared}")
    assert {problem.setting for problem in trials.find_data_problems(bad)} == {"training.class_weights"}


def test_the_base_is_what_the_space_does_not_vary(build):
    (first, _) = build({"grid": {"optimizer.learning_rate": [1e-4, 1e-3]}})
    base = trials.describe_base(first.config, ["optimizer.learning_rate"], with_content=False)
    assert not {"optimizer.learning_rate", "seed"} & base.keys()
    assert trials.find_base_differences(base, {**base, "data.batch_size": 64}) == [
        "data.batch_size: 32 in the sweep, 64 here"
    ]
    without = {key: value for key, value in base.items() if key != "model.dropout"}  # A parameter by now.
    assert trials.find_base_differences(base, without) == []

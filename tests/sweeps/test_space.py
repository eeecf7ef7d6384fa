import pytest

from trainer.errors import UsageError
from trainer.sweeps import space

RANDOM = {
    "optimizer.learning_rate": {"loguniform": [1e-5, 1e-3]},
    "optimizer.warmup_fraction": {"uniform": [0, 0.3]},
    "data.batch_size": {"choice": [16, 32]},
}


def read(write_space, content):
    return space.read_space(write_space(content))


def test_a_grid_has_all_combinations_in_order(write_space):
    found = read(write_space, {"grid": {"data.batch_size": [16, 32], "data.truncation": ["head", "tail"]}})
    drawn = [tuple(settings.values()) for settings in space.draw_settings(found)]
    assert drawn == [(16, "head"), (16, "tail"), (32, "head"), (32, "tail")]
    assert found.keys == ("data.batch_size", "data.truncation")


def test_draws_are_in_their_ranges_and_keep_the_order_of_the_file(write_space):
    drawn = space.draw_settings(read(write_space, {"random": RANDOM, "trials": 200}))
    rates = [settings["optimizer.learning_rate"] for settings in drawn]
    assert all(1e-5 <= rate <= 1e-3 for rate in rates)
    assert 60 < sum(rate < 1e-4 for rate in rates) < 140  # Half of a logarithmic range.
    assert all(0 <= settings["optimizer.warmup_fraction"] <= 0.3 for settings in drawn)
    assert {settings["data.batch_size"] for settings in drawn} == {16, 32}
    assert list(drawn[0]) == list(RANDOM)


def test_more_trials_add_to_those_that_were(write_space):
    few, more = (space.draw_settings(read(write_space, {"random": RANDOM, "trials": count})) for count in (3, 5))
    other = space.draw_settings(read(write_space, {"random": RANDOM, "trials": 3, "seed": 1}))
    assert more[:3] == few
    assert other != few


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({}, "grid or random"),
        ({"grid": {"seed": [1]}, "random": RANDOM, "trials": 1}, "grid or random"),
        ({"random": RANDOM}, "trials"),
        ({"grid": {"data.batch_size": [16]}, "trials": 3}, "trials"),
        ({"grid": {"data.batch_size": []}}, "grid.data.batch_size"),
        ({"grid": {"data.batch_size": 16}}, "grid.data.batch_size"),
        ({"grid": {"data.batch_size": list(range(1001))}}, "The space"),
        ({"random": {"model.dropout": {"uniform": [0.3, 0]}}, "trials": 1}, "random.model.dropout"),
        ({"random": {"model.dropout": {"loguniform": [0, 0.3]}}, "trials": 1}, "random.model.dropout.loguniform"),
        ({"random": {"model.dropout": {"uniform": [0, 1], "choice": [1]}}, "trials": 1}, "random.model.dropout"),
        ({"random": {"model.dropout": {"normal": [0, 1]}}, "trials": 1}, "random.model.dropout.normal"),
        ({"grid": {"data.batch_size": [16]}, "halving": {"first_steps": 10, "factor": 1}}, "halving.factor"),
        ({"grid": {"data.batch_size": [16]}, "rungs": 3}, "rungs"),
    ],
)
def test_what_is_wrong_is_named(write_space, content, named):
    with pytest.raises(UsageError) as raised:
        read(write_space, content)
    assert any(
        problem.setting.startswith(f"{named} in --space=") or problem.setting.startswith(f"{named}.")
        for problem in raised.value.problems
    ), raised.value

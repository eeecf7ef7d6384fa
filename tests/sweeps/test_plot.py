import pytest
from matplotlib import image

from trainer.sweeps import plot, results, trials


@pytest.mark.parametrize(
    "grid", [{"optimizer.learning_rate": [1e-5, 1e-3]}, {"model.dropout": [None, 0.1], "data.group_by_length": [True]}]
)
def test_every_setting_has_a_panel(build, leave, tmp_path, grid):
    runs = trials.plan_runs(build({"grid": grid}), [0, 1], str(tmp_path / "sweep"))
    path = tmp_path / "sweep.png"
    plot.draw_sweep(results.summarize_trials(map(results.read_run, runs), "accuracy"), "accuracy", str(path))
    assert not path.exists()  # Nothing is evaluated yet.
    for number, run in enumerate(runs):
        leave(run, [0.5 + number / 10], 0.5 if number < 2 else None)
    plot.draw_sweep(results.summarize_trials(map(results.read_run, runs), "accuracy"), "accuracy", str(path))
    assert image.imread(path).shape[1] == pytest.approx(4.2 * 110 * len(grid), abs=1)

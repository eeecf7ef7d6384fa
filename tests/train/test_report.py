import math

import matplotlib.image
import pytest

from trainer.train import metrics_log, report


def line(step, split, **values):
    return {"step": step, "split": split, "examples": 8, "loss": 1.0 / step, "seconds": float(step), **values}


@pytest.mark.parametrize("metric", ["accuracy", "pearson"])
def test_the_picture_shows_curves_around_an_infinite_loss(tmp_path, metric):
    history = metrics_log.read_history(str(tmp_path / "metrics.jsonl"))
    for step in range(1, 6):  # regression's train lines have no metric
        history.add(line(step, "train") if step != 3 else line(step, "train") | {"loss": math.inf})
        history.add(line(step, "validation", **{metric: step / 5}))
    history.add(line(5, "test", **{metric: 0.9}))
    path = tmp_path / "history.png"
    report.draw_history(history, metric, str(path), "a title")
    assert path.read_bytes().startswith(b"\x89PNG\r\n")
    pixels = matplotlib.image.imread(path)
    height, width, _ = pixels.shape
    assert width >= 1000
    assert height >= 400
    colors = {tuple(color) for color in (pixels[..., :3] * 255).round().astype(int).reshape(-1, 3).tolist()}
    assert {(255, 127, 14), (44, 160, 44)} <= colors  # validation's orange and test's green


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "0 s"),
        (59.4, "59 s"),
        (59.7, "1 min"),
        (75.2, "1 min 15 s"),
        (3600, "1 h"),
        (3661, "1 h 1 min"),
        (90061, "25 h 1 min"),
    ],
)
def test_durations_have_at_most_two_units(seconds, text):
    assert report.format_duration(seconds) == text


def test_a_table_has_an_aligned_column_for_each_metric():
    rows = [
        ("encoder", {"examples": 1234, "accuracy": 0.5, "roc_auc": 1.0}),
        ("baseline", {"examples": 7, "accuracy": 0.25}),
    ]
    assert report.format_table(rows).splitlines() == [
        "          examples  accuracy  roc auc",
        "encoder      1,234    0.5000   1.0000",
        "baseline         7    0.2500         ",
    ]


def test_the_summary_has_the_results_and_the_next_command():
    metrics = {"examples": 8, "loss": 0.5, "accuracy": 0.75}
    result = {
        "steps": 1200,
        "seconds": 75,
        "best_step": 30,
        "validation": metrics,
        "test": metrics | {"accuracy": 0.625},
    }
    summary = report.format_summary(result, "runs/mine", "runs/mine/export", "runs/mine/tensorboard")
    for expected in ("1,200 steps in 1 min 15 s", "best at step 30", "0.7500", "0.6250", "runs/mine/result.json"):
        assert expected in summary
    assert "scripts/predict.py --model=runs/mine/export" in summary


def test_the_summary_s_paths_can_be_copied_to_a_shell():
    metrics = {"examples": 4, "loss": 0.5}
    result = {"steps": 1, "seconds": 1, "best_step": 1, "validation": metrics, "test": metrics}
    summary = report.format_summary(result, "my runs/a", "my runs/a/export", "my runs/a/tensorboard")
    assert "predict.py --model='my runs/a/export' " in summary
    assert "results    'my runs/a/result.json', " in summary

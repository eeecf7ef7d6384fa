import json
import math

import matplotlib.image
import pytest
import tensorflow as tf

from trainer.train import metrics_log, report


def line(step, split, **values):
    return {"step": step, "split": split, "examples": 8, "loss": 1.0 / step, "seconds": float(step), **values}


@pytest.fixture
def history(tmp_path):
    """Two train lines before each of three validation lines, and a test line."""
    history = metrics_log.read_history(str(tmp_path / "metrics.jsonl"))
    for step, accuracy in ((10, 0.5), (20, 0.75), (30, 0.75)):
        history.add(line(step - 5, "train", accuracy=0.4))
        history.add(line(step, "train", accuracy=0.5))
        history.add(line(step, "validation", accuracy=accuracy))
    history.add(line(30, "test", accuracy=0.7))
    return history


def test_every_line_is_written_at_once(history):
    with open(history.path, encoding="utf-8") as file:
        assert [json.loads(text) for text in file] == history.lines
    assert metrics_log.read_history(history.path).lines == history.lines


def test_a_missing_history_is_empty(tmp_path):
    assert metrics_log.read_history(str(tmp_path / "metrics.jsonl")).lines == []


def test_lines_after_the_restored_step_are_deleted(history):
    history.drop_after(20)
    again = metrics_log.read_history(history.path)
    assert [(x["step"], x["split"]) for x in again.lines] == [
        *((5, "train"), (10, "train"), (10, "validation")),
        *((15, "train"), (20, "train"), (20, "validation")),
    ]


def test_the_best_is_the_earliest_of_equal_steps(history):
    assert history.best("accuracy")["step"] == 20
    history.drop_after(15)
    assert history.best("accuracy")["step"] == 10
    history.drop_after(0)
    assert history.best("accuracy") is None


def test_lines_are_found_by_split_and_step(history):
    assert [x["step"] for x in history.of("validation")] == [10, 20, 30]
    assert history.at("validation", 20)["accuracy"] == 0.75
    assert history.at("validation", 25) is None


def test_metric_values_leave_step_and_time_out(history):
    assert metrics_log.metric_values(history.at("test", 30)) == {"examples": 8, "loss": 1 / 30, "accuracy": 0.7}


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


def test_events_hold_the_values_of_the_lines(tmp_path):
    events = metrics_log.open_event_log(str(tmp_path))
    for step in (1, 2):
        for split in ("train", "validation"):
            events.add(line(step, split, accuracy=0.5))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["train", "validation"]
    (file,) = (tmp_path / "validation").iterdir()
    values = {
        (event.step, value.tag): float(tf.make_ndarray(value.tensor))
        for event in tf.compat.v1.train.summary_iterator(str(file))
        for value in event.summary.value
    }
    assert values == {(s, tag): v for s in (1, 2) for tag, v in {"examples": 8, "loss": 1 / s, "accuracy": 0.5}.items()}


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

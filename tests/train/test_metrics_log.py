import json
import math

import pytest
import tensorflow as tf

from trainer.train import metrics_log


def line(step, split, **values):
    common = {"step": step, "split": split, "examples": 8, "loss": 1.0 / step, "seconds": float(step)}
    return common | values


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


def test_of_equal_steps_the_one_of_lower_loss_is_the_best(history):
    assert history.best("accuracy")["step"] == 30  # The loss is 1 / step.


def test_of_steps_of_equal_loss_too_the_earliest_is_the_best(history):
    history.lines = [line | {"loss": 0.5} for line in history.lines]
    assert history.best("accuracy")["step"] == 20
    history.drop_after(15)
    assert history.best("accuracy")["step"] == 10
    history.drop_after(0)
    assert history.best("accuracy") is None


@pytest.mark.parametrize(
    ("metric", "best"), [("loss", 10), ("mean_squared_error", 10), ("accuracy", 20), ("pearson", 20), ("macro_f1", 20)]
)
def test_a_metric_s_direction_is_known(tmp_path, metric, best):
    history = metrics_log.read_history(str(tmp_path / "metrics.jsonl"))
    for step, value in ((10, 0.25), (20, 0.75)):
        history.add(line(step, "validation", loss=value) | {metric: value})
    assert history.best(metric)["step"] == best


def test_lines_are_found_by_split_and_step(history):
    assert [x["step"] for x in history.of("validation")] == [10, 20, 30]
    assert history.at("validation", 20)["accuracy"] == 0.75
    assert history.at("validation", 25) is None


def test_metric_values_leave_step_and_time_out(history):
    assert metrics_log.metric_values(history.at("test", 30)) == {"examples": 8, "loss": 1 / 30, "accuracy": 0.7}


def test_events_hold_the_values_of_the_lines(tmp_path):
    events = metrics_log.open_event_log(str(tmp_path))
    for step in (1, 2):
        for split in ("train", "validation"):
            events.add(line(step, split, accuracy=0.5, mean_squared_error=1e60))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["train", "validation"]
    (file,) = (tmp_path / "validation").iterdir()
    values = {
        (event.step, value.tag): float(tf.make_ndarray(value.tensor))
        for event in tf.compat.v1.train.summary_iterator(str(file))
        for value in event.summary.value
    }
    constant = {"examples": 8, "accuracy": 0.5, "mean_squared_error": math.inf}  # More than float32 can hold.
    assert values == {(s, tag): v for s in (1, 2) for tag, v in {"loss": 1 / s, **constant}.items()}


@pytest.mark.parametrize(
    ("values", "waited"),
    [
        ([0.5], 0),
        ([0.5, 0.6, 0.7], 0),
        ([0.5, 0.7, 0.6], 1),
        ([0.5, 0.7, 0.6, 0.65], 2),
        ([0.5, 0.7, 0.6, 0.8], 0),
        ([0.7, 0.7, 0.7], 0),  # The loss falls: each of them is better than the one before.
    ],
)
def test_the_evaluations_since_the_best_are_counted(tmp_path, values, waited):
    history = metrics_log.read_history(str(tmp_path / "metrics.jsonl"))
    assert history.evaluations_since_best("accuracy") == 0
    for step, accuracy in enumerate(values, start=1):
        history.add(line(step, "train", accuracy=0.9))
        history.add(line(step, "validation", accuracy=accuracy))
    assert history.evaluations_since_best("accuracy") == waited
    assert history.evaluations_since_best("loss") == 0
    history.drop_after(1)  # What a resumed run decides by.
    assert history.evaluations_since_best("accuracy") == 0


def test_an_equal_evaluation_is_not_a_better_one(tmp_path):
    history = metrics_log.read_history(str(tmp_path / "metrics.jsonl"))
    history.lines = [line(step, "validation", accuracy=0.5, loss=1.0) for step in (1, 2, 3)]
    assert history.evaluations_since_best("accuracy") == 2

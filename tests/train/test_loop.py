"""Cadences, and a run that is stopped and resumed in one process. end_to_end/ kills and resumes processes."""

import dataclasses
import json
import time

import numpy as np
import pytest
import tensorflow as tf

from trainer.data import batching
from trainer.runtime.signals import Stopped, StopRequest
from trainer.train import builder, checkpoints, loop, run_files, runs
from trainer.train.run_files import resolve_run_files


@pytest.mark.parametrize(
    ("step", "every", "total", "expected"),
    [
        (20, 10, 95, True),
        (21, 10, 95, False),
        (95, 10, 95, True),
        (1, 1, 95, True),
        (1, 500, 1, True),
        (94, 500, 95, False),
    ],
)
def test_a_cadence_includes_the_last_step(step, every, total, expected):
    assert loop.due(step, every, total) is expected


@pytest.mark.parametrize("cadences", [(20, 500, 133), (1, 7), (10, 10, 10), (500,), (3, 4, 5)])
def test_the_next_boundary_is_the_first_step_with_anything_due(cadences):
    total = 137
    for step in range(total):
        expected = next(s for s in range(step + 1, total + 1) if any(loop.due(s, every, total) for every in cadences))
        assert loop.next_boundary(step, total, *cadences) == expected


@pytest.fixture(scope="module")
def own_job(job):
    """Another copy of the finished run's job, to be trained."""
    return builder.build_job(job.config, job.strategy)


@pytest.fixture(scope="module")
def resumed(own_job, tmp_path_factory):
    """(message of a run stopped at step 1, steps of its checkpoints then, its model_dir after it was resumed)."""
    folder = tmp_path_factory.mktemp("resumed")
    run_files.write_run_identity(own_job, resolve_run_files(str(folder)))
    with pytest.raises(Stopped) as stopped:
        loop.train_and_evaluate(
            runs.open_run(own_job, resolve_run_files(str(folder)), time.monotonic()), StopRequest("SIGTERM")
        )
    left = checkpoints.list_steps(str(folder / "checkpoints"))
    run = runs.open_run(own_job, resolve_run_files(str(folder)), time.monotonic())
    run.history.add(
        {"step": 20, "split": "train", "loss": -1.0}
    )  # a line that an interrupted run wrote after its checkpoint
    loop.train_and_evaluate(run, StopRequest())
    return str(stopped.value), left, folder


def lines(folder):
    """metrics.jsonl without durations."""
    clock = ("seconds", "examples_per_second", "input_wait", "padding")
    read = (json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines())
    return [{key: value for key, value in line.items() if key not in clock} for line in read]


def test_a_stopped_run_saves_a_checkpoint(resumed):
    message, left, _ = resumed
    assert message == "stopped by SIGTERM at step 1 of 100, with a checkpoint. Run the same command again to resume."
    assert left == [1]


def test_a_resumed_run_logs_what_an_uninterrupted_run_logs(resumed, finished_run):
    assert lines(resumed[2]) == lines(finished_run)
    steps = [(line["step"], line["split"]) for line in lines(finished_run)]
    assert steps == [
        *((20, "train"), (40, "train"), (50, "validation"), (60, "train"), (80, "train")),
        *((100, "train"), (100, "validation"), (100, "test")),
    ]


def test_a_resumed_run_equals_an_uninterrupted_run_bit_for_bit(resumed, finished_run):
    expected, resumed_result = (json.loads((f / "result.json").read_text()) for f in (finished_run, resumed[2]))
    for result in (expected, resumed_result):
        assert result.pop("seconds") > 0
        assert result.pop("export_difference") <= 1e-4
        assert result.pop("machine")["device_type"] == "CPU"
    assert resumed_result == expected
    a, b = (tf.train.load_checkpoint(str(f / "checkpoints/ckpt-100")) for f in (finished_run, resumed[2]))
    names = {name for name in a.get_variable_to_shape_map() if "OBJECT_GRAPH" not in name}
    assert len(names) > 100
    for name in names:
        assert np.array_equal(a.get_tensor(name), b.get_tensor(name)), name


def test_a_run_that_paused_at_a_step_equals_one_that_did_not(points_job, points_run, tmp_path):
    files = resolve_run_files(str(tmp_path))
    own = builder.build_job(points_job.config, points_job.strategy, points_job.label_use)
    run_files.write_run_identity(own, files)
    for attempt in range(2):  # The second has nothing left to do before the step.
        with pytest.raises(Stopped, match="stopped by --stop_at_step at step 80 of 120"):
            loop.train_and_evaluate(runs.open_run(own, files, time.monotonic()), StopRequest(), 80)
        assert checkpoints.list_steps(files.checkpoints)[-1] == 80, attempt
        assert lines(tmp_path)[-1]["split"] == "validation"
    loop.train_and_evaluate(runs.open_run(own, files, time.monotonic()), StopRequest(), 400)
    assert lines(tmp_path) == lines(points_run)
    a, b = (tf.train.load_checkpoint(str(f / "checkpoints/ckpt-120")) for f in (points_run, tmp_path))
    names = {name for name in a.get_variable_to_shape_map() if "OBJECT_GRAPH" not in name}
    assert [name for name in names if not np.array_equal(a.get_tensor(name), b.get_tensor(name))] == []


@pytest.mark.long
def test_a_resumed_run_on_numbers_equals_an_uninterrupted_one(points_job, points_run, tmp_path):
    files = resolve_run_files(str(tmp_path))
    run_files.write_run_identity(points_job, files)
    with pytest.raises(Stopped):
        loop.train_and_evaluate(runs.open_run(points_job, files, time.monotonic()), StopRequest("SIGTERM"))
    assert run_files.read_label_use(files, points_job.manifest) == points_job.label_use
    loop.train_and_evaluate(runs.open_run(points_job, files, time.monotonic()), StopRequest())
    assert lines(tmp_path) == lines(points_run)
    a, b = (tf.train.load_checkpoint(str(f / "checkpoints/ckpt-120")) for f in (points_run, tmp_path))
    names = {name for name in a.get_variable_to_shape_map() if "OBJECT_GRAPH" not in name}
    assert [name for name in names if not np.array_equal(a.get_tensor(name), b.get_tensor(name))] == []
    assert len(names) > 100


def test_a_metric_that_is_no_number_ends_the_run(own_job, tmp_path):
    run = runs.open_run(own_job, resolve_run_files(str(tmp_path)), time.monotonic())
    one_class = dataclasses.replace(own_job.config.training, best_metric="roc_auc")
    run = dataclasses.replace(
        run, job=dataclasses.replace(own_job, config=dataclasses.replace(own_job.config, training=one_class))
    )
    validation = runs.read_split(run, "validation")
    alike = batching.select_rows(validation, np.flatnonzero(validation.labels == 0))
    with pytest.raises(ValueError, match="roc_auc must be a number on validation"):
        loop.evaluate_at(run, 50, alike, StopRequest())
    assert not (tmp_path / "best").exists()


def test_an_evaluation_returns_its_predictions_if_they_are_the_best(own_job, tmp_path):
    run = runs.open_run(own_job, resolve_run_files(str(tmp_path)), time.monotonic())
    validation, request = runs.read_split(run, "validation"), StopRequest()
    best = loop.evaluate_at(run, 50, validation, request)
    assert runs.measure(run, best)["loss"] == run.history.at("validation", 50)["loss"]
    assert loop.evaluate_at(run, 100, validation, request) is None  # The same again is no better.


def test_weights_that_are_no_numbers_end_the_run_at_an_evaluation(own_job, tmp_path):
    bias = own_job.model.trainable_variables[-1]
    before = bias.numpy()
    run = runs.open_run(own_job, resolve_run_files(str(tmp_path)), time.monotonic())
    try:
        bias.assign(before * np.nan)
        with pytest.raises(ValueError, match="loss must be a number on validation"):
            loop.evaluate_at(run, 50, runs.read_split(run, "validation"), StopRequest())
    finally:
        bias.assign(before)
    assert not (tmp_path / "best").exists()


def test_a_run_learns(finished_run):
    result = json.loads((finished_run / "result.json").read_text())
    assert result["validation"]["accuracy"] >= 0.8
    assert result["test"]["examples"] == 30


def test_the_best_step_has_the_highest_validation_metric(finished_run):
    result = json.loads((finished_run / "result.json").read_text())
    evaluations = [line for line in lines(finished_run) if line["split"] == "validation"]
    best = max(evaluations, key=lambda line: (line["accuracy"], -line["loss"]))
    assert result["best_step"] == best["step"]
    assert result["validation"] == {k: v for k, v in best.items() if k not in ("step", "split")}


def test_a_train_line_covers_the_steps_since_the_previous_line(finished_run):
    train = [line for line in lines(finished_run) if line["split"] == "train"]
    assert [line["examples"] for line in train] == [20 * 16] * 5
    peak = 1e-3
    assert [line["learning_rate"] for line in train] == pytest.approx(
        [peak * (100 - s + 1) / 100 for s in range(20, 101, 20)]
    )


def test_a_loss_that_is_not_finite_stops_the_run(own_job, resumed):
    run = runs.open_run(own_job, resolve_run_files(str(resumed[2])), time.monotonic())
    loop.stop_if_not_finite(run)
    run.sums.bad_step.assign(42)
    with pytest.raises(ValueError, match="must be finite") as raised:
        loop.stop_if_not_finite(run)
    for words in (
        "at step 42",
        "optimizer.learning_rate",
        "optimizer.warmup_fraction",
        "--model_dir",
        "checkpoints/ckpt-100",
    ):
        assert words in str(raised.value)


def test_only_the_chief_reports_a_trials_metric(own_job, resumed, tmp_path, monkeypatch):
    path = tmp_path / "metrics/file"
    monkeypatch.setenv("CLOUD_ML_TRIAL_ID", "1")
    monkeypatch.setenv("CLOUD_ML_HP_METRIC_FILE", str(path))
    run = runs.open_run(own_job, resolve_run_files(str(tmp_path / "run")), time.monotonic())
    validation = runs.read_split(run, "validation")
    history = dataclasses.replace(run.history, path=None)
    loop.evaluate_at(dataclasses.replace(run, chief=False, history=history, events=None), 50, validation, StopRequest())
    assert not path.exists()
    (tmp_path / "run").mkdir()
    loop.evaluate_at(run, 50, validation, StopRequest())
    measured = json.loads(path.read_text())
    assert (measured["global_step"], float(measured["validation/accuracy"])) == (
        "50",
        run.history.best("accuracy")["accuracy"],
    )


def with_patience(run, patience):
    training = dataclasses.replace(run.job.config.training, patience=patience)
    job = dataclasses.replace(run.job, config=dataclasses.replace(run.job.config, training=training))
    return dataclasses.replace(run, job=job)


def test_a_run_is_out_of_patience_after_as_many_evaluations(own_job, tmp_path):
    run = runs.open_run(own_job, resolve_run_files(str(tmp_path)), time.monotonic())
    assert not loop.out_of_patience(run, 1000)  # training.patience is unset.
    patient = with_patience(run, 3)
    assert [loop.out_of_patience(patient, waited) for waited in (0, 2, 3, 4)] == [False, False, True, True]


def test_the_chief_s_evaluations_decide_for_every_worker(own_job, tmp_path):
    exchanged = []

    def all_reduce_max(values):
        exchanged.append(values)
        return {name: max(value, 2) for name, value in values.items()}

    run = with_patience(runs.open_run(own_job, resolve_run_files(str(tmp_path)), time.monotonic()), 3)
    run.history.lines = [
        {"step": step, "split": "validation", "loss": 1.0, "accuracy": accuracy}
        for step, accuracy in ((10, 0.5), (20, 0.75), (30, 0.7), (40, 0.6))
    ]
    assert loop.evaluations_waited(run) == 2
    # Another worker may have read an old history: only the chief's counts.
    worker = dataclasses.replace(run, chief=False, all_reduce_max=all_reduce_max)
    assert loop.evaluations_waited(worker) == 2
    assert exchanged == [{"waited": 0}]
    assert loop.evaluations_waited(with_patience(worker, None)) == 0
    assert len(exchanged) == 1

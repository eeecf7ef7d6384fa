import dataclasses
import gc
import json
import shutil
import time

import numpy as np
import pytest
import tensorflow as tf

from trainer.distributed import strategies
from trainer.runtime import signals
from trainer.train import builder, checkpoints, runs
from trainer.train.run_files import resolve_run_files


def test_the_duration_includes_earlier_processes(job, model_dir):
    run = runs.open_run(job, resolve_run_files(str(model_dir)), time.monotonic() - 100)
    last = max(line["seconds"] for line in run.history.lines)
    assert last + 100 <= run.elapsed() <= last + 110


def test_a_split_is_read_with_texts_on_request(job, model_dir):
    run = runs.open_run(job, resolve_run_files(str(model_dir)), time.monotonic())
    columns = runs.read_split(run, "validation", with_text=True)
    assert len(columns) == len(columns.texts) == 30
    assert runs.read_split(run, "validation").texts is None
    assert runs.read_split(run, "test").ids != columns.ids


def test_the_best_weights_give_the_reported_result(job, model_dir):
    run = runs.open_run(job, resolve_run_files(str(model_dir)), time.monotonic())
    before = [v.numpy() for v in job.model.variables]
    try:
        checkpoints.restore_newest(run.best)
        predictions = runs.predict_split(
            run, runs.read_split(run, "validation"), "validation", None, signals.StopRequest()
        )
        request = signals.StopRequest("SIGTERM")
        with pytest.raises(signals.Stopped):
            runs.predict_split(run, runs.read_split(run, "validation"), "validation", None, request)
    finally:
        for variable, value in zip(job.model.variables, before, strict=True):
            variable.assign(value)
    result = json.loads((model_dir / "result.json").read_text())["validation"]
    assert np.mean(predictions.losses) == pytest.approx(result["loss"], abs=1e-5)
    assert np.mean(predictions.logits.argmax(axis=1) == predictions.labels) == pytest.approx(result["accuracy"])


def test_the_model_that_evaluates_is_built_when_it_is_first_needed(load, tmp_path, monkeypatch):
    job = builder.build_job(load("precision=bfloat16"), tf.distribute.OneDeviceStrategy("/cpu:0"))
    built, build_model = [], builder.build_model
    monkeypatch.setattr(builder, "build_model", lambda *given: built.append(build_model(*given)) or built[-1])
    run = runs.open_run(job, resolve_run_files(str(tmp_path)), time.monotonic())
    assert not built
    predictions = runs.predict_split(run, runs.read_split(run, "validation"), "validation", None, signals.StopRequest())
    assert len(predictions.labels) == 30
    assert [id(model) for model in built] == [id(job.eval_model)]
    assert dataclasses.replace(job, label_use=job.label_use).eval_model is job.eval_model is not job.model


def test_numbers_are_predicted_in_their_own_units(points_job, points_run, tmp_path):
    shutil.copytree(points_run / "best", tmp_path / "best")
    run = runs.open_run(points_job, resolve_run_files(str(tmp_path)), time.monotonic())
    checkpoints.restore_newest(run.best)
    columns = runs.read_split(run, "test")
    predictions = runs.predict_split(run, columns, "test", None, signals.StopRequest())
    assert (predictions.labels == columns.labels).all()
    assert predictions.labels.min() < 82 < 98 < predictions.labels.max()
    values, deviation = predictions.logits[:, 0], points_job.label_use.scale.deviation
    assert 75 < values.min() < values.max() < 105
    assert predictions.losses == pytest.approx(((values - columns.labels) / deviation) ** 2, abs=1e-4)


def test_the_best_step_is_that_of_the_weights(run, model_dir):
    kept = checkpoints.list_steps(str(model_dir / "best"))[-1]
    assert runs.best_line(run)["step"] == kept
    run.history.lines = [line | {"accuracy": 0.5, "loss": 1 / line["step"]} for line in run.history.of("validation")]
    assert runs.best_line(run)["step"] == kept
    run.history.lines = [line for line in run.history.lines if line["step"] != kept]
    assert runs.best_line(run) == run.history.best("accuracy")  # The run resumes before the step of best/.
    run.history.lines = []
    assert runs.best_line(run) is None


@pytest.fixture
def run(restored_job, model_dir):
    return runs.open_run(restored_job, resolve_run_files(str(model_dir)), time.monotonic())


def another_worker(run, largest: float) -> runs.Run:
    """The run of a worker that is not the chief, where each collective gives this number."""
    return dataclasses.replace(run, chief=False, all_reduce_max=lambda values: dict.fromkeys(values, largest))


def contents(folder) -> dict:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_single_worker_is_the_chief(run):
    assert run.chief
    assert strategies.worker_index_and_count(run.job.strategy) == (0, 1)
    assert run.all_reduce_max({"stop": False, "seconds": 1.5}) == {"stop": False, "seconds": 1.5}


def test_the_newest_checkpoint_is_restored_and_the_next_is_saved(run, model_dir):
    assert runs.restore(run, run.checkpoints) == 100
    assert int(run.job.optimizer.iterations.numpy()) == 100
    runs.save(run, run.checkpoints, 120)
    assert checkpoints.list_steps(str(model_dir / "checkpoints")) == [80, 100, 120]
    runs.save(run, run.checkpoints, 140, wait=False)
    assert checkpoints.is_saved(run.checkpoints, 140)


def test_a_new_run_restores_nothing(restored_job, tmp_path):
    new = runs.open_run(restored_job, resolve_run_files(str(tmp_path / "new")), time.monotonic())
    assert runs.restore(new, new.checkpoints) is None
    assert runs.restore(new, new.best) is None
    assert runs.restore(another_worker(new, -1), new.checkpoints) is None
    assert not (tmp_path / "new/checkpoints").exists()


@pytest.mark.parametrize(("setting", "expected"), [(None, False), (True, True), (False, False)])
def test_background_saves_are_off_by_default_on_a_cpu(restored_job, model_dir, setting, expected):
    training = dataclasses.replace(restored_job.config.training, background_saves=setting)
    configured = dataclasses.replace(restored_job, config=dataclasses.replace(restored_job.config, training=training))
    opened = runs.open_run(configured, resolve_run_files(str(model_dir)), time.monotonic())
    assert opened.checkpoints.background is expected
    assert opened.best.background is False


def test_an_evaluation_leaves_no_cycles(run):
    columns = runs.read_split(run, "validation")
    runs.predict_split(run, columns, "validation", None, signals.StopRequest())  # Traces, and builds what is kept.
    gc.collect()
    gc.disable()
    try:
        runs.predict_split(run, columns, "validation", None, signals.StopRequest())
        assert gc.collect() < 100  # Without collect_recent it is 4,000.
    finally:
        gc.enable()


def test_a_run_stops_for_a_signal_to_any_worker(run):
    runs.stop_if_requested(run, signals.StopRequest())
    with pytest.raises(signals.Stopped, match=r"^stopped by SIGTERM$"):
        runs.stop_if_requested(run, signals.StopRequest("SIGTERM"))
    with pytest.raises(signals.Stopped, match=r"^stopped by a signal to another worker$"):
        runs.stop_if_requested(another_worker(run, 1), signals.StopRequest())


def test_a_worker_restores_the_chiefs_step_and_writes_nothing(run, model_dir):
    before = contents(model_dir)
    worker = another_worker(run, 100)
    assert runs.restore(worker, worker.checkpoints) == 100
    assert int(worker.job.optimizer.iterations.numpy()) == 100
    runs.save(worker, worker.checkpoints, 120)
    runs.save(worker, worker.best, 120, wait=False)
    assert contents(model_dir) == before


def test_a_worker_without_the_chiefs_checkpoint_fails(run, model_dir):
    for file in (model_dir / "checkpoints").glob("ckpt-100.*"):
        file.unlink()
    worker = another_worker(run, 100)
    with pytest.raises(ValueError, match=rf"^--model_dir must .*Received: {model_dir}.* step 100"):
        runs.restore(worker, worker.checkpoints)


def test_a_worker_with_a_corrupt_checkpoint_deletes_nothing(run, model_dir):
    (data,) = (model_dir / "checkpoints").glob("ckpt-100.data-*")
    data.write_bytes(data.read_bytes()[:-1000])
    before = contents(model_dir)
    worker = another_worker(run, 100)
    with pytest.raises((ValueError, tf.errors.OpError)):
        runs.restore(worker, worker.checkpoints)
    assert contents(model_dir) == before


def test_a_decision_that_was_not_kept_is_the_same_again(run, model_dir):
    step = runs.restore(run, run.best)
    kept = runs.load_decision(run, step, signals.StopRequest())
    assert kept.step == step
    assert (kept.calibrate, kept.threshold) == (False, None)
    (model_dir / "decision.json").unlink()
    again = runs.load_decision(run, step, signals.StopRequest())
    assert again == kept
    runs.keep_decision(another_worker(run, 0), again)
    assert not (model_dir / "decision.json").exists()
    runs.keep_decision(run, again)
    assert (
        runs.load_decision(run, step, signals.StopRequest("SIGTERM")) == kept
    )  # Nothing is evaluated that could stop.


def test_another_worker_evaluates_if_the_chief_has_no_decision(run):
    step = runs.restore(run, run.best)
    assert runs.load_decision(another_worker(run, 0), step, signals.StopRequest()) is None
    with pytest.raises(signals.Stopped):
        runs.load_decision(another_worker(run, 1), step, signals.StopRequest("SIGTERM"))


def test_numbers_need_no_decision(points_job, tmp_path):
    run = runs.open_run(points_job, resolve_run_files(str(tmp_path)), time.monotonic())
    assert runs.load_decision(run, 0, signals.StopRequest("SIGTERM")) is None

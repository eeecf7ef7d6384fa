import dataclasses
import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from trainer.config import loading
from trainer.distributed import strategies
from trainer.runtime import signals
from trainer.train import checkpoints, run_files, runs
from trainer.train.run_files import resolve_run_files


@pytest.fixture
def model_dir(finished_run, tmp_path):
    """A copy of the finished run's model_dir, without its export and events."""
    return shutil.copytree(finished_run, tmp_path / "run", ignore=shutil.ignore_patterns("export", "tensorboard"))


@pytest.fixture
def configured(finished_run):
    """A function "key=value"... -> the finished run's configuration with these values."""
    return lambda *overrides: loading.load_config(str(finished_run / "config.yaml"), overrides)


def test_a_model_dir_holds_the_documented_files(finished_run):
    folders = {"checkpoints", "best", "export", "tensorboard"}
    files = {"config.yaml", "identity.json", "history.png", "metrics.jsonl", "result.json"}
    assert {path.name for path in finished_run.iterdir() if not path.name.startswith(".")} == folders | files
    assert checkpoints.list_steps(str(finished_run / "checkpoints")) == [40, 80, 100]
    result = json.loads((finished_run / "result.json").read_text())
    assert checkpoints.list_steps(str(finished_run / "best")) == [result["best_step"]]


def test_the_resolved_configuration_is_written_and_read_back(finished_run, flags):
    written = loading.load_config(str(finished_run / "config.yaml"))
    settings = [flag.removeprefix("--set=") for flag in flags if flag.startswith("--set=")]
    folders = [flag.removeprefix("--") for flag in flags if not flag.startswith("--set=")]
    assert loading.find_differences(written, loading.load_config(None, [*settings, *folders])) == []


def test_a_finished_run_is_recognized(model_dir, configured):
    expected = json.loads((model_dir / "result.json").read_text())
    for same in ((), ("logging.progress=off",), ("data_dir=moved", "encoder=moved"), ("precision=auto",)):
        assert run_files.read_finished_result(configured(*same), resolve_run_files(str(model_dir))) == expected


def test_a_new_or_unfinished_run_has_no_result(model_dir, configured, tmp_path):
    assert run_files.read_finished_result(configured(), resolve_run_files(str(tmp_path / "new"))) is None
    (model_dir / "result.json").unlink()
    assert run_files.read_finished_result(configured(), resolve_run_files(str(model_dir))) is None


@pytest.mark.parametrize("has_finished", [True, False])
def test_another_configuration_is_rejected_with_its_keys(model_dir, configured, has_finished):
    if not has_finished:
        (model_dir / "result.json").unlink()
    with pytest.raises(ValueError, match="--model_dir must be new") as raised:
        run_files.read_finished_result(
            configured("optimizer.learning_rate=0.5", "seed=7", "logging.progress=off"),
            resolve_run_files(str(model_dir)),
        )
    for words in (
        "optimizer.learning_rate: 0.001 in the run, 0.5 here",
        "seed: 0 in the run, 7 here",
        str(model_dir),
        "another --model_dir",
    ):
        assert words in str(raised.value)
    assert "logging" not in str(raised.value)


def test_without_a_checkpoint_the_configuration_may_change(model_dir, configured):
    (model_dir / "result.json").unlink()
    shutil.rmtree(model_dir / "checkpoints")
    assert run_files.read_finished_result(configured("seed=7"), resolve_run_files(str(model_dir))) is None


def with_other(job, what):
    if what == "--data_dir":
        return dataclasses.replace(job, manifest=dataclasses.replace(job.manifest, seed=job.manifest.seed + 1))
    return dataclasses.replace(job, encoder=dataclasses.replace(job.encoder, sha256="0" * 64))


@pytest.mark.parametrize(("flag", "key"), [("--data_dir", "data_fingerprint"), ("--encoder", "encoder_sha256")])
def test_a_model_dir_of_other_data_or_weights_is_rejected(job, model_dir, flag, key):
    before = {path: path.read_bytes() for path in model_dir.iterdir() if path.is_file()}
    run_files.write_run_identity(job, resolve_run_files(str(model_dir)))
    with pytest.raises(ValueError, match=rf"^{flag} must .*{model_dir} \({key} [0-9a-f]{{12}}\)\. Received: another"):
        run_files.write_run_identity(with_other(job, flag), resolve_run_files(str(model_dir)))
    assert (model_dir / "identity.json").read_bytes() == before[model_dir / "identity.json"]


def test_a_new_model_dir_gets_the_runs_identity(job, tmp_path):
    (tmp_path / "new").mkdir()
    run_files.write_run_identity(job, resolve_run_files(str(tmp_path / "new")))
    assert loading.load_config(str(tmp_path / "new/config.yaml")) == job.config
    identity = json.loads((tmp_path / "new/identity.json").read_text())
    assert identity == {"data_fingerprint": job.manifest.fingerprint, "encoder_sha256": job.encoder.sha256}


@pytest.fixture
def moved_checkpoints(model_dir, tmp_path):
    """(the run's files with the default folder of checkpoints, and with the folder that holds its checkpoints)."""
    folder = str(tmp_path / "elsewhere")
    shutil.move(model_dir / "checkpoints", folder)
    identity = json.loads((model_dir / "identity.json").read_text())
    (model_dir / "identity.json").write_text(json.dumps({**identity, "checkpoints": folder}))
    return resolve_run_files(str(model_dir)), resolve_run_files(str(model_dir), {"checkpoints": folder})


@pytest.mark.parametrize("has_finished", [True, False])
def test_a_run_with_checkpoints_elsewhere_resumes_only_with_them(moved_checkpoints, configured, has_finished):
    alone, files = moved_checkpoints
    if not has_finished:
        Path(alone.result).unlink()
    assert (run_files.read_finished_result(configured(), files) is not None) == has_finished
    for others in (alone, resolve_run_files(alone.root, {"checkpoints": "/new"})):
        with pytest.raises(ValueError, match=r"^AIP_CHECKPOINT_DIR must") as raised:
            run_files.read_finished_result(configured(), others)
        for words in (alone.root, f"Received: {others.checkpoints}", f"AIP_CHECKPOINT_DIR={files.checkpoints}"):
            assert words in str(raised.value)


def test_a_run_in_its_model_dir_does_not_restart_elsewhere(model_dir, configured, tmp_path):
    words = rf"Received: {tmp_path}/new, but they are in {model_dir}/checkpoints\. "
    with pytest.raises(ValueError, match=words):
        run_files.read_finished_result(
            configured(), resolve_run_files(str(model_dir), {"checkpoints": str(tmp_path / "new")})
        )


def test_a_new_run_does_not_use_the_checkpoints_of_another(moved_checkpoints, configured, tmp_path):
    _, files = moved_checkpoints
    with pytest.raises(ValueError, match="which has those of another run"):
        run_files.read_finished_result(
            configured(), resolve_run_files(str(tmp_path / "new"), {"checkpoints": files.checkpoints})
        )


def test_the_identity_names_checkpoints_that_are_elsewhere(job, tmp_path):
    (tmp_path / "new").mkdir()
    run_files.write_run_identity(
        job, resolve_run_files(str(tmp_path / "new"), {"checkpoints": "/there", "export": "/model"})
    )
    assert json.loads((tmp_path / "new/identity.json").read_text())["checkpoints"] == "/there"


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
        predictions = runs.predict_split(run, runs.read_split(run, "validation"), "validation", signals.StopRequest())
        request = signals.StopRequest("SIGTERM")
        with pytest.raises(signals.Stopped):
            runs.predict_split(run, runs.read_split(run, "validation"), "validation", request)
    finally:
        for variable, value in zip(job.model.variables, before, strict=True):
            variable.assign(value)
    result = json.loads((model_dir / "result.json").read_text())["validation"]
    assert np.mean(predictions.losses) == pytest.approx(result["loss"], abs=1e-5)
    assert np.mean(predictions.logits.argmax(axis=1) == predictions.labels) == pytest.approx(result["accuracy"])


# --- One worker, and one of several ---------------------------------------------------------------


@pytest.fixture
def restored_job(job):
    """The session's job. Its model and optimizer get their values back at the end."""
    variables = [*job.model.variables, *job.optimizer.variables()]
    before = [variable.numpy() for variable in variables]
    yield job
    for variable, value in zip(variables, before, strict=True):
        variable.assign(value)


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
    assert runs.export_run(another_worker(run, 0), signals.StopRequest()) == 0
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

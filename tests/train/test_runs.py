"""A model_dir: what is in it, and who may go on in it."""

import dataclasses
import json
import re
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
    """A copy of the finished run's, without its model."""
    return shutil.copytree(finished_run, tmp_path / "run", ignore=shutil.ignore_patterns("export", "tensorboard"))


@pytest.fixture
def configured(finished_run):
    """A function "key=value"... -> the finished run's configuration with these changes."""
    return lambda *overrides: loading.load_config(str(finished_run / "config.yaml"), overrides)


def test_a_model_dir_holds_what_the_contract_lists(finished_run):
    promised = {
        "config.yaml",
        "checkpoints",
        "best",
        "export",
        "tensorboard",
        "history.png",
        "metrics.jsonl",
        "result.json",
    }
    assert {path.name for path in finished_run.iterdir() if not path.name.startswith(".")} == promised | {
        "identity.json"
    }
    assert checkpoints.list_steps(str(finished_run / "checkpoints")) == [40, 80, 100]
    result = json.loads((finished_run / "result.json").read_text())
    assert checkpoints.list_steps(str(finished_run / "best")) == [result["best_step"]]


def test_the_resolved_configuration_is_written_and_read_back(finished_run, flags):
    written = loading.load_config(str(finished_run / "config.yaml"))
    asked = [flag.removeprefix("--set=") for flag in flags if flag.startswith("--set=")]
    folders = [flag.removeprefix("--") for flag in flags if not flag.startswith("--set=")]
    assert loading.find_differences(written, loading.load_config(None, [*asked, *folders])) == []


def test_a_finished_run_is_known(model_dir, configured):
    expected = json.loads((model_dir / "result.json").read_text())
    for same in ((), ("logging.progress=off",), ("data_dir=moved", "encoder=moved"), ("precision=auto",)):
        assert run_files.read_finished_result(configured(*same), resolve_run_files(str(model_dir))) == expected


def test_a_run_that_is_new_or_not_finished_has_no_result(model_dir, configured, tmp_path):
    assert run_files.read_finished_result(configured(), resolve_run_files(str(tmp_path / "new"))) is None
    (model_dir / "result.json").unlink()
    assert run_files.read_finished_result(configured(), resolve_run_files(str(model_dir))) is None


@pytest.mark.parametrize("has_finished", [True, False])
def test_another_configuration_is_refused_and_its_keys_are_named(model_dir, configured, has_finished):
    if not has_finished:
        (model_dir / "result.json").unlink()
    with pytest.raises(ValueError, match="--model_dir must be new, or one that this configuration has begun") as raised:
        run_files.read_finished_result(
            configured("optimizer.learning_rate=0.5", "seed=7", "logging.progress=off"),
            resolve_run_files(str(model_dir)),
        )
    for words in (
        "optimizer.learning_rate: 0.001 there, 0.5 here",
        "seed: 0 there, 7 here",
        str(model_dir),
        "another --model_dir",
    ):
        assert words in str(raised.value)
    assert "logging" not in str(raised.value)


def test_a_model_dir_that_has_no_checkpoint_yet_may_be_begun_with_another(model_dir, configured):
    (model_dir / "result.json").unlink()
    shutil.rmtree(model_dir / "checkpoints")
    assert run_files.read_finished_result(configured("seed=7"), resolve_run_files(str(model_dir))) is None


def with_other(job, what):
    if what == "--data_dir":
        return dataclasses.replace(job, manifest=dataclasses.replace(job.manifest, seed=job.manifest.seed + 1))
    return dataclasses.replace(job, encoder=dataclasses.replace(job.encoder, sha256="0" * 64))


@pytest.mark.parametrize(("flag", "key"), [("--data_dir", "data_fingerprint"), ("--encoder", "encoder_sha256")])
def test_a_model_dir_begun_with_other_data_or_weights_is_refused(job, model_dir, flag, key):
    before = {path: path.read_bytes() for path in model_dir.iterdir() if path.is_file()}
    run_files.write_run_identity(job, resolve_run_files(str(model_dir)))
    words = (
        rf"{flag} must be what --model_dir {model_dir} was begun with \({key} [0-9a-f]{{12}}\)\. Received: another \("
    )
    with pytest.raises(ValueError, match=words):
        run_files.write_run_identity(with_other(job, flag), resolve_run_files(str(model_dir)))
    assert (model_dir / "identity.json").read_bytes() == before[model_dir / "identity.json"]


def test_a_new_model_dir_is_claimed(job, tmp_path):
    (tmp_path / "new").mkdir()
    run_files.write_run_identity(job, resolve_run_files(str(tmp_path / "new")))
    assert loading.load_config(str(tmp_path / "new/config.yaml")) == job.config
    identity = json.loads((tmp_path / "new/identity.json").read_text())
    assert identity == {"data_fingerprint": job.manifest.fingerprint, "encoder_sha256": job.encoder.sha256}


@pytest.fixture
def left(model_dir, tmp_path):
    """(a run's files, the same with its checkpoints where it has left them, outside the model_dir)."""
    there = str(tmp_path / "left")
    shutil.move(model_dir / "checkpoints", there)
    identity = json.loads((model_dir / "identity.json").read_text())
    (model_dir / "identity.json").write_text(json.dumps({**identity, "checkpoints": there}))
    return resolve_run_files(str(model_dir)), resolve_run_files(str(model_dir), {"checkpoints": there})


@pytest.mark.parametrize("has_finished", [True, False])
def test_a_run_whose_checkpoints_are_elsewhere_goes_on_only_with_them(left, configured, has_finished):
    alone, files = left
    if not has_finished:
        Path(alone.result).unlink()
    assert (run_files.read_finished_result(configured(), files) is not None) == has_finished
    for others in (alone, resolve_run_files(alone.root, {"checkpoints": "/new"})):
        words = (
            f"AIP_CHECKPOINT_DIR must hold the checkpoints of the run in --model_dir {alone.root}. Received: "
            f"{others.checkpoints}, but they are in {files.checkpoints}. Set AIP_CHECKPOINT_DIR={files.checkpoints}, "
            "or choose another --model_dir."
        )
        with pytest.raises(ValueError, match=re.escape(words)):
            run_files.read_finished_result(configured(), others)


def test_a_run_begun_in_its_model_dir_does_not_start_again_elsewhere(model_dir, configured, tmp_path):
    words = rf"Received: {tmp_path}/new, but they are in {model_dir}/checkpoints\. "
    with pytest.raises(ValueError, match=words):
        run_files.read_finished_result(
            configured(), resolve_run_files(str(model_dir), {"checkpoints": str(tmp_path / "new")})
        )


def test_a_new_run_does_not_take_the_checkpoints_of_another(left, configured, tmp_path):
    _, files = left
    with pytest.raises(ValueError, match="which has those of another run"):
        run_files.read_finished_result(
            configured(), resolve_run_files(str(tmp_path / "new"), {"checkpoints": files.checkpoints})
        )


def test_a_run_says_where_its_checkpoints_are_if_that_is_elsewhere(job, tmp_path):
    (tmp_path / "new").mkdir()
    run_files.write_run_identity(
        job, resolve_run_files(str(tmp_path / "new"), {"checkpoints": "/there", "export": "/model"})
    )
    assert json.loads((tmp_path / "new/identity.json").read_text())["checkpoints"] == "/there"


def test_the_seconds_of_earlier_processes_are_added(job, model_dir):
    run = runs.open_run(job, resolve_run_files(str(model_dir)), time.monotonic() - 100)
    last = max(line["seconds"] for line in run.history.lines)
    assert last + 100 <= run.elapsed() <= last + 110


def test_a_split_is_read_with_its_texts_if_wanted(job, model_dir):
    run = runs.open_run(job, resolve_run_files(str(model_dir)), time.monotonic())
    columns = runs.read_split(run, "validation", with_text=True)
    assert len(columns) == len(columns.texts) == 30
    assert runs.read_split(run, "validation").texts is None
    assert runs.read_split(run, "test").ids != columns.ids


def test_the_best_weights_give_the_result_again(job, model_dir):
    run = runs.open_run(job, resolve_run_files(str(model_dir)), time.monotonic())
    before = [v.numpy() for v in job.model.variables]
    try:
        checkpoints.restore_newest(run.bests)
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
def kept(job):
    """The session's job, whose model, optimizer and sums are put back at the end."""
    variables = [*job.model.variables, *job.optimizer.variables()]
    before = [variable.numpy() for variable in variables]
    yield job
    for variable, value in zip(variables, before, strict=True):
        variable.assign(value)


@pytest.fixture
def run(kept, model_dir):
    return runs.open_run(kept, resolve_run_files(str(model_dir)), time.monotonic())


def another_worker(run, largest: float) -> runs.Run:
    """The run of a worker that is not the chief, where each collective gives this number."""
    return dataclasses.replace(run, chief=False, agree=lambda values: dict.fromkeys(values, largest))


def contents(folder) -> dict:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_worker_alone_is_the_chief_and_agrees_with_itself(run):
    assert run.chief
    assert strategies.worker_index_and_count(run.job.strategy) == (0, 1)
    assert run.agree({"stop": False, "seconds": 1.5}) == {"stop": False, "seconds": 1.5}


def test_the_newest_checkpoint_is_restored_and_the_next_is_saved(run, model_dir):
    assert runs.restore(run, run.checkpoints) == 100
    assert int(run.job.optimizer.iterations.numpy()) == 100
    runs.save(run, run.checkpoints, 120)
    assert checkpoints.list_steps(str(model_dir / "checkpoints")) == [80, 100, 120]
    runs.save(run, run.checkpoints, 140, wait=False)
    assert checkpoints.is_saved(run.checkpoints, 140)


def test_a_new_run_restores_nothing(kept, tmp_path):
    new = runs.open_run(kept, resolve_run_files(str(tmp_path / "new")), time.monotonic())
    assert runs.restore(new, new.checkpoints) is None
    assert runs.restore(new, new.bests) is None
    assert runs.restore(another_worker(new, -1), new.checkpoints) is None
    assert not (tmp_path / "new/checkpoints").exists()


@pytest.mark.parametrize(("asked", "expected"), [(None, False), (True, True), (False, False)])
def test_saves_go_on_in_the_background_if_the_configuration_says_so_and_never_unasked_on_a_cpu(
    kept, model_dir, asked, expected
):
    training = dataclasses.replace(kept.config.training, background_saves=asked)
    configured = dataclasses.replace(kept, config=dataclasses.replace(kept.config, training=training))
    opened = runs.open_run(configured, resolve_run_files(str(model_dir)), time.monotonic())
    assert opened.checkpoints.background is expected
    assert opened.bests.background is False


def test_a_run_stops_if_it_was_asked_or_another_worker_was(run):
    runs.stop_if_requested(run, signals.StopRequest())
    with pytest.raises(signals.Stopped, match=r"^stopped by SIGTERM$"):
        runs.stop_if_requested(run, signals.StopRequest("SIGTERM"))
    with pytest.raises(signals.Stopped, match=r"^stopped by a signal to another worker$"):
        runs.stop_if_requested(another_worker(run, 1), signals.StopRequest())


def test_a_worker_that_is_not_the_chief_restores_what_the_chief_has_and_writes_nowhere(run, model_dir):
    before = contents(model_dir)
    worker = another_worker(run, 100)
    assert runs.restore(worker, worker.checkpoints) == 100
    assert int(worker.job.optimizer.iterations.numpy()) == 100
    runs.save(worker, worker.checkpoints, 120)
    runs.save(worker, worker.bests, 120, wait=False)
    quiet = another_worker(run, 0)
    assert runs.export_run(quiet, signals.StopRequest()) == 0
    assert contents(model_dir) == before


def test_a_worker_that_does_not_find_the_chiefs_checkpoint_has_other_storage(run, model_dir):
    for file in (model_dir / "checkpoints").glob("ckpt-100.*"):
        file.unlink()
    words = (
        rf"--model_dir must be storage that all workers share\. Received: {model_dir}, in which the chief has found "
        r"the checkpoint of step 100, but this worker: The checkpoint of step 100 is required"
    )
    worker = another_worker(run, 100)
    with pytest.raises(ValueError, match=words):
        runs.restore(worker, worker.checkpoints)


def test_a_worker_that_cannot_read_the_chiefs_checkpoint_deletes_nothing(run, model_dir):
    (data,) = (model_dir / "checkpoints").glob("ckpt-100.data-*")
    data.write_bytes(data.read_bytes()[:-1000])
    before = contents(model_dir)
    worker = another_worker(run, 100)
    with pytest.raises((ValueError, tf.errors.OpError)):
        runs.restore(worker, worker.checkpoints)
    assert contents(model_dir) == before

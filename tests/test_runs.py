"""A model_dir: what is in it, and who may go on in it."""

import dataclasses
import json
import shutil
import time

import numpy as np
import pytest

from trainer import checkpoint, config, runs, signals


@pytest.fixture
def model_dir(finished_run, tmp_path):
    """A copy of the finished run's, without its model."""
    return shutil.copytree(finished_run, tmp_path / "run", ignore=shutil.ignore_patterns("export", "tensorboard"))


@pytest.fixture
def configured(finished_run):
    """A function "key=value"... -> the finished run's configuration with these changes."""
    return lambda *overrides: config.load(str(finished_run / "config.yaml"), overrides)


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
    assert checkpoint.steps(str(finished_run / "checkpoints")) == [40, 80, 100]
    result = json.loads((finished_run / "result.json").read_text())
    assert checkpoint.steps(str(finished_run / "best")) == [result["best_step"]]


def test_the_resolved_configuration_is_written_and_read_back(finished_run, flags):
    written = config.load(str(finished_run / "config.yaml"))
    asked = [flag.removeprefix("--set=") for flag in flags if flag.startswith("--set=")]
    folders = [flag.removeprefix("--") for flag in flags if not flag.startswith("--set=")]
    assert config.differences(written, config.load(None, [*asked, *folders])) == []


def test_a_finished_run_is_known(model_dir, configured):
    expected = json.loads((model_dir / "result.json").read_text())
    for same in ((), ("logging.progress=off",), ("data_dir=moved", "encoder=moved"), ("precision=auto",)):
        assert runs.finished(configured(*same), str(model_dir)) == expected


def test_a_run_that_is_new_or_not_finished_has_no_result(model_dir, configured, tmp_path):
    assert runs.finished(configured(), str(tmp_path / "new")) is None
    (model_dir / "result.json").unlink()
    assert runs.finished(configured(), str(model_dir)) is None


@pytest.mark.parametrize("has_finished", [True, False])
def test_another_configuration_is_refused_and_its_keys_are_named(model_dir, configured, has_finished):
    if not has_finished:
        (model_dir / "result.json").unlink()
    with pytest.raises(ValueError, match="--model_dir must be new, or one that this configuration has begun") as raised:
        runs.finished(configured("optimizer.learning_rate=0.5", "seed=7", "logging.progress=off"), str(model_dir))
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
    assert runs.finished(configured("seed=7"), str(model_dir)) is None


def with_other(job, what):
    if what == "--data_dir":
        return dataclasses.replace(job, manifest=dataclasses.replace(job.manifest, seed=job.manifest.seed + 1))
    return dataclasses.replace(job, encoder=dataclasses.replace(job.encoder, sha256="0" * 64))


@pytest.mark.parametrize(("flag", "key"), [("--data_dir", "data_fingerprint"), ("--encoder", "encoder_sha256")])
def test_a_model_dir_begun_with_other_data_or_weights_is_refused(job, model_dir, flag, key):
    before = {path: path.read_bytes() for path in model_dir.iterdir() if path.is_file()}
    runs.claim(job, str(model_dir))
    words = (
        rf"{flag} must be what --model_dir {model_dir} was begun with \({key} [0-9a-f]{{12}}\)\. Received: another \("
    )
    with pytest.raises(ValueError, match=words):
        runs.claim(with_other(job, flag), str(model_dir))
    assert (model_dir / "identity.json").read_bytes() == before[model_dir / "identity.json"]


def test_a_new_model_dir_is_claimed(job, tmp_path):
    (tmp_path / "new").mkdir()
    runs.claim(job, str(tmp_path / "new"))
    assert config.load(str(tmp_path / "new/config.yaml")) == job.config
    identity = json.loads((tmp_path / "new/identity.json").read_text())
    assert identity == {"data_fingerprint": job.manifest.fingerprint, "encoder_sha256": job.encoder.sha256}


def test_the_seconds_of_earlier_processes_are_added(job, model_dir):
    run = runs.open_run(job, str(model_dir), time.monotonic() - 100)
    last = max(line["seconds"] for line in run.history.lines)
    assert last + 100 <= run.elapsed() <= last + 110


def test_a_split_is_read_with_its_texts_if_wanted(job, model_dir):
    run = runs.open_run(job, str(model_dir), time.monotonic())
    columns = runs.read_split(run, "validation", with_text=True)
    assert len(columns) == len(columns.texts) == 30
    assert runs.read_split(run, "validation").texts is None
    assert runs.read_split(run, "test").ids != columns.ids


def test_the_best_weights_give_the_result_again(job, model_dir):
    run = runs.open_run(job, str(model_dir), time.monotonic())
    before = [v.numpy() for v in job.model.variables]
    try:
        checkpoint.restore(run.bests)
        predictions = runs.predict(run, runs.read_split(run, "validation"), "validation", signals.Request())
        request = signals.Request("SIGTERM")
        with pytest.raises(signals.Stopped):
            runs.predict(run, runs.read_split(run, "validation"), "validation", request)
    finally:
        for variable, value in zip(job.model.variables, before, strict=True):
            variable.assign(value)
    result = json.loads((model_dir / "result.json").read_text())["validation"]
    assert np.mean(predictions.losses) == pytest.approx(result["loss"], abs=1e-5)
    assert np.mean(predictions.logits.argmax(axis=1) == predictions.labels) == pytest.approx(result["accuracy"])

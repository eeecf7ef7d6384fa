import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from trainer.errors import Problem, UsageError
from trainer.train import sessions
from trainer.train.sessions import Command, SessionRequest


def problems_of(request: SessionRequest) -> list[str]:
    with pytest.raises(UsageError) as caught:
        sessions.open_session(request)
    return [problem.setting for problem in caught.value.problems]


def test_settings_are_values_of_python_or_of_numpy_in_sections_or_not(prepared, tiny, tmp_path):
    settings = {
        "data_dir": prepared,
        "encoder": str(tiny) + "/",
        "data": {"batch_size": np.int64(8)},
        "optimizer.learning_rate": np.float32(0.5),
        "training": {"class_weights": {"negative": 2}, "steps": None},
    }
    session = sessions.open_session(SessionRequest("train", str(tmp_path / "run"), settings))
    config = session.config
    assert (config.data_dir, config.encoder) == (str(prepared), str(tiny))
    assert (config.data.batch_size, config.optimizer.learning_rate) == (8, 0.5)
    assert (config.training.class_weights, config.training.steps) == ({"negative": 2.0}, None)
    assert session.files.root == str(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_second_signal_ends_the_process_of_a_command_alone(prepared, tmp_path):
    request = SessionRequest("train", str(tmp_path), {"data_dir": prepared})
    called = time.monotonic()
    session = sessions.open_session(request)
    assert not session.of_command
    assert session.started >= called
    session = sessions.open_session(SessionRequest("train", str(tmp_path), {}, command=Command(7.0)))
    assert (session.of_command, session.started) == (True, 7.0)


def test_every_problem_is_reported_at_once():
    given = [Problem("--first", "be left out", "one")], Command(0.0, [Problem("--second", "be left out", "one")])
    settings = {"data_dir": "s3://data", "training.step": 1, "seed": "x"}
    request = SessionRequest("train", "", settings, predictions="no/such/folder/file", problems=given[0])
    assert problems_of(request) == ["--first", "--data_dir", "--model_dir", "seed", "training.step", "--predictions"]
    assert problems_of(SessionRequest("train", "m", {"seed": -1}, command=given[1])) == ["--second", "seed"]
    assert problems_of(SessionRequest("train", "m", {"seed": -1, "data_dir": "nope"})) == ["seed", "--data_dir"]
    request = SessionRequest("train", "", {"data_dir": "nope"}, strategy="horovod", virtual_devices=0)
    assert problems_of(request) == ["--strategy", "--virtual_devices", "--model_dir", "--data_dir"]


def test_a_run_has_a_configuration_of_its_own(finished_run, tmp_path):
    settings = {"data_dir": tmp_path / "moved", "logging.progress": False}
    session = sessions.open_session(SessionRequest("evaluate", str(finished_run), settings, predictions="~/a.jsonl"))
    assert (session.config.data.batch_size, session.config.data_dir) == (16, str(tmp_path / "moved"))
    assert not session.config.logging.progress
    assert session.predictions == str(Path.home() / "a.jsonl")
    assert problems_of(SessionRequest("evaluate", str(finished_run), {"seed": 1, "config": "a"})) == [
        "--seed",
        "--config",
    ]
    assert problems_of(SessionRequest("report", str(tmp_path), {})) == ["--model_dir"]


def test_a_tpu_that_is_named_too_late_is_a_problem(monkeypatch, prepared, tmp_path):
    assert tf.__version__  # It is imported.
    for name in ("TPU_NAME", "PJRT_DEVICE", "NEXT_PLUGGABLE_DEVICE_USE_C_API"):
        monkeypatch.delenv(name, raising=False)
    assert problems_of(SessionRequest("train", str(tmp_path), {"data_dir": prepared}, tpu="local")) == ["--tpu"]

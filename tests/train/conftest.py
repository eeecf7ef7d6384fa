"""Fixtures of a finished run's folder, and of a job that may be changed."""

import shutil

import pytest
from helpers import load_quietly

from trainer.config import loading
from trainer.data import manifests


@pytest.fixture
def model_dir(finished_run, tmp_path):
    """A copy of the finished run's model_dir, without its export and events."""
    return shutil.copytree(finished_run, tmp_path / "run", ignore=shutil.ignore_patterns("export", "tensorboard"))


@pytest.fixture(scope="module")
def manifest(prepared):
    return manifests.read_manifest(str(prepared))


@pytest.fixture
def load(tiny, prepared):
    """A function "key=value"... -> the configuration, by default with the tiny encoder and the reviews."""
    return lambda *overrides: loading.load_config(None, [f"encoder={tiny}", f"data_dir={prepared}", *overrides])


@pytest.fixture
def restored_job(job):
    """The session's job. Its model and optimizer get their values back at the end."""
    variables = [*job.model.variables, *job.optimizer.variables()]
    before = [variable.numpy() for variable in variables]
    yield job
    for variable, value in zip(variables, before, strict=True):
        variable.assign(value)


@pytest.fixture(scope="session")
def points_job(points_run):
    """The job of the finished run on numbers, to be trained."""
    import tensorflow as tf

    from trainer.train import builder, run_files

    loaded = load_quietly(points_run)
    files = run_files.resolve_run_files(str(points_run))
    started = run_files.read_label_use(files, manifests.read_manifest(loaded.data_dir))
    return builder.build_job(loaded, tf.distribute.OneDeviceStrategy("/cpu:0"), started)


@pytest.fixture
def mlflow_store(tmp_path, monkeypatch):
    """The URI of a folder that MLflow logs to, which it allows on request only."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return f"file://{tmp_path}/mlflow"

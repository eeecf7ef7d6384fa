"""Fixtures of a finished run's folder, and of a job that may be changed."""

import shutil

import pytest


@pytest.fixture
def model_dir(finished_run, tmp_path):
    """A copy of the finished run's model_dir, without its export and events."""
    return shutil.copytree(finished_run, tmp_path / "run", ignore=shutil.ignore_patterns("export", "tensorboard"))


@pytest.fixture
def restored_job(job):
    """The session's job. Its model and optimizer get their values back at the end."""
    variables = [*job.model.variables, *job.optimizer.variables()]
    before = [variable.numpy() for variable in variables]
    yield job
    for variable, value in zip(variables, before, strict=True):
        variable.assign(value)

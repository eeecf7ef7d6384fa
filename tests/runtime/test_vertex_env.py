"""The variables and flags of Vertex AI and AI Platform, with values from their documentation."""

import dataclasses
import json

import pytest

from trainer.errors import UsageError
from trainer.runtime import vertex_env
from trainer.train.run_files import RunFiles, resolve_run_files

BASE = {
    "AIP_MODEL_DIR": "gs://bucket/base/model/",
    "AIP_CHECKPOINT_DIR": "gs://bucket/base/checkpoints/",
    "AIP_TENSORBOARD_LOG_DIR": "gs://bucket/base/logs/",
}


def test_a_base_output_directory_names_three_folders_in_one():
    assert vertex_env.service_folders(BASE) == {
        "export": "gs://bucket/base/model",
        "checkpoints": "gs://bucket/base/checkpoints",
        "tensorboard": "gs://bucket/base/logs",
    }
    assert vertex_env.resolve_model_dir(None, BASE) == "gs://bucket/base"


def test_a_trial_has_its_own_folders():
    trial = {name: value.replace("/base/", "/base/7/") for name, value in BASE.items()}
    assert vertex_env.resolve_model_dir(None, trial) == "gs://bucket/base/7"


def test_a_given_model_dir_is_used_unless_trials_would_share_it():
    assert vertex_env.resolve_model_dir("/gcs/bucket/mine", BASE) == "gs://bucket/mine"
    assert vertex_env.folders_outside("gs://bucket/mine", BASE) == {
        name: value.rstrip("/") for name, value in BASE.items()
    }
    assert vertex_env.folders_outside("gs://bucket/base", BASE) == {}
    trial = {**BASE, "CLOUD_ML_TRIAL_ID": "7"}
    assert vertex_env.resolve_model_dir("gs://bucket/base", trial) == "gs://bucket/base"
    with pytest.raises(UsageError, match=r"^--model_dir .* gs://bucket/base, .* Received: gs://b/x"):
        vertex_env.resolve_model_dir("gs://b/x", trial)


def test_a_service_s_folders_are_put_in_one_form(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    named = {"AIP_MODEL_DIR": "gs://bucket//base///model/", "AIP_CHECKPOINT_DIR": "~/checkpoints/"}
    assert vertex_env.service_folders(named) == {
        "export": "gs://bucket/base/model",
        "checkpoints": f"{tmp_path}/checkpoints",
    }
    with pytest.raises(UsageError, match=r"AIP_CHECKPOINT_DIR must .*gs:/b/x"):
        vertex_env.service_folders({"AIP_CHECKPOINT_DIR": "gs:/b/x"})


def test_the_root_of_a_bucket_may_be_the_base():
    assert vertex_env.resolve_model_dir(None, {"AIP_MODEL_DIR": "gs://bucket/model/"}) == "gs://bucket"


@pytest.mark.parametrize("environment", [{}, dict.fromkeys(BASE, ""), dict.fromkeys(BASE, " ")])
def test_without_the_variables_there_are_no_service_folders(environment):
    assert vertex_env.service_folders(environment) == {}
    assert vertex_env.resolve_model_dir(None, environment) is None


@pytest.mark.parametrize(
    ("left_out", "expected"),
    [
        (["AIP_MODEL_DIR"], "gs://bucket/c"),
        (["AIP_MODEL_DIR", "AIP_CHECKPOINT_DIR"], "gs://bucket/t"),
    ],
)
def test_the_first_variable_that_is_set_decides_the_model_dir(left_out, expected):
    environment = {
        "AIP_MODEL_DIR": "gs://bucket/m/model/",
        "AIP_CHECKPOINT_DIR": "gs://bucket/c/checkpoints/",
        "AIP_TENSORBOARD_LOG_DIR": "gs://bucket/t/logs/",
    }
    assert vertex_env.resolve_model_dir(None, environment) == "gs://bucket/m"
    assert vertex_env.resolve_model_dir(None, {k: v for k, v in environment.items() if k not in left_out}) == expected


def test_a_run_writes_its_export_and_logs_to_the_service_folders():
    alone = resolve_run_files("gs://bucket/base")
    files = resolve_run_files("gs://bucket/base", vertex_env.service_folders(BASE))
    assert files.checkpoints == alone.checkpoints
    assert (files.export, files.tensorboard) == ("gs://bucket/base/model", "gs://bucket/base/logs")
    moved = {
        field.name for field in dataclasses.fields(RunFiles) if getattr(files, field.name) != getattr(alone, field.name)
    }
    assert moved == {"export", "tensorboard"}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/gcs/bucket/data", "gs://bucket/data"),
        ("/gcs/bucket", "gs://bucket"),
        ("gs://bucket/data", "gs://bucket/data"),
        ("/gcsfuse/data", "/gcsfuse/data"),
        ("data/gcs/x", "data/gcs/x"),
        ("", ""),
    ],
)
def test_a_path_below_the_mount_is_read_from_the_bucket(path, expected):
    assert vertex_env.mount_to_gcs(path) == expected


# --- Trials -----------------------------------------------------------------------------------------


def task(**values) -> str:
    return json.dumps({"cluster": {"workerpool0": ["a:2222"]}, "environment": "cloud", "task": values})


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"CLOUD_ML_TRIAL_ID": "3"}, "3"),
        ({"CLOUD_ML_TRIAL_ID": ""}, None),
        ({"CLOUD_ML_TRIAL_ID": "0"}, None),
        ({"CLUSTER_SPEC": task(type="workerpool0", index=0, trial="2")}, "2"),
        ({"TF_CONFIG": task(type="chief", index=0, trial="4", cloud="id")}, "4"),
        ({"CLUSTER_SPEC": task(type="workerpool0", index=0)}, None),
        ({"CLUSTER_SPEC": task(type="workerpool0", index=0, trial="")}, None),
        ({"CLUSTER_SPEC": "{", "TF_CONFIG": "[]"}, None),
        ({"CLUSTER_SPEC": "null", "TF_CONFIG": '{"task": null}'}, None),
    ],
)
def test_the_number_of_a_trial(environment, expected):
    assert vertex_env.trial_number(environment) == expected


# --- Flags ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ("gs://b/run/model/", {"AIP_MODEL_DIR": "gs://b/run/model/", "AIP_CHECKPOINT_DIR": "gs://b/run/checkpoints/"}),
        ("/gcs/b/run/model/mine", {"AIP_MODEL_DIR": "gs://b/run/model/"}),
        (None, {"AIP_MODEL_DIR": "/run/model/", "AIP_CHECKPOINT_DIR": "/run/model/checkpoints"}),
        (None, {"AIP_MODEL_DIR": "gs://b/", "AIP_CHECKPOINT_DIR": "gs://b/checkpoints/"}),
    ],
)
def test_a_folder_inside_that_of_the_export_is_rejected(given, named):
    with pytest.raises(UsageError, match="AIP_MODEL_DIR"):
        vertex_env.resolve_model_dir(given, named)


def test_a_bucket_is_no_folder():
    with pytest.raises(UsageError, match=r"AIP_MODEL_DIR.*Received: gs://b"):
        vertex_env.resolve_model_dir("gs://other/run", {"AIP_MODEL_DIR": "gs://b/"})

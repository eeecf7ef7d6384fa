"""The variables and flags of Vertex AI and AI Platform, with values from their documentation."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import time

import pytest
from helpers import ROOT, excerpt, task

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


def cluster_of(**task) -> str:
    return json.dumps({"cluster": {"workerpool0": ["a:2222"]}, "environment": "cloud", "task": task})


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"CLOUD_ML_TRIAL_ID": "3"}, "3"),
        ({"CLOUD_ML_TRIAL_ID": ""}, None),
        ({"CLOUD_ML_TRIAL_ID": "0"}, None),
        ({"CLUSTER_SPEC": cluster_of(type="workerpool0", index=0, trial="2")}, "2"),
        ({"TF_CONFIG": cluster_of(type="chief", index=0, trial="4", cloud="id")}, "4"),
        ({"CLUSTER_SPEC": cluster_of(type="workerpool0", index=0)}, None),
        ({"CLUSTER_SPEC": cluster_of(type="workerpool0", index=0, trial="")}, None),
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


# --- The command itself -----------------------------------------------------------------------------


def of_vertex(folder, **more: str) -> dict[str, str]:
    """The environment of a job on one machine whose base output directory is the folder."""
    spec = {"cluster": {"workerpool0": ["training-workerpool0-ab-0:2222"]}, "task": {"type": "workerpool0", "index": 0}}
    folders = {"AIP_MODEL_DIR": "model/", "AIP_CHECKPOINT_DIR": "checkpoints/", "AIP_TENSORBOARD_LOG_DIR": "logs/"}
    named = {variable: f"{folder}/{name}" for variable, name in folders.items()}
    return {**os.environ, "CLUSTER_SPEC": json.dumps(spec), **named, **more}


def test_the_trials_of_a_tuning_job_do_not_share_a_model_dir(tmp_path):
    done = task(f"--model_dir={tmp_path}", env=of_vertex(tmp_path / "7", CLOUD_ML_TRIAL_ID="7"))
    assert done.returncode == 2
    assert f"--model_dir must be the trial's own, {tmp_path / '7'}, " in done.stderr


def test_a_bucket_that_the_service_names_is_looked_at_too(simulator, tmp_path):
    environment = {name: value for name, value in of_vertex("gs://gone").items() if name.startswith("AIP_")}
    done = task(f"--model_dir={tmp_path / 'run'}", env=simulator.environment(**environment))
    assert done.returncode == 2
    for variable in environment:
        assert f"{variable} must " in done.stderr
    assert "gs://gone" in done.stderr
    done = task("--model_dir=/gcs/gone/run", env=simulator.environment())
    assert "--model_dir must be in a bucket that exists. Received: gs://gone/run " in done.stderr
    done = task(env=simulator.environment(**environment))
    assert done.stderr.count("--model_dir must be in a bucket that exists. Received: gs://gone ") == 1


def test_a_finished_trial_reports_its_metric_again(flags, finished_run, tmp_path):
    folder = shutil.copytree(finished_run, tmp_path / "7")
    settings = [flag.removeprefix("--set=") for flag in flags]
    done = task(
        *(f"--{setting}" for setting in settings if "." in setting.partition("=")[0]),
        *(flag for flag in flags if not flag.startswith("--set=")),
        env=of_vertex(folder, CLOUD_ML_TRIAL_ID="7", CLOUD_ML_HP_METRIC_FILE=str(tmp_path / "metrics/file")),
    )
    assert done.returncode == 0, done.stderr
    assert f"{folder} holds this run, finished: nothing to do." in done.stderr
    assert f"there is no export in {folder}/model: --mode=export writes one." in done.stderr
    measured = json.loads((tmp_path / "metrics/file").read_text())
    result = json.loads((folder / "result.json").read_text())
    assert (measured["trial"], measured["global_step"]) == ("7", "100")
    assert float(measured["validation/accuracy"]) == result["validation"]["accuracy"]


def test_a_trial_without_a_writable_metric_file_writes_nothing(flags, tmp_path):
    (tmp_path / "file").touch()
    folder = tmp_path / "7"
    done = task(
        *flags, env=of_vertex(folder, CLOUD_ML_TRIAL_ID="7", CLOUD_ML_HP_METRIC_FILE=str(tmp_path / "file/metrics"))
    )
    assert done.returncode == 2
    assert "CLOUD_ML_HP_METRIC_FILE must " in done.stderr
    assert not folder.exists()


def test_a_lost_metric_fails_the_trial_after_its_result_is_written(flags, tmp_path):
    folder, metrics = tmp_path / "7", tmp_path / "metrics"
    metrics.mkdir()
    environment = of_vertex(folder, CLOUD_ML_TRIAL_ID="7", CLOUD_ML_HP_METRIC_FILE=str(metrics / "file"))
    short = [*flags, "--set=training.steps=10"]
    command = [sys.executable, "-m", "trainer.task", *short]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=pipe, stderr=pipe, text=True) as child:
        while child.poll() is None and not (folder / "config.yaml").exists():
            time.sleep(0.01)
        metrics.rename(tmp_path / "gone")
        metrics.touch()  # Before the first step: from here on the folder is a file.
        out, error = child.communicate(timeout=900)
    assert child.returncode == 1
    assert (folder / "result.json").exists(), excerpt(error)
    assert "finished: 10 steps" in out
    assert "CLOUD_ML_HP_METRIC_FILE must " in error.splitlines()[-1]
    # Where the file can be written again, the same command reports the metric.
    metrics.unlink()
    done = task(*short, env=environment)
    assert done.returncode == 0, done.stderr
    result = json.loads((folder / "result.json").read_text())
    (measured,) = map(json.loads, (metrics / "file").read_text().splitlines())
    assert float(measured["validation/accuracy"]) == result["validation"]["accuracy"]


def test_the_flags_and_tf_config_of_ai_platform_are_accepted(flags, finished_run, tmp_path):
    """Its flags go first, the job's directory last, name and value apart; `job` is what was submitted."""
    folder = shutil.copytree(finished_run, tmp_path / "run")
    described = {
        "cluster": {"chief": ["127.0.0.1:2222"]},
        "environment": "cloud",
        "job": {"scale_tier": "BASIC", "python_module": "trainer.task", "job_dir": str(folder)},
        "task": {"cloud": "w93a1503672d4dd09-ml", "type": "chief", "index": 0},
    }
    apart = [word for flag in flags for word in flag.split("=", 1)]
    done = task(*apart, "--job-dir", folder, env={**os.environ, "TF_CONFIG": json.dumps(described)})
    assert done.returncode == 0, done.stderr
    assert f"{folder} holds this run, finished: nothing to do." in done.stderr

import dataclasses
import time

import pytest
import wandb
from fakes import wandb_files
from mlflow.tracking import MlflowClient

from trainer.train import sink_services
from trainer.train.sink_services import SERVICES, SinkRequest

CONFIG = {"seed": 0, "optimizer.learning_rate": 1e-4, "model.dropout": None, "encoder": "x" * 9000}


@pytest.fixture
def open_run(tmp_path, monkeypatch):
    """A function (service, target) -> a run of it, offline, whose model_dir is `tmp_path`/run."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    (tmp_path / "run").mkdir()

    def open_service(key, target, run_id=""):
        service = SERVICES[key]
        request = SinkRequest(target, run_id, bool(run_id), "run", str(tmp_path / "run"), CONFIG)
        request = request if run_id else dataclasses.replace(request, run_id=service.new_id(request))
        return request.run_id, service.open(request)

    yield open_service
    wandb.teardown()  # Processes that later tests start would share its service, and the runs in it.


def test_mlflow_has_the_lines_the_configuration_and_the_result(mlflow_store, open_run):
    run_id, run = open_run("mlflow", mlflow_store)
    run.log(10, {"train/loss": 0.5})
    run.finish({})
    client = MlflowClient(mlflow_store)
    assert client.get_run(run_id).info.status == "KILLED"
    _, run = open_run("mlflow", mlflow_store, run_id)
    run.log(20, {"train/loss": 0.25, "train/accuracy": 1.0})
    assert client.get_run(run_id).info.status == "RUNNING"
    run.finish({"best_step": 20})
    kept = client.get_run(run_id)
    assert (kept.info.status, kept.info.run_name) == ("FINISHED", "run")
    assert kept.data.params["optimizer.learning_rate"] == "0.0001"
    assert [(m.step, m.value) for m in client.get_metric_history(run_id, "train/loss")] == [(10, 0.5), (20, 0.25)]
    assert [artifact.path for artifact in client.list_artifacts(run_id)] == ["result.json"]
    assert len(client.search_runs([client.get_experiment_by_name("hubtune").experiment_id])) == 1


def test_wandb_has_the_lines_the_configuration_and_the_result(open_run, tmp_path):
    run_id, run = open_run("wandb", "mine")
    run.log(10, {"train/loss": 0.5})
    run.finish({})
    time.sleep(1.1)  # Its file is named by the second.
    _, run = open_run("wandb", "mine", run_id)
    run.log(20, {"train/loss": 0.25})
    run.finish({"best_step": 20})
    deadline = time.monotonic() + 60  # Its own process writes the file, and may be behind.
    while (kept := wandb_files.read_offline_runs(tmp_path / "run"))["ends"] < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert kept["ids"] == {run_id}
    assert kept["config"]["optimizer.learning_rate"] == 1e-4
    assert kept["history"] == [(10, {"train/loss": 0.5}), (20, {"train/loss": 0.25})]
    assert kept["summary"]["result"] == {"best_step": 20}


def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch):
    assert sink_services.find_missing_packages({"mlflow": "http://host", "wandb": "true"}) == []
    absent = dataclasses.replace(SERVICES["mlflow"], package="a_package_that_is_not_installed")
    monkeypatch.setitem(SERVICES, "mlflow", absent)
    assert sink_services.find_missing_packages({"mlflow": "", "wandb": ""}) == []
    (problem,) = sink_services.find_missing_packages({"mlflow": "true", "wandb": "true"})
    assert problem.setting == "logging.mlflow"
    assert "pip install 'hubtune[mlflow]'" in problem.advice

"""Lines of a history in MLflow's store of files, as a run, and one that resumes, sends them."""

import json
import logging
import time

import pytest
from mlflow.tracking import MlflowClient

from trainer.train import metric_sinks


def line(step, split="train", loss=0.5):
    return {"step": step, "split": split, "loss": loss, "seconds": float(step)}


@pytest.fixture
def open_sink(tmp_path, mlflow_store):
    """A function -> the sink of a new process of the same run."""
    (tmp_path / "run").mkdir()

    def open_again(target=mlflow_store, **config):
        record = str(tmp_path / "run/metric_sinks.json")
        (sink,) = metric_sinks.open_sinks({"mlflow": target, "wandb": ""}, str(tmp_path / "run"), record, config)
        return sink

    return open_again


def kept_runs(mlflow_store):
    """[(status, steps of train/loss, steps of validation/loss)] of each run."""
    client = MlflowClient(mlflow_store)
    experiment = client.get_experiment_by_name("hubtune")
    runs = client.search_runs([experiment.experiment_id]) if experiment else []

    def steps(run, name):
        return [each.step for each in client.get_metric_history(run.info.run_id, name)]

    return [(run.info.status, steps(run, "train/loss"), steps(run, "validation/loss")) for run in runs]


def test_a_run_that_resumes_goes_on_without_a_step_twice(open_sink, mlflow_store):
    history = [line(10), line(20), line(20, "validation")]
    sink = open_sink()
    sink.sync(history[:1])
    sink.sync(history)
    metric_sinks.close_sinks([sink], history, {})
    assert kept_runs(mlflow_store) == [("KILLED", [10, 20], [20])]
    resumed, sink = [line(10)], open_sink()  # Restored at step 10: what follows is written again.
    for each in (line(20), line(20, "validation"), line(30)):
        resumed.append(each)
        sink.sync(resumed)
    metric_sinks.close_sinks([sink], resumed, {"best_step": 20})
    assert kept_runs(mlflow_store) == [("FINISHED", [10, 20, 30], [20])]


def test_what_an_earlier_process_did_not_send_is_sent(open_sink, mlflow_store):
    sink = open_sink()
    metric_sinks.close_sinks([sink], [line(10), line(10, "test")], {"best_step": 10})
    assert kept_runs(mlflow_store) == [("FINISHED", [10], [])]


def test_nothing_is_opened_before_the_first_line(open_sink, mlflow_store):
    metric_sinks.close_sinks([open_sink()], [], {})
    assert kept_runs(mlflow_store) == []


def test_a_run_that_began_again_with_other_settings_is_another_one(open_sink, mlflow_store):
    for seed in (0, 0, 1):
        sink = open_sink(seed=seed)
        sink.sync([line(10)])
        metric_sinks.close_sinks([sink], [line(10)], {})
    assert kept_runs(mlflow_store) == [("KILLED", [10], [])] * 2


def test_a_service_that_fails_costs_a_warning(open_sink, tmp_path, caplog):
    (tmp_path / "file").write_text("no folder")
    sink = open_sink(f"file://{tmp_path}/file")
    with caplog.at_level(logging.WARNING, logger="trainer"):
        for step in (10, 20, 30):
            sink.sync([line(each) for each in range(10, step + 1, 10)])
        metric_sinks.close_sinks([sink], [line(10), line(20), line(30)], {"best_step": 10})
    assert len(caplog.records) == 1
    assert f"nothing more is sent to MLflow (file://{tmp_path}/file)" in caplog.text


def test_a_service_that_does_not_answer_is_not_waited_for(open_sink, monkeypatch, caplog):
    monkeypatch.setattr(metric_sinks, "CLOSE_TIMEOUT_S", 0.5)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "5")
    started = time.monotonic()
    sink = open_sink("http://127.0.0.1:9")
    with caplog.at_level(logging.WARNING, logger="trainer"):
        sink.sync([line(10)])
        metric_sinks.close_sinks([sink], [line(10)], {"best_step": 10})
    assert time.monotonic() - started < 20
    assert "did not take all lines" in caplog.text


def test_what_was_sent_is_known_before_it_is_sent(open_sink, tmp_path):
    sink = open_sink()
    sink.sync([line(10), line(10, "validation")])
    metric_sinks.close_sinks([sink], [], {})
    kept = json.loads((tmp_path / "run/metric_sinks.json").read_text())["mlflow"]
    assert kept["sent"] == {"train": 10, "validation": 10}
    assert kept["run_id"]

"""A run that is killed and resumed, with both sinks on."""

import os
import signal
import subprocess
import sys
import time

import pytest
from fakes import wandb_files
from helpers import ROOT, excerpt, python
from interruptions import committed_step, read_metrics
from mlflow.tracking import MlflowClient

pytestmark = pytest.mark.long


def test_every_line_is_in_each_sink_once_after_a_kill(flags, tmp_path, monkeypatch):
    model_dir, store = tmp_path / "run", f"file://{tmp_path}/mlflow"
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("WANDB_MODE", "offline")
    command = ["-m", "trainer.task", *flags, "--strategy=cpu", f"--model_dir={model_dir}", "--logging.wandb=mine"]
    command += [f"--logging.mlflow={store}", "--training.save_every=20", "--training.log_every=10"]
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen([sys.executable, *command], cwd=ROOT, stdout=log, stderr=log, env=os.environ)
        while committed_step(model_dir) < 40 and process.poll() is None:
            time.sleep(0.05)
        time.sleep(1.5)  # Its lines are sent within a second.
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = python(*command)
    assert done.returncode == 0, excerpt(done.stderr)
    assert "nothing more is sent" not in done.stderr + (tmp_path / "log").read_text()

    client = MlflowClient(store)
    (run,) = client.search_runs([client.get_experiment_by_name("hubtune").experiment_id])
    assert run.info.status == "FINISHED"
    lines = read_metrics(model_dir)
    for split in ("train", "validation", "test"):
        kept = [(each.step, each.value) for each in client.get_metric_history(run.info.run_id, f"{split}/loss")]
        assert kept == [(each["step"], each["loss"]) for each in lines if each["split"] == split]
    offline = wandb_files.read_offline_runs(model_dir)
    assert len(offline["ids"]) == 1
    train = [(step, metrics["train/loss"]) for step, metrics in offline["history"] if "train/loss" in metrics]
    assert train == [(each["step"], each["loss"]) for each in lines if each["split"] == "train"]
    assert offline["summary"]["result"]["best_step"] > 0

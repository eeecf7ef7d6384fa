"""The job that is submitted is the job that runs: each machine's own command and environment, to a finished export.

fakes.vertex_replicas knows what Vertex AI starts on each machine. Changed is only what this machine cannot have: the
hosts are addresses of the loopback, and several GPUs are several logical CPU devices. The buckets are the simulator's,
and `python` is the tests' own.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from fakes import grpc_services, vertex_replicas
from fakes.grpc_services import Method
from fakes.vertex_replicas import Replica
from google.cloud import aiplatform_v1
from google.protobuf import json_format
from helpers import ROOT, excerpt, free_addresses

KEYS = (
    *("training.steps=8", "training.log_every=4", "training.save_every=4", "training.eval_every=4"),
    *("data.batch_size=16", "data.seq_length=16", "optimizer.learning_rate=1e-3"),
)
LAPTOP: dict[str, str] = {}


class Cloud:
    """The simulated bucket with the data and an encoder, and processes in place of machines."""

    def __init__(self, simulator, folder: Path):
        self.simulator, self.folder = simulator, folder

    def start(self, command: list[str], environment: dict[str, str]) -> subprocess.Popen:
        """Start a machine: in an empty folder, with the package installed and `python` on the PATH."""
        path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
        changes = {**environment, "PATH": path, "PYTHONPATH": str(ROOT)}
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": self.folder}
        return subprocess.Popen(command, env=self.simulator.environment(**changes), **options)

    def run(self, command: list[str], environment: dict[str, str] = LAPTOP) -> tuple[str, str]:
        """(standard output, standard error) of a command that succeeds."""
        with self.start(command, environment) as child:
            out, error = child.communicate(timeout=900)
        assert child.returncode == 0, excerpt(error)
        return out, error

    def run_all(self, replicas: list[Replica]) -> list[str]:
        """Standard output of each replica. All run at once and succeed."""
        with contextlib.ExitStack() as stack:
            children = [stack.enter_context(self.start(each.command, each.environment)) for each in replicas]
            outputs = [child.communicate(timeout=900) for child in children]
        assert [child.returncode for child in children] == [0] * len(children), excerpt(outputs[0][1])
        return [out for out, _ in outputs]

    def files(self, base: str) -> dict[str, str]:
        """The files in gs://bucket/<base> by name, with the contents of JSON files."""
        return json.loads(self.run(["python", "-c", LIST_FILES, f"gs://bucket/{base}"])[0])


LIST_FILES = """
import json, sys
from trainer.storage import gcs
base = sys.argv[1]
names = gcs.list_files(base)
print(json.dumps({name: gcs.read(f"{base}/{name}").decode() if ".json" in name else "" for name in names}))
"""


@pytest.fixture(scope="module")
def cloud(simulator_process, tiny, prepared, tmp_path_factory) -> Iterator[Cloud]:
    simulator_process.control("wipe", {})
    simulator_process.bucket("bucket")
    cloud = Cloud(simulator_process, tmp_path_factory.mktemp("machine"))
    copies = "; ".join(
        f"fs.copy_folder('{source}', 'gs://bucket/{name}')" for source, name in ((tiny, "encoder"), (prepared, "data"))
    )
    cloud.run(["python", "-c", f"from trainer.storage import fs; {copies}"])
    return cloud


def submission(base: str, machine: str, *more: str) -> list[str]:
    script = ["python", str(ROOT / "scripts/submit.py"), "--project=p", "--region=us-central1", f"--machine={machine}"]
    paths = [
        "--data_dir=gs://bucket/data",
        "--encoder=gs://bucket/encoder",
        f"--base_output_directory=gs://bucket/{base}",
    ]
    return [*script, "--name=contract", *paths, *(f"--set={key}" for key in KEYS), *more]


def submitted(cloud: Cloud, base: str, machine: str, *more: str) -> dict:
    """The job that the service receives from scripts/submit.py, in the JSON mapping of its proto.

    It is the one that --dry_run prints, except for the label of the submission.
    """
    command = submission(base, machine, *more)
    kind = "HyperparameterTuningJob" if more else "CustomJob"
    name = f"projects/1/locations/us-central1/{kind[0].lower()}{kind[1:]}s/17"
    created = getattr(aiplatform_v1, kind)(name=name, state=aiplatform_v1.JobState.JOB_STATE_PENDING)
    method = Method(getattr(aiplatform_v1, f"Create{kind}Request"), [created])
    table = {f"/google.cloud.aiplatform.v1.JobService/Create{kind}": method}
    with grpc_services.serving(cloud.simulator, ["us-central1-aiplatform.googleapis.com"], table) as server:
        out, _ = cloud.run(command)
    assert out.splitlines()[0] == name
    (request,) = server.requests(f"Create{kind}")
    message = request.hyperparameter_tuning_job if more else request.custom_job
    del message.labels["hubtune_submission"]
    printed = json_format.ParseDict(
        yaml.safe_load(cloud.run([*command, "--dry_run"])[0]), type(message).pb(type(message)())
    )
    assert type(message).pb(message) == printed
    return json_format.MessageToDict(printed)


def assert_finished(files: dict[str, str], out: str) -> dict:
    """The run's files are where Vertex AI's variables and the documents say. Returns result.json."""
    assert "finished: 8 steps" in out
    assert re.search(
        r"^results    gs://bucket/(\S+)/result\.json, metrics.jsonl, history.png, logs/$", out, re.MULTILINE
    )
    assert re.search(r"^model      gs://bucket/(\S+)/model$", out, re.MULTILINE)
    for name in (
        *("model/saved_model.pb", "model/variables/variables.index", "checkpoints/checkpoint", "best/checkpoint"),
        *("config.yaml", "identity.json", "metrics.jsonl", "history.png", "test_predictions.parquet"),
    ):
        assert name in files
    assert [name for name in files if name.startswith(("export/", "tensorboard/"))] == []
    assert {name.split("/")[1] for name in files if name.startswith("logs/")} == {"train", "validation", "test"}
    assert "checkpoints" not in json.loads(files["identity.json"])
    return json.loads(files["result.json"])


def test_one_machine_runs_to_an_export_that_a_laptop_uses(cloud):
    (replica,) = vertex_replicas.replicas(submitted(cloud, "one", "cpu"))
    out, _ = cloud.run(replica.command, replica.environment)
    result = assert_finished(cloud.files("one"), out)
    out, _ = cloud.run(["python", "-m", "trainer.task", "--mode=evaluate", "--model_dir=gs://bucket/one"])
    assert f"{result['test']['accuracy']:.4f}" in out
    predict = ["python", str(ROOT / "scripts/predict.py"), "--model=gs://bucket/one/model", "--format=jsonl", "superb"]
    assert json.loads(cloud.run(predict)[0])["text"] == "superb"


def test_two_machines_run_to_one_export(cloud):
    job = submitted(cloud, "two", "workers")
    addresses = free_addresses(2)
    chief, worker = vertex_replicas.replicas(job, address=lambda pool, index: addresses[pool + index])
    assert {"TF_CONFIG", "CLUSTER_SPEC"} <= worker.environment.keys()
    out, silence = cloud.run_all([chief, worker])
    assert_finished(cloud.files("two"), out)
    assert silence == ""


@pytest.mark.chaos
def test_several_gpus_are_mirrored(cloud):
    (replica,) = vertex_replicas.replicas(submitted(cloud, "gpus", "gpus"))
    out, error = cloud.run([*replica.command, "--virtual_devices=2"], replica.environment)
    assert "strategy: 2 replicas" in error
    assert_finished(cloud.files("gpus"), out)
    # A laptop, without the variables, finds the same run, and can export it.
    out, error = cloud.run([*replica.command, "--strategy=cpu", "--model_dir=gs://bucket/gpus"])
    assert "gs://bucket/gpus holds this run, finished: nothing to do." in error
    assert "warning: there is no export in gs://bucket/gpus/export" in error
    out, _ = cloud.run(["python", "-m", "trainer.task", "--mode=export", "--model_dir=gs://bucket/gpus"])
    assert "gs://bucket/gpus/export written" in out


@pytest.mark.long
def test_a_trial_that_is_killed_and_restarted_reports_its_result(cloud, tmp_path):
    """On the same machine, as after an error: the metric file of the first process still exists."""
    study = tmp_path / "study.yaml"
    study.write_text(
        """
metric: validation/accuracy
max_trials: 2
parameters:
  optimizer.learning_rate: {type: double, min: 1e-5, max: 1e-2, scale: log}
  data.batch_size: {type: discrete, values: [8, 16]}
  data.truncation: {type: categorical, values: [head, tail]}
"""
    )
    tuned = submitted(cloud, "tuned", "cpu", f"--tune={study}")
    (replica,) = vertex_replicas.replicas({"jobSpec": tuned["trialJobSpec"]}, trial="2")
    parameters = ["--optimizer.learning_rate=0.002", "--data.batch_size=8.0", "--data.truncation=tail"]
    assert {flag[2:].partition("=")[0] for flag in parameters} == {
        parameter["parameterId"] for parameter in tuned["studySpec"]["parameters"]
    }
    metrics = tmp_path / "hypertune/output.metrics"
    environment = {**replica.environment, "CLOUD_ML_TRIAL_ID": "2", "CLOUD_ML_HP_METRIC_FILE": str(metrics)}
    command = [*replica.command, *parameters]
    with cloud.start(command, environment) as child:
        wait_for(metrics.exists, child)
        child.send_signal(signal.SIGKILL)
    out, _ = cloud.run(command, environment)
    result = assert_finished(cloud.files("tuned/2"), out)
    measured = [json.loads(line) for line in metrics.read_text().splitlines()]
    assert [row["global_step"] for row in measured] == ["4", "8"]
    assert {row["trial"] for row in measured} == {"2"}
    (metric,) = tuned["studySpec"]["metrics"]
    values = [float(row[metric["metricId"]]) for row in measured]
    assert values[-1] == max(values) == result["validation"]["accuracy"]


def test_a_study_of_another_metric_than_the_data_s_is_not_submitted(cloud, tmp_path):
    study = tmp_path / "study.yaml"
    study.write_text("{metric: validation/pearson, max_trials: 2, parameters: {seed: {type: integer, min: 0, max: 9}}}")
    with cloud.start(submission("tuned", "cpu", f"--tune={study}"), LAPTOP) as child:
        out, error = child.communicate(timeout=60)
    assert (child.returncode, out) == (2, "")
    assert "metric in --tune must be validation/accuracy" in error
    assert "Received: validation/pearson." in error


def wait_for(happened: Callable[[], bool], child: subprocess.Popen) -> None:
    end = time.monotonic() + 600
    while not happened():
        assert child.poll() is None, excerpt(child.stderr.read())
        assert time.monotonic() < end
        time.sleep(0.02)

"""scripts/submit.py as a process: what it prints, what it refuses, and what arrives of it at the local services."""

import json
import os
import shlex
import time
import urllib.parse
import urllib.request

import yaml
from fakes import gcs, grpc_services
from fakes.grpc_services import Method
from helpers import ROOT, python
from test_job_logs import HOSTS, NAME, entry, job, log, methods
from test_job_spec import parsed

CREATE = "/google.cloud.aiplatform.v1.JobService/CreateCustomJob"
ARGUMENTS = [
    *("scripts/submit.py", "--target=vertex", "--config=configs/smoke.yaml", "--project=p", "--region=us-central1"),
    *("--bucket=bucket", "--machine=n1-standard-8"),
]
# Nothing of this user's, and a proxy that nobody is behind: what reached for the network would fail.
NOWHERE = {
    "PATH": os.environ["PATH"],
    "PYTHONPATH": str(ROOT),
    "HOME": "/nonexistent",
    "https_proxy": "http://127.0.0.1:9",
    "http_proxy": "http://127.0.0.1:9",
}


def put(simulator: gcs.Simulator, name: str, content: bytes) -> None:
    """Write an object of gs://bucket."""
    query = urllib.parse.urlencode({"uploadType": "media", "name": name})
    request = urllib.request.Request(
        f"http://127.0.0.1:{simulator.port}/upload/storage/v1/b/bucket/o?{query}", content, method="POST"
    )
    gcs.DIRECT.open(request, timeout=10).close()


def fill(simulator: gcs.Simulator, examples: int = 100) -> None:
    """What a job of the smoke preset needs: a manifest, and an encoder."""
    put(
        simulator,
        "data/smoke/dataset.json",
        json.dumps({"kind": "classification", "splits": {"train": {"examples": examples}}}).encode(),
    )
    put(simulator, "encoders/tiny/encoder/saved_model.pb", b"1")


def test_a_dry_run_prints_the_job_alone_and_reaches_nothing():
    began = time.monotonic()
    done = python(*ARGUMENTS, "--dry_run", env=NOWHERE)
    seconds = time.monotonic() - began
    assert done.returncode == 0, done.stderr
    message = parsed(yaml.safe_load(done.stdout))
    assert message.job_spec.worker_pool_specs[0].machine_spec.machine_type == "n1-standard-8"
    assert message.job_spec.base_output_directory.output_uri_prefix == f"gs://bucket/runs/{message.display_name}"
    assert message.display_name.startswith("smoke_20")
    assert [line.split("=")[0] for line in done.stderr.splitlines()] == [
        "note: --data_dir",
        "note: --encoder",
        "note: --base_output_directory",
    ]
    assert seconds < 10  # 0.7 on a machine that does nothing else


def test_every_mistake_in_the_flags_is_told_at_once():
    done = python(
        *ARGUMENTS[:-1], "--machine=ct6e-standard-4t", "--set=data.batch_sise=3", "--data_dir=data/mine", env=NOWHERE
    )
    assert (done.returncode, done.stdout) == (2, "")
    for words in ("from TPU v6e on", "the nearest is data.batch_size", "--data_dir must be gs://"):
        assert words in done.stderr
    done = python("scripts/submit.py", "--set=data.batch_size=0", "--region=mars", "--labels=A=b", env=NOWHERE)
    assert done.returncode == 2
    for words in ("--project must be given", "--region must be a region", "--labels must be", "data.batch_size"):
        assert words in done.stderr


def test_what_is_submitted_is_what_is_printed_and_its_log_is_followed(simulator):
    from google.cloud.aiplatform_v1 import CreateCustomJobRequest

    fill(simulator)
    given = ["--name=mine", "--machine=workers", "--set=data.batch_size=8", "--spot", "--labels=team=nlp"]
    printed = python(*ARGUMENTS, *given, "--dry_run", env=NOWHERE)
    arrivals = [[], [entry(1, "finished: 20 steps", task_name="workerpool0-0")]]
    states = [job("PENDING"), job("RUNNING"), job("SUCCEEDED")]
    table = {**methods(states, log(arrivals)), CREATE: Method(CreateCustomJobRequest, [job("PENDING")])}
    with grpc_services.serving(simulator, HOSTS, table) as server:
        done = python(*ARGUMENTS, *given, "--follow", "--look_every=0.1", env=simulator.environment())
    assert done.returncode == 0, done.stderr
    (sent,) = server.requests("CreateCustomJob")
    assert len(sent.custom_job.labels.pop("hubtune_submission")) == 32
    assert sent.custom_job == parsed(yaml.safe_load(printed.stdout))
    assert done.stdout.splitlines() == [
        NAME,
        "https://console.cloud.google.com/agent-platform/locations/us-central1/training/17?project=p",
        "01:02:04 workerpool0-0 finished: 20 steps",
    ]
    assert done.stderr.splitlines()[-3:] == ["17: pending", "17: running", "17: succeeded"]


def test_nothing_is_submitted_for_data_that_are_not_there_or_too_few(simulator):
    simulator.bucket("bucket", location="EUROPE-WEST4")
    with grpc_services.serving(simulator, HOSTS, {}):
        empty = python(*ARGUMENTS, env=simulator.environment())
        fill(simulator, examples=3)
        few = python(*ARGUMENTS, "--replicas=4", env=simulator.environment())
        missing = python(*ARGUMENTS, "--bucket=missing", env=simulator.environment())
    assert (empty.returncode, empty.stdout) == (few.returncode, few.stdout) == (2, "")
    assert "--data_dir must hold a data set" in empty.stderr
    assert "is in europe-west4, the accelerator in us-central1" in empty.stderr
    assert missing.returncode == 2
    assert missing.stderr.count("--bucket must be in a bucket that exists. Received: gs://missing/runs/") == 1
    assert "the training examples must be at least as many as the replicas, 4. Received: 3." in few.stderr


AI_PLATFORM = [ARGUMENTS[0], "--target=ai_platform", *ARGUMENTS[2:], "--name=mine"]


def test_ai_platform_s_command_is_printed_with_what_became_of_the_service():
    done = python(*AI_PLATFORM, "--dry_run", env=NOWHERE)
    assert done.returncode == 0, done.stderr
    words = shlex.split(done.stdout)
    assert words[:6] == ["gcloud", "ai-platform", "jobs", "submit", "training", "mine"]
    assert {"--package-path=trainer", "--module-name=trainer.task", "--job-dir=gs://bucket/runs/mine"} < set(words)
    assert words[words.index("--") + 1] == "--strategy=cpu"
    assert "2025-01-31" in done.stderr
    assert "change --target=ai_platform to --target=vertex" in done.stderr


def test_ai_platform_s_command_is_run_where_gcloud_is(tmp_path):
    without = python(*AI_PLATFORM, env={**NOWHERE, "PATH": str(tmp_path)})
    assert (without.returncode, without.stdout) == (1, "")
    assert "runs gcloud, which must be on the PATH" in without.stderr
    gcloud = tmp_path / "gcloud"
    gcloud.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\nexit 3\n')
    gcloud.chmod(0o755)
    ran = python(*AI_PLATFORM, env={**NOWHERE, "PATH": f"{tmp_path}:/bin:/usr/bin"})
    printed = python(*AI_PLATFORM, "--dry_run", env=NOWHERE)
    assert ran.returncode == 1
    assert ran.stdout.splitlines() == shlex.split(printed.stdout)[1:]


def test_a_flag_that_ai_platform_did_not_have_is_refused():
    done = python(*AI_PLATFORM, "--spot", "--timeout_hours=5", "--dry_run", env=NOWHERE)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--spot, --timeout_hours must be left out with --target=ai_platform" in done.stderr

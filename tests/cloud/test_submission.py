"""scripts/submit.py as a process: what it prints, what it refuses, and what local services receive."""

import shlex
import time

import pytest
import yaml
from fakes import grpc_services
from fakes.grpc_services import Method
from fakes.vertex_jobs import CREATE, HOSTS, NAME, job_in_state, log_answer, log_entry, methods, parse_custom_job
from helpers import python

from trainer.data import manifests

ARGUMENTS = [
    *("scripts/submit.py", "--target=vertex", "--config=configs/smoke.yaml", "--project=p", "--region=us-central1"),
    *("--bucket=bucket", "--machine=n1-standard-8"),
]


@pytest.fixture
def write_job_inputs(write_object, tmp_path):
    """A function that writes what a job of the smoke preset reads: a manifest, and an encoder."""

    def write(examples: int = 100) -> None:
        split = manifests.Split(examples, (), {"bad": 1, "good": examples - 1}, {}, {})
        vocabulary = manifests.Vocabulary("", 0, True, 0, 0, 0)
        splits = dict.fromkeys(("train", "validation", "test"), split)
        manifest = manifests.Manifest(
            "csv", "classification", 1, ("bad", "good"), "tiny", vocabulary, seed=0, splits=splits, removed={}
        )
        manifests.write_manifest(str(tmp_path), manifest)
        write_object("data/smoke/dataset.json", (tmp_path / "dataset.json").read_bytes())
        write_object("encoders/tiny/encoder/saved_model.pb", b"1")

    return write


def test_a_dry_run_prints_the_job_alone_and_reaches_nothing(offline):
    began = time.monotonic()
    done = python(*ARGUMENTS, "--dry_run", "--set=seed=3", "--optimizer.learning_rate=4e-5", env=offline)
    seconds = time.monotonic() - began
    assert done.returncode == 0, done.stderr
    message = parse_custom_job(yaml.safe_load(done.stdout))
    arguments = message.job_spec.worker_pool_specs[0].container_spec.args
    assert {"--set=seed=3", "--set=optimizer.learning_rate=4e-05"} <= set(arguments)
    assert message.job_spec.worker_pool_specs[0].machine_spec.machine_type == "n1-standard-8"
    assert message.job_spec.base_output_directory.output_uri_prefix == f"gs://bucket/runs/{message.display_name}"
    assert message.display_name.startswith("smoke_20")
    assert [line.split("=")[0] for line in done.stderr.splitlines()] == [
        "default: --data_dir",
        "default: --encoder",
        "default: --base_output_directory",
    ]
    assert seconds < 10  # 0.7 on an idle machine.


def test_the_submitter_s_storage_variables_are_the_job_s(offline):
    passed = {"GOOGLE_CLOUD_QUOTA_PROJECT": "payer", "STORAGE_RETRY_SECONDS": "20"}
    done = python(*ARGUMENTS, "--dry_run", env={**offline, **passed})
    (pool,) = parse_custom_job(yaml.safe_load(done.stdout)).job_spec.worker_pool_specs
    assert passed.items() <= {(entry.name, entry.value) for entry in pool.container_spec.env}


def test_every_mistake_in_the_flags_is_reported_at_once(offline):
    done = python(
        *ARGUMENTS[:-1], "--machine=ct6e-standard-4t", "--set=data.batch_sise=3", "--data_dir=data/mine", env=offline
    )
    assert (done.returncode, done.stdout) == (2, "")
    for words in ("From TPU v6e on", "data.batch_size", "--data_dir must be gs://"):
        assert words in done.stderr
    done = python("scripts/submit.py", "--set=data.batch_size=0", "--region=mars", "--labels=A=b", env=offline)
    assert done.returncode == 2
    for words in ("--project must", "--region must", "--labels must", "data.batch_size"):
        assert words in done.stderr


def test_a_submitted_job_is_the_printed_one_and_is_followed(simulator, offline, write_job_inputs):
    from google.cloud.aiplatform_v1 import CreateCustomJobRequest

    write_job_inputs()
    given = ["--name=mine", "--machine=workers", "--set=data.batch_size=8", "--spot", "--labels=team=nlp"]
    printed = python(*ARGUMENTS, *given, "--dry_run", env=offline)
    arrivals = [[], [log_entry(1, "finished: 20 steps", task_name="workerpool0-0")]]
    states = [job_in_state("PENDING"), job_in_state("RUNNING"), job_in_state("SUCCEEDED")]
    table = {**methods(states, log_answer(arrivals)), CREATE: Method(CreateCustomJobRequest, [job_in_state("PENDING")])}
    with grpc_services.serving(simulator, HOSTS, table) as server:
        done = python(*ARGUMENTS, *given, "--follow", "--look_every=0.1", env=simulator.environment())
    assert done.returncode == 0, done.stderr
    (sent,) = server.requests("CreateCustomJob")
    assert len(sent.custom_job.labels.pop("hubtune_submission")) == 32
    assert sent.custom_job == parse_custom_job(yaml.safe_load(printed.stdout))
    assert done.stdout.splitlines() == [
        NAME,
        "https://console.cloud.google.com/agent-platform/locations/us-central1/training/17?project=p",
        "01:02:04 workerpool0-0 finished: 20 steps",
    ]
    assert done.stderr.splitlines()[-3:] == ["17: pending", "17: running", "17: succeeded"]


def test_nothing_is_submitted_without_enough_data(simulator, write_job_inputs):
    simulator.bucket("bucket", location="EUROPE-WEST4")
    with grpc_services.serving(simulator, HOSTS, {}):
        empty = python(*ARGUMENTS, env=simulator.environment())
        write_job_inputs(examples=3)
        few = python(*ARGUMENTS, "--replicas=4", env=simulator.environment())
        settings = ("--training.best_metric=pearson", "--data.positive_class=fine")
        unsuitable = python(*ARGUMENTS, *settings, env=simulator.environment())
        orphan = python(*ARGUMENTS, "--init_from=gs://bucket/runs/gone", env=simulator.environment())
        missing = python(*ARGUMENTS, "--bucket=missing", env=simulator.environment())
    for done in (empty, few, unsuitable, orphan):
        assert (done.returncode, done.stdout) == (2, "")
    assert "training.best_metric must" in unsuitable.stderr
    assert "data.positive_class must" in unsuitable.stderr
    assert "--init_from must exist. Received: gs://bucket/runs/gone" in orphan.stderr
    assert "--data_dir must hold" in empty.stderr
    assert "is in europe-west4, the accelerator in us-central1" in empty.stderr
    assert missing.returncode == 2
    assert "gs://missing/runs/" in missing.stderr
    assert missing.stderr.count("error: --base_output_directory") == 1
    assert "Received: 3." in few.stderr


AI_PLATFORM = [ARGUMENTS[0], "--target=ai_platform", *ARGUMENTS[2:], "--name=mine"]


def test_ai_platform_s_command_is_printed_with_the_service_s_end(offline):
    done = python(*AI_PLATFORM, "--dry_run", env=offline)
    assert done.returncode == 0, done.stderr
    words = shlex.split(done.stdout)
    assert words[:6] == ["gcloud", "ai-platform", "jobs", "submit", "training", "mine"]
    assert {"--package-path=trainer", "--module-name=trainer.task", "--job-dir=gs://bucket/runs/mine"} < set(words)
    assert words[words.index("--") + 1] == "--strategy=cpu"
    assert "2025-01-31" in done.stderr
    assert "--target=vertex" in done.stderr


def test_ai_platform_s_command_is_run_where_gcloud_is(offline, tmp_path):
    without = python(*AI_PLATFORM, env={**offline, "PATH": str(tmp_path)})
    assert (without.returncode, without.stdout) == (1, "")
    assert "gcloud on the PATH" in without.stderr
    gcloud = tmp_path / "gcloud"
    gcloud.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\nexit 3\n')
    gcloud.chmod(0o755)
    ran = python(*AI_PLATFORM, env={**offline, "PATH": f"{tmp_path}:/bin:/usr/bin"})
    printed = python(*AI_PLATFORM, "--dry_run", env=offline)
    assert ran.returncode == 1
    assert ran.stdout.splitlines() == shlex.split(printed.stdout)[1:]


def test_a_flag_that_ai_platform_did_not_have_is_refused(offline):
    done = python(*AI_PLATFORM, "--spot", "--timeout_hours=5", "--dry_run", env=offline)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--spot, --timeout_hours must be left out with --target=ai_platform" in done.stderr

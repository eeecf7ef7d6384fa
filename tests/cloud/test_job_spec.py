"""Jobs as data, parsed into the service's own messages: every preset on every machine."""

import json

import google.auth.environment_vars
import pytest
import yaml
from fakes import vertex_replicas
from fakes.vertex_jobs import parse_custom_job
from helpers import ROOT

from trainer.cloud import job_spec, machine_types
from trainer.config import loading
from trainer.runtime import tensorflow_variables

PRESETS = sorted(
    f"configs/{path.name}"
    for path in (ROOT / "configs").glob("*.yaml")
    if not path.name.startswith(("sweep_", "tune_"))
)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("machine", machine_types.SHORT_NAMES)
def test_every_preset_on_every_machine_is_a_job_of_the_service(build_request, preset, machine):
    request = build_request(config=preset, machine=machine)
    job = job_spec.build_custom_job(request)
    message = parse_custom_job(yaml.safe_load(yaml.safe_dump(job)))
    pools = message.job_spec.worker_pool_specs
    assert sum(pool.replica_count for pool in pools) == (2 if machine == "workers" else 1)
    assert pools[0].replica_count == 1
    for pool in pools:
        assert list(pool.container_spec.command) == ["python", "-m", "trainer.task"]
        # Its flags are the preset, and nothing else.
        given = dict(
            argument.removeprefix("--").split("=", 1)
            for argument in pool.container_spec.args
            if "--set" not in argument
        )
        changes = [argument.removeprefix("--set=") for argument in pool.container_spec.args if "--set=" in argument]
        assert set(given) == {"strategy", "data_dir", "encoder"}
        paths = {name: given[name] for name in ("data_dir", "encoder")}
        assert loading.load_config(None, changes, paths) == request.config
        assert loading.load_config(None, changes, paths) == loading.load_config(preset, ["logging.progress=off"], paths)


def environment_of(request) -> dict[str, str]:
    container = job_spec.build_custom_job(request)["jobSpec"]["workerPoolSpecs"][0]["containerSpec"]
    return {variable["name"]: variable["value"] for variable in container["env"]}


def test_a_stopped_job_ends_with_a_code_that_restarts_it(build_request):
    container = job_spec.build_custom_job(build_request(machine="workers"))["jobSpec"]["workerPoolSpecs"][1][
        "containerSpec"
    ]
    assert {"name": "STOPPED_CODE", "value": "134"} in container["env"]


def test_a_job_has_the_variables_of_its_machine(build_request):
    common = {"STOPPED_CODE": "134", **tensorflow_variables.ONEDNN_VARIABLES}

    assert environment_of(build_request(machine="tpu_v5e")) == common | {
        "TPU_NAME": "local",
        "PJRT_DEVICE": "TPU",
        "NEXT_PLUGGABLE_DEVICE_USE_C_API": "true",
        "TF_PLUGGABLE_DEVICE_LIBRARY_PATH": "/lib/libtpu.so",
    }
    assert environment_of(build_request(machine="tpu_v3")) == common | {"TPU_NAME": "local"}
    assert environment_of(build_request(machine="gpus")) == common


def test_a_job_has_its_submitter_s_storage_variables(build_request):
    passed = {google.auth.environment_vars.GOOGLE_CLOUD_QUOTA_PROJECT: "payer", "STORAGE_RETRY_SECONDS": "20"}
    for machine in machine_types.SHORT_NAMES:
        without = environment_of(build_request(machine=machine))
        assert not without.keys() & passed.keys()
        assert environment_of(build_request(machine=machine, variables=passed)) == without | passed


def test_a_job_has_its_schedule_and_its_account(build_request):
    account, network = "a@p.iam.gserviceaccount.com", "projects/1/global/networks/n"
    request = build_request(labels=["team=nlp"], spot=True, timeout_hours=2, service_account=account, network=network)
    message = parse_custom_job(job_spec.build_custom_job(request))
    scheduling = message.job_spec.scheduling
    assert (scheduling.strategy.name, scheduling.restart_job_on_worker_restart) == ("SPOT", True)
    assert scheduling.timeout.total_seconds() == 7200
    assert (message.job_spec.service_account, message.job_spec.network) == (account, network)
    assert dict(message.labels) == {"team": "nlp"}
    plain = parse_custom_job(job_spec.build_custom_job(build_request(restarts=False))).job_spec
    assert (plain.scheduling.strategy.name, plain.scheduling.restart_job_on_worker_restart) == (
        "STRATEGY_UNSPECIFIED",
        False,
    )


def test_a_value_survives_its_flag():
    changes = [
        "task=a=b",
        "model.dropout=0",
        "training.background_saves=off",
        "optimizer.learning_rate=3e-05",
        "seed=7",
        "training.class_weights={no: 2, 😀: 3}",
    ]
    loaded = loading.load_config(None, changes)
    assert loading.load_config(None, job_spec.changed_keys(loaded)) == loaded


def test_what_a_single_machine_is_started_with(build_request):
    (replica,) = vertex_replicas.replicas(job_spec.build_custom_job(build_request(machine="tpu_v5e")))
    assert replica.command[:4] == ["python", "-m", "trainer.task", "--strategy=tpu"]
    assert replica.environment["AIP_MODEL_DIR"] == "gs://b/runs/run_1/model/"
    assert replica.environment["AIP_CHECKPOINT_DIR"] == "gs://b/runs/run_1/checkpoints/"
    assert replica.environment["AIP_TENSORBOARD_LOG_DIR"] == "gs://b/runs/run_1/logs/"
    assert replica.environment["TPU_NAME"] == "local"
    assert "TF_CONFIG" not in replica.environment
    assert json.loads(replica.environment["CLUSTER_SPEC"])["task"] == {"type": "workerpool0", "index": 0}


def test_what_each_of_several_machines_is_started_with(build_request):
    """As in https://cloud.google.com/vertex-ai/docs/training/distributed-training."""
    replicas = vertex_replicas.replicas(job_spec.build_custom_job(build_request(machine="cpu", replicas=3)), trial="4")
    assert [(replica.pool, replica.index) for replica in replicas] == [(0, 0), (1, 0), (1, 1)]
    specs = [json.loads(replica.environment["CLUSTER_SPEC"]) for replica in replicas]
    tf_configs = [json.loads(replica.environment["TF_CONFIG"]) for replica in replicas]
    assert specs[2]["cluster"] == {
        "workerpool0": ["cmle-training-workerpool0-ab-0:2222"],
        "workerpool1": ["cmle-training-workerpool1-ab-0:2222", "cmle-training-workerpool1-ab-1:2222"],
    }
    assert specs[2]["task"] == {"type": "workerpool1", "index": 1, "trial": "4"}
    assert tf_configs[0]["cluster"] == {
        "chief": ["cmle-training-workerpool0-ab-0:2222"],
        "worker": ["cmle-training-workerpool1-ab-0:2222", "cmle-training-workerpool1-ab-1:2222"],
    }
    assert [tf_config["task"]["type"] for tf_config in tf_configs] == ["chief", "worker", "worker"]
    assert {spec["environment"] for spec in [*specs, *tf_configs]} == {"cloud"}
    assert replicas[1].environment["AIP_MODEL_DIR"] == "gs://b/runs/run_1/4/model/"

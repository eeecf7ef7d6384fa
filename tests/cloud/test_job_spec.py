"""Jobs as data, held against the service's own messages: every preset on every machine."""

import functools
import json

import pytest
import yaml
from fakes import vertex_replicas
from helpers import ROOT

from trainer.cloud import job_request, job_spec, machine_types
from trainer.config import loading

PRESETS = sorted(f"configs/{path.name}" for path in (ROOT / "configs").glob("*.yaml") if path.name[:5] != "tune_")
PRESETS = [name for name in PRESETS if "tune" not in name]  # those are of tuning jobs, on top of a preset


def order(**given) -> job_request.Order:
    wanted = {
        **dict(
            target="vertex", config="configs/smoke.yaml", overrides=[], project="p", region="us-central1", bucket="b"
        ),
        **dict(name="run_1", data_dir=None, encoder=None, base_output_directory=None, machine="cpu", accelerator=""),
        **dict(tpu_topology="", replicas=None, image=None, labels=[], version="1.2.3"),
        **given,
    }
    return job_request.take(**wanted)


def job_of(made: job_request.Order, **given) -> dict:
    return job_spec.custom_job(
        name=made.name,
        host=made.host,
        replicas=made.replicas,
        image=made.image,
        flags=job_spec.task_flags(made.config, made.strategy),
        base_output_directory=made.base_output_directory,
        labels=made.labels,
        **given,
    )


@functools.cache
def message_type():
    from google.cloud import aiplatform_v1

    return aiplatform_v1.CustomJob


def parsed(job: dict):
    """The service's message; raises for a field or a value that it does not know."""
    from google.protobuf import json_format

    message = message_type()()
    json_format.ParseDict(job, message_type().pb(message))
    return message


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("machine", machine_types.SHORT)
def test_every_preset_on_every_machine_is_a_job_of_the_service(preset, machine):
    made = order(config=preset, machine=machine)
    job = job_of(made)
    message = parsed(yaml.safe_load(yaml.safe_dump(job)))
    pools = message.job_spec.worker_pool_specs
    assert sum(pool.replica_count for pool in pools) == (2 if machine == "workers" else 1)
    assert pools[0].replica_count == 1
    for pool in pools:
        assert pool.machine_spec.machine_type in machine_types.TYPES
        assert list(pool.container_spec.command) == ["python", "-m", "trainer.task"]
        # What it was given as flags is the preset, and nothing else of it.
        given = dict(
            argument.removeprefix("--").split("=", 1)
            for argument in pool.container_spec.args
            if "--set" not in argument
        )
        changes = [argument.removeprefix("--set=") for argument in pool.container_spec.args if "--set=" in argument]
        assert set(given) == {"strategy", "data_dir", "encoder"}
        paths = {name: given[name] for name in ("data_dir", "encoder")}
        assert loading.load_config(None, changes, paths) == made.config
        assert loading.load_config(None, changes, paths) == loading.load_config(preset, ["logging.progress=off"], paths)


def environment_of(machine):
    container = job_of(order(machine=machine))["jobSpec"]["workerPoolSpecs"][0]["containerSpec"]
    return {variable["name"]: variable["value"] for variable in container["env"] if variable["name"] != "STOPPED_CODE"}


def test_a_job_that_is_stopped_ends_with_a_code_after_which_vertex_starts_it_again():
    container = job_of(order(machine="workers"))["jobSpec"]["workerPoolSpecs"][1]["containerSpec"]
    assert {"name": "STOPPED_CODE", "value": "134"} in container["env"]


def test_a_job_for_a_tpu_has_what_tensorflow_needs_there():
    assert environment_of("tpu_v5e") == {
        "TPU_NAME": "local",
        "PJRT_DEVICE": "TPU",
        "NEXT_PLUGGABLE_DEVICE_USE_C_API": "true",
        "TF_PLUGGABLE_DEVICE_LIBRARY_PATH": "/lib/libtpu.so",
    }
    assert environment_of("tpu_v3") == {"TPU_NAME": "local"}
    assert environment_of("gpus") == {}


def test_a_job_says_how_it_is_scheduled_and_as_whom():
    account, network = "a@p.iam.gserviceaccount.com", "projects/1/global/networks/n"
    message = parsed(
        job_of(order(labels=["team=nlp"]), spot=True, timeout=7200, service_account=account, network=network)
    )
    scheduling = message.job_spec.scheduling
    assert (scheduling.strategy.name, scheduling.restart_job_on_worker_restart) == ("SPOT", True)
    assert scheduling.timeout.total_seconds() == 7200
    assert (message.job_spec.service_account, message.job_spec.network) == (account, network)
    assert dict(message.labels) == {"team": "nlp"}
    plain = parsed(job_of(order(), restarts=False)).job_spec
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
    ]
    loaded = loading.load_config(None, changes)
    flags = job_spec.task_flags(loaded, "cpu")
    assert (
        loading.load_config(None, [flag.removeprefix("--set=") for flag in flags if flag.startswith("--set=")])
        == loaded
    )


def test_what_a_single_machine_is_started_with():
    (replica,) = vertex_replicas.replicas(job_of(order(machine="tpu_v5e")))
    assert replica.command[:4] == ["python", "-m", "trainer.task", "--strategy=tpu"]
    assert replica.environment["AIP_MODEL_DIR"] == "gs://b/runs/run_1/model/"
    assert replica.environment["AIP_CHECKPOINT_DIR"] == "gs://b/runs/run_1/checkpoints/"
    assert replica.environment["AIP_TENSORBOARD_LOG_DIR"] == "gs://b/runs/run_1/logs/"
    assert replica.environment["TPU_NAME"] == "local"
    assert "TF_CONFIG" not in replica.environment
    assert json.loads(replica.environment["CLUSTER_SPEC"])["task"] == {"type": "workerpool0", "index": 0}


def test_what_each_of_several_machines_is_started_with():
    """As in https://cloud.google.com/vertex-ai/docs/training/distributed-training."""
    found = vertex_replicas.replicas(job_of(order(machine="cpu", replicas=3)), trial="4")
    assert [(replica.pool, replica.index) for replica in found] == [(0, 0), (1, 0), (1, 1)]
    specs = [json.loads(replica.environment["CLUSTER_SPEC"]) for replica in found]
    tf_configs = [json.loads(replica.environment["TF_CONFIG"]) for replica in found]
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
    assert found[1].environment["AIP_MODEL_DIR"] == "gs://b/runs/run_1/4/model/"

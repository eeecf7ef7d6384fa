"""Machines by name, against what Vertex AI offers."""

import pytest

from trainer.cloud import machine_check, machine_types
from trainer.cloud.machine_types import Host


def problems(machine, accelerator="", topology="", replicas=None, region="us-central1"):
    host, count = machine_check.chosen(machine, accelerator, topology, replicas)
    return machine_check.check(host, count, region)


@pytest.mark.parametrize(
    ("machine", "host", "replicas", "devices", "strategy"),
    [
        ("cpu", Host("n1-standard-8"), 1, 1, "cpu"),
        ("gpu", Host("g2-standard-8", "NVIDIA_L4", 1), 1, 1, "mirrored"),
        ("gpus", Host("g2-standard-24", "NVIDIA_L4", 2), 1, 2, "mirrored"),
        ("workers", Host("g2-standard-8", "NVIDIA_L4", 1), 2, 1, "multi_worker"),
        ("tpu_v2", Host("cloud-tpu", "TPU_V2", 8), 1, 8, "tpu"),
        ("tpu_v3", Host("cloud-tpu", "TPU_V3", 8), 1, 8, "tpu"),
        ("tpu_v5e", Host("ct5lp-hightpu-4t", topology="2x2"), 1, 4, "tpu"),
        ("ct5lp-hightpu-8t", Host("ct5lp-hightpu-8t", topology="2x4"), 1, 8, "tpu"),
        ("a2-megagpu-16g", Host("a2-megagpu-16g", "NVIDIA_TESLA_A100", 16), 1, 16, "mirrored"),
        ("n2-highcpu-16", Host("n2-highcpu-16"), 1, 1, "cpu"),
    ],
)
def test_a_name_stands_for_a_machine_its_accelerators_and_a_strategy(machine, host, replicas, devices, strategy):
    assert machine_check.chosen(machine) == (host, replicas)
    assert (host.devices, machine_check.strategy(host, replicas)) == (devices, strategy)
    assert machine_check.check(host, replicas, "us-central1") == []


@pytest.mark.parametrize("given", ["NVIDIA_TESLA_T4:2", "nvidia-tesla-t4:2", "T4:2", "t4:2"])
def test_an_accelerator_may_be_written_in_several_ways(given):
    assert machine_check.chosen("n1-standard-8", given) == (Host("n1-standard-8", "NVIDIA_TESLA_T4", 2), 1)
    assert problems("n1-standard-8", given) == []


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (dict(machine="n1-standrd-8"), "Received: n1-standrd-8; the nearest is n1-standard-8."),
        (dict(machine="gpuz"), "the nearest is gpu."),
        (
            dict(machine="banana"),
            "Received: banana; take cpu, gpu, gpus, workers, tpu_v2, tpu_v3, tpu_v5e, or a type of",
        ),
        (dict(machine="ct6e-standard-4t"), "from TPU v6e on, Vertex AI has no TensorFlow. Take tpu_v5e"),
        (dict(machine="tpu7x-standard-4t"), "from TPU v6e on"),
        (dict(machine="n1-standard-8", accelerator="NVIDIA_TESLA_T3"), "the nearest is NVIDIA_TESLA_T4."),
        (dict(machine="n1-standard-8", accelerator="T4:three"), "--accelerator must be one of Vertex AI's."),
        (
            dict(machine="n1-standard-8", accelerator="T4:3"),
            "NVIDIA_TESLA_T4:2 or NVIDIA_TESLA_T4:4 with n1-standard-8",
        ),
        (dict(machine="n1-standard-32", accelerator="V100:2"), "V100:4 or NVIDIA_TESLA_V100:8 with n1-standard-32"),
        (dict(machine="n1-standard-8", accelerator="A100"), "one that has NVIDIA_TESLA_A100: a2-highgpu-1g, "),
        (dict(machine="n1-standard-8", accelerator="TPU_V2"), "one that has TPU_V2: cloud-tpu."),
        (dict(machine="e2-standard-8", accelerator="T4"), "an n1 machine to take NVIDIA_TESLA_T4"),
        (
            dict(machine="g2-standard-24", accelerator="L4:1"),
            "left out with g2-standard-24, which comes with NVIDIA_L4:2",
        ),
        (dict(machine="gpu", region="us-west4"), "--region must have NVIDIA_L4 for training: asia-northeast3, "),
        (dict(machine="tpu_v3", region="us-east1"), "europe-west4, us-central1. Received: us-east1, which has A100, "),
        (
            dict(machine="tpu_v5e", region="europe-west4"),
            "--region must have TPU_V5E for training: us-central1, us-east1,",
        ),
        (dict(machine="cpu", region="us-centrl1"), "Received: us-centrl1; the nearest is us-central1."),
        (dict(machine="ct5lp-hightpu-4t", topology="4x4"), "Received: 4x4, which has 4 hosts."),
        (dict(machine="ct5lp-hightpu-4t", topology="3x3"), "must be 2x2 or 2x4 or 4x4 or"),
        (dict(machine="ct5lp-hightpu-1t", accelerator="TPU_V2"), "must be left out with ct5lp-hightpu-1t"),
        (dict(machine="cloud-tpu"), "must be TPU_V2:8 or TPU_V3:8 with cloud-tpu"),
        (dict(machine="cloud-tpu", accelerator="TPU_V3:32"), "one host, since the batches are made in one process"),
        (dict(machine="tpu_v2", replicas=2), "--replicas must be 1 with a TPU. Received: 2."),
        (dict(machine="gpu", topology="2x2"), "--tpu_topology is for a TPU v5e"),
        (dict(machine="cpu", replicas=0), "--replicas must be at least 1. Received: 0."),
    ],
)
def test_what_does_not_fit_is_refused_with_what_would(given, words):
    (message,) = problems(**given)
    assert words in message


def test_every_mistake_is_told_at_once():
    found = problems("e2-standard-4", "T4", "2x2", 0, "mars-east1")
    assert len(found) == 4
    assert [message.split()[0] for message in found] == ["--machine", "--replicas", "--tpu_topology", "--region"]


def test_the_tables_speak_of_the_same_accelerators_as_the_service():
    from google.cloud.aiplatform_v1 import AcceleratorType

    assert {*machine_types.ACCELERATORS, *machine_types.ATTACHED} <= set(AcceleratorType.__members__)
    shorts = {machine_check.listed(name) for name in machine_types.ACCELERATORS} | {"TPU_V5E"}
    assert set(" ".join(machine_types.REGIONS.values()).split()) == shorts


def test_every_machine_is_to_be_had_somewhere():
    for machine in machine_types.TYPES:
        host, count = machine_check.chosen(machine, "TPU_V2" if machine == machine_types.CLOUD_TPU else "")
        assert any(not machine_check.check(host, count, region) for region in machine_types.REGIONS), machine

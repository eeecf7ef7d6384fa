"""Machines by name: what they stand for, and what the trainer could not run on."""

import pytest
from google.cloud.aiplatform_v1 import AcceleratorType

from trainer.cloud import machine_types
from trainer.cloud.machine_types import Machine


@pytest.mark.parametrize(
    ("name", "machine", "replicas", "devices", "strategy"),
    [
        ("cpu", Machine("n1-standard-8"), 1, 1, "cpu"),
        ("gpu", Machine("g2-standard-8", "NVIDIA_L4", 1), 1, 1, "mirrored"),
        ("gpus", Machine("g2-standard-24", "NVIDIA_L4", 2), 1, 2, "mirrored"),
        ("workers", Machine("g2-standard-8", "NVIDIA_L4", 1), 2, 1, "multi_worker"),
        ("tpu_v2", Machine("cloud-tpu", "TPU_V2", 8), 1, 8, "tpu"),
        ("tpu_v3", Machine("cloud-tpu", "TPU_V3", 8), 1, 8, "tpu"),
        ("tpu_v5e", Machine("ct5lp-hightpu-4t", tpu_topology="2x2"), 1, 4, "tpu"),
        ("ct5lp-hightpu-8t", Machine("ct5lp-hightpu-8t", tpu_topology="2x4"), 1, 8, "tpu"),
        ("g2-standard-96", Machine("g2-standard-96", "NVIDIA_L4", 8), 1, 8, "mirrored"),
        ("a2-megagpu-16g", Machine("a2-megagpu-16g", "NVIDIA_TESLA_A100", 16), 1, 16, "mirrored"),
        ("n2-highcpu-16", Machine("n2-highcpu-16"), 1, 1, "cpu"),
    ],
)
def test_a_name_stands_for_a_machine_and_a_strategy(name, machine, replicas, devices, strategy):
    assert machine_types.resolve_machine(name) == (machine, replicas)
    assert (machine.devices, machine_types.choose_strategy(machine, replicas)) == (devices, strategy)
    assert machine_types.find_machine_problems(machine, replicas) == []


def test_a_type_that_is_not_listed_takes_its_accelerator():
    machine, replicas = machine_types.resolve_machine("a9-hypergpu-8g", "NVIDIA_NEXT:8")
    assert machine == Machine("a9-hypergpu-8g", "NVIDIA_NEXT", 8)
    assert machine_types.find_machine_problems(machine, replicas) == []


@pytest.mark.parametrize("given", ["NVIDIA_TESLA_T4:2", "nvidia-tesla-t4:2", "T4:2", "t4:2"])
def test_an_accelerator_may_be_written_in_several_ways(given):
    assert machine_types.resolve_machine("n1-standard-8", given) == (Machine("n1-standard-8", "NVIDIA_TESLA_T4", 2), 1)


@pytest.mark.parametrize(
    ("given", "flag", "received"),
    [
        (dict(name="gpuz"), "--machine", "gpuz"),
        (dict(name="ct6e-standard-4t"), "--machine", "ct6e-standard-4t"),
        (dict(name="tpu7x-standard-4t"), "--machine", "tpu7x-standard-4t"),
        (dict(name="tpu_v6e"), "--machine", "tpu_v6e"),
        (dict(name="g4-standard-48"), "--machine", "g4-standard-48"),
        (dict(name="a4-highgpu-8g"), "--machine", "a4-highgpu-8g"),
        (dict(name="a4x-highgpu-4g"), "--machine", "a4x-highgpu-4g"),
        (dict(name="n1-standard-8", accelerator="nvidia-b200:8"), "--accelerator", "NVIDIA_B200:8"),
        (dict(name="n1-standard-8", accelerator="NVIDIA_GB200:4"), "--accelerator", "NVIDIA_GB200:4"),
        (dict(name="n1-standard-8", accelerator="RTX_PRO_6000"), "--accelerator", "RTX_PRO_6000:1"),
        (dict(name="n1-standard-8", accelerator="T4:three"), "--accelerator", "NVIDIA_TESLA_T4:0"),
        (dict(name="ct5lp-hightpu-4t", tpu_topology="4x4"), "--tpu_topology", "4x4 with ct5lp-hightpu-4t"),
        (dict(name="gpu", tpu_topology="2x2"), "--tpu_topology", "2x2 with g2-standard-8"),
        (dict(name="ct5lp-hightpu-1t", accelerator="TPU_V2"), "--accelerator", "TPU_V2:8"),
        (dict(name="cloud-tpu"), "--accelerator", "none"),
        (dict(name="cloud-tpu", accelerator="TPU_V3:32"), "--accelerator", "TPU_V3:32"),
        (dict(name="tpu_v2", replicas=2), "--replicas", "2"),
        (dict(name="cpu", replicas=0), "--replicas", "0"),
    ],
)
def test_what_the_trainer_cannot_run_on_is_refused(given, flag, received):
    (problem,) = machine_types.find_machine_problems(*machine_types.resolve_machine(**given))
    assert (problem.setting, problem.received) == (flag, received)


def test_a_blackwell_gpu_is_refused_with_the_reason_and_one_that_runs():
    machine, replicas = machine_types.resolve_machine("g4-standard-96", "NVIDIA_RTX_PRO_6000:2")
    problems = machine_types.find_machine_problems(machine, replicas)
    assert [problem.setting for problem in problems] == ["--machine", "--accelerator"]
    for problem in problems:
        assert "CUDA 12.5" in problem.advice
        assert "--machine=gpu" in problem.advice


def test_the_gpus_that_are_refused_are_the_service_s():
    members = {name.removeprefix("NVIDIA_") for name in AcceleratorType.__members__}
    assert {"B200", "GB200", "RTX_PRO_6000"} == members & set(machine_types.BLACKWELL_GPUS)


def test_an_unknown_short_name_has_the_nearest_one():
    (problem,) = machine_types.find_machine_problems(Machine("gpuz"), 1)
    assert problem.advice == "The nearest is gpu."


def test_every_problem_is_found_at_once():
    problems = machine_types.find_machine_problems(*machine_types.resolve_machine("tpu", "", "2x2", 0))
    assert [problem.setting for problem in problems] == ["--machine", "--replicas", "--tpu_topology"]


def test_the_accelerators_are_the_service_s():
    named = set(machine_types.ATTACHABLE_GPUS.values())
    named |= {machine.accelerator_type for machine, _ in machine_types.SHORT_NAMES.values() if machine.accelerator_type}
    assert named | {name for name, _ in machine_types.INCLUDED_GPUS.values()} <= set(AcceleratorType.__members__)

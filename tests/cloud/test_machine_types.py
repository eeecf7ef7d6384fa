"""The tables, against the service's own list of accelerators, and against one another."""

import pytest
from google.cloud.aiplatform_v1 import AcceleratorType

from trainer.cloud import machine_check, machine_types


def test_every_accelerator_is_one_of_the_service():
    assert set(machine_types.ACCELERATORS) <= set(AcceleratorType.__members__)


def test_a_region_has_only_accelerators_that_are_known():
    known = {machine_check.listed(name) for name in (*machine_types.ACCELERATORS, "TPU_V5E")}
    assert {name for there in machine_types.REGIONS.values() for name in there.split()} <= known


def test_every_accelerator_is_somewhere():
    there = {name for names in machine_types.REGIONS.values() for name in names.split()}
    assert {machine_check.listed(name) for name in (*machine_types.ACCELERATORS, "TPU_V5E")} <= there


def test_no_type_is_listed_twice_and_none_is_without_tensorflow():
    assert len(set(machine_types.TYPES)) == len(machine_types.TYPES)
    assert [name for name in machine_types.TYPES if name.startswith(machine_types.NO_TENSORFLOW)] == []


@pytest.mark.parametrize("name", machine_types.SHORT)
def test_a_short_name_stands_for_a_machine_that_some_region_has(name):
    host, replicas = machine_check.chosen(name, "", "", None)
    assert any(machine_check.check(host, replicas, region) == [] for region in machine_types.REGIONS)

"""The tables, against the service's own list of accelerators, and against one another."""

import pytest
from google.cloud.aiplatform_v1 import AcceleratorType

from trainer import hosts, machines


def test_every_accelerator_is_one_of_the_service():
    assert set(machines.ACCELERATORS) <= set(AcceleratorType.__members__)


def test_a_region_has_only_accelerators_that_are_known():
    known = {hosts.listed(name) for name in (*machines.ACCELERATORS, "TPU_V5E")}
    assert {name for there in machines.REGIONS.values() for name in there.split()} <= known


def test_every_accelerator_is_somewhere():
    there = {name for names in machines.REGIONS.values() for name in names.split()}
    assert {hosts.listed(name) for name in (*machines.ACCELERATORS, "TPU_V5E")} <= there


def test_no_type_is_listed_twice_and_none_is_without_tensorflow():
    assert len(set(machines.TYPES)) == len(machines.TYPES)
    assert [name for name in machines.TYPES if name.startswith(machines.NO_TENSORFLOW)] == []


@pytest.mark.parametrize("name", machines.SHORT)
def test_a_short_name_stands_for_a_machine_that_some_region_has(name):
    host, replicas = hosts.chosen(name, "", "", None)
    assert any(hosts.check(host, replicas, region) == [] for region in machines.REGIONS)

"""What is placed where; jobs on remote hosts are in end_to_end/test_tpu_hosts.py."""

import socket

import pytest
import tensorflow as tf
from helpers import free_addresses

from trainer.distributed import remote_hosts


def test_the_own_address_is_one_that_the_host_reaches():
    (host,) = free_addresses(1)
    name, _, port = remote_hosts.find_own_address(host).rpartition(":")
    assert name == "127.0.0.1"
    with socket.create_server((name, int(port))):
        pass


@pytest.mark.parametrize("strategy", [tf.distribute.OneDeviceStrategy("/cpu:0"), tf.distribute.MirroredStrategy()])
def test_a_strategy_of_this_process_has_no_other_hosts(strategy):
    assert remote_hosts.coordinator_device(strategy) is None
    assert remote_hosts.step_device(strategy) is None

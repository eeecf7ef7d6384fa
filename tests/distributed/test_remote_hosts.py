"""What is placed where; jobs on remote hosts are in end_to_end/test_tpu_hosts.py."""

import signal
import socket

import pytest
import tensorflow as tf
from helpers import free_addresses, start

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


SERVER = """
import concurrent.futures, time
import grpc
server = grpc.server(concurrent.futures.ThreadPoolExecutor(1))
print(server.add_insecure_port("127.0.0.1:0"), flush=True)
server.start()
time.sleep(60)
"""


def test_a_stopped_server_that_still_gets_connections_gives_no_answer(monkeypatch):
    monkeypatch.setattr(remote_hosts, "MAX_SILENCE_S", 3.0)
    server = start(SERVER)
    host = f"127.0.0.1:{int(server.stdout.readline())}"
    try:
        assert remote_hosts._answers(host)
        server.send_signal(signal.SIGSTOP)
        socket.create_connection(("127.0.0.1", int(host.rpartition(":")[2])), 3).close()
        assert not remote_hosts._answers(host)
    finally:
        server.kill()

"""What is placed where; jobs on remote hosts are in end_to_end/test_tpu_hosts.py."""

import signal
import socket

import pytest
import tensorflow as tf
from helpers import start

from trainer.distributed import remote_hosts
from trainer.distributed.cluster_config import split_address


@pytest.mark.parametrize("loopback", ["127.0.0.1", "::1"])
def test_the_own_address_is_one_that_the_host_reaches(loopback):
    family = socket.AF_INET6 if ":" in loopback else socket.AF_INET
    try:
        server = socket.create_server((loopback, 0), family=family)
    except OSError:
        pytest.skip("this host has no IPv6")
    with server:
        shown = f"[{loopback}]" if ":" in loopback else loopback
        own = split_address(remote_hosts.find_own_address(f"{shown}:{server.getsockname()[1]}"))
    assert own[0] == loopback
    with socket.create_server(own, family=family):
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

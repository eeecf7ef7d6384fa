"""Handshakes over TCP on ports of this host, with workers and with other programs."""

import contextlib
import json
import socket

import pytest
from helpers import free_addresses

from trainer.distributed import handshakes
from trainer.distributed.handshakes import Report

CHIEF, WORKER = Report({"seed": 0, "task": None}), Report({"seed": 1}, "no data", "mark")


@pytest.fixture
def port(monkeypatch) -> int:
    """A free one."""
    monkeypatch.setattr(handshakes, "ACCEPT_TIMEOUT_S", 0.05)  # So that the tests end sooner.
    return int(free_addresses(1)[0].rpartition(":")[2])


def answer_calls(port: int):
    """The chief's answers."""
    return handshakes.answer_calls(f"127.0.0.1:{port}", "job", handshakes.build_handshake(0, "job", CHIEF))


def call(port: int, stage: str = "job"):
    """The answer that a worker gets."""
    return handshakes.call(f"127.0.0.1:{port}", stage, handshakes.build_handshake(1, stage, WORKER))


def connect(port: int, data: bytes) -> socket.socket:
    """A connection over which `data` has been sent."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=2)
    with contextlib.suppress(ConnectionError):  # Disconnected before it had sent everything.
        connection.sendall(data)
    return connection


def test_two_workers_get_each_other_s_index_and_report(port):
    with answer_calls(port) as callers:
        assert call(port) == (0, CHIEF)
    assert callers == {1: WORKER}
    assert call(port) is None  # Nobody listens.
    with socket.create_server(("", port)):  # As TensorFlow will.
        pass


def test_workers_of_different_stages_do_not_answer_each_other(port):
    with answer_calls(port) as callers:
        assert call(port, "another") is None
    assert callers == {}


def test_a_long_problem_is_cut():
    handshake = handshakes.build_handshake(0, "job", Report({}, "x" * 100_000))
    assert len(handshake) < handshakes.MAX_HANDSHAKE_BYTES


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\xff\xfe\n",
        b"\n",
        b"[1]\n",
        b'"hubtune"\n',
        b"null\n",
        b'{"hubtune": 1}\n',
        b'{"hubtune": 1, "stage": "job", "report": 7}\n',
        b'{"hubtune": 1, "stage": "job", "report": {"job_signature": 7, "problem": "", "mark": ""}}\n',
        b'{"hubtune": "one", "stage": "job", "report": {"job_signature": {}, "problem": "", "mark": ""}}\n',
        b"x" * 200_000,
        b'{"hubtune": Infinity, "stage": "job", "report": {"job_signature": {}, "problem": "", "mark": ""}}\n',
        b"[" * 60_000 + b"\n",
    ],
    ids=lambda data: data[:20].decode(errors="replace").strip() or "newline",
)
def test_a_client_that_sends_something_else_is_ignored(port, data):
    with answer_calls(port) as callers, connect(port, data):
        assert call(port) == (0, CHIEF)
    assert callers == {1: WORKER}


def test_an_http_client_gets_a_handshake_and_is_disconnected(port):
    with (
        answer_calls(port) as callers,
        connect(port, b"GET / HTTP/1.1\r\n\r\n") as connection,
        connection.makefile("rb") as file,
    ):
        handshake = json.loads(file.readline())
        assert file.read() == b""  # Closed.
    assert callers == {}
    report = {"job_signature": CHIEF.job_signature, "problem": "", "mark": ""}
    assert handshake == {"hubtune": 0, "stage": "job", "report": report}

"""What one worker tells another over TCP: each sends a handshake, one line of JSON, and reads the other's."""

import contextlib
import dataclasses
import json
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

from trainer.distributed.cluster_config import split_address
from trainer.errors import Problem, UserError

# The keys of a handshake.
INDEX_KEY, STAGE_KEY, REPORT_KEY = "hubtune", "stage", "report"
# For one answer; and how long the thread that answers takes to notice that it has to end.
REPLY_TIMEOUT_S, ACCEPT_TIMEOUT_S = 5.0, 0.5
# The signature of a resolved configuration takes about 1,500 bytes.
MAX_HANDSHAKE_BYTES = 1 << 16
MAX_PROBLEM_CHARACTERS = 2000


@dataclasses.dataclass(frozen=True)
class Report:
    """What a worker tells the others."""

    job_signature: Mapping[str, Any]  # Names -> plain JSON values, which must be the same on every worker.
    problem: str = ""  # Why it cannot run; "" if it can.
    mark: str = ""  # The chief's: the name of a file that it has left in the model_dir.


def build_handshake(index: int, stage: str, report: Report) -> bytes:
    """The handshake of the worker `index`. Workers answer each other only in the same `stage`."""
    content = {**dataclasses.asdict(report), "problem": report.problem[:MAX_PROBLEM_CHARACTERS]}
    return json.dumps({INDEX_KEY: index, STAGE_KEY: stage, REPORT_KEY: content}).encode() + b"\n"


@contextlib.contextmanager
def answer_calls(address: str, stage: str, handshake: bytes) -> Iterator[dict[int, Report]]:
    """Answer calls on this worker's port, in a thread. Yields a dictionary, callers' index -> report, that it fills.

    The port is closed at the end, so that TensorFlow can use it. Raises UserError if it is in use.
    """
    _, port = split_address(address)
    family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
    try:
        listener = socket.create_server(("", port), family=family, dualstack_ipv6=family == socket.AF_INET6)
    except OSError as error:
        received = f"{address} ({os.strerror(error.errno or 0)})"
        advice = "Another worker of the same index may be running."
        raise UserError(Problem("This worker's port", "be free", received, advice)) from None
    callers: dict[int, Report] = {}
    ended = threading.Event()

    def answer() -> None:
        while not ended.is_set():
            with contextlib.suppress(OSError):  # Among them TimeoutError, if nobody has called.
                connection, _ = listener.accept()
                with connection:
                    caller = _exchange(connection, stage, handshake)
                    if caller:
                        callers[caller[0]] = caller[1]

    listener.settimeout(ACCEPT_TIMEOUT_S)
    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    try:
        yield callers
    finally:
        ended.set()
        thread.join()
        listener.close()


def call(address: str, stage: str, handshake: bytes) -> tuple[int, Report] | None:
    """Call a worker. Returns its index and report; None if it does not answer with a handshake of this stage."""
    try:
        with socket.create_connection(split_address(address), timeout=REPLY_TIMEOUT_S) as connection:
            return _exchange(connection, stage, handshake)
    except OSError:
        return None


def _exchange(connection: socket.socket, stage: str, handshake: bytes) -> tuple[int, Report] | None:
    """Send our handshake and read theirs. None if it is none: another server may listen on that port."""
    deadline = time.monotonic() + REPLY_TIMEOUT_S
    connection.settimeout(REPLY_TIMEOUT_S)
    connection.sendall(handshake)
    line = b""
    while not line.endswith(b"\n") and len(line) < MAX_HANDSHAKE_BYTES:
        connection.settimeout(max(deadline - time.monotonic(), 0.001))
        more = connection.recv(MAX_HANDSHAKE_BYTES)
        if not more:
            break
        line += more
    return _parse_handshake(line, stage)


def _parse_handshake(line: bytes, stage: str) -> tuple[int, Report] | None:
    try:
        theirs = json.loads(line)
        index, content = theirs[INDEX_KEY], theirs[REPORT_KEY]
        report = Report(dict(content["job_signature"]), str(content["problem"]), str(content["mark"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return (index, report) if isinstance(index, int) and theirs.get(STAGE_KEY) == stage else None

"""The rendezvous of a job's workers, before TensorFlow starts.

TensorFlow waits for a missing worker without end, and without handling SIGTERM. So the workers first connect here, over
plain TCP on the addresses that TensorFlow will use, and tell each other what they are about to run, or why they cannot.
"""

import contextlib
import dataclasses
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

from trainer.distributed.cluster_config import Cluster
from trainer.errors import Problem, UsageError, UserError

# The keys of a handshake, which is one line of JSON.
INDEX_KEY, STAGE_KEY, REPORT_KEY = "hubtune", "stage", "report"
# Between two calls to a worker that has not answered; for one answer; between two lines of the log.
POLL_INTERVAL_S, REPLY_TIMEOUT_S, LOG_INTERVAL_S = 0.5, 5.0, 15.0
# The signature of a resolved configuration takes about 1,500 bytes.
MAX_HANDSHAKE_BYTES = 1 << 16
MAX_PROBLEM_CHARACTERS = 2000
# The first stage: workers of different ones do not answer each other.
JOB_STAGE = "job"
# A worker that cannot run does not wait longer for the others than this: they name it anyway.
TELL_WITHIN_S = 60.0

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Report:
    """What a worker tells the others."""

    job_signature: Mapping[str, Any]  # Names -> plain JSON values, which must be the same on every worker.
    problem: str = ""  # Why it cannot run; "" if it can.
    mark: str = ""  # The chief's: the name of a file that it has left in the model_dir.


def exchange_reports(cluster: Cluster, stage: str, report: Report, timeout_s: float) -> dict[int, Report]:
    """Return the other workers' reports, by their indexes, once every worker has reached every other one.

    Workers answer each other only in the same `stage`. Raises, with all workers that it concerns: UserError if others
    cannot run; UsageError, with the names that differ, if others have another signature; and UserError if some are
    missing after `timeout_s`. A worker that reports a problem itself gets the reports that have come: it only tells.
    """
    content = {**dataclasses.asdict(report), "problem": report.problem[:MAX_PROBLEM_CHARACTERS]}
    handshake = json.dumps({INDEX_KEY: cluster.index, STAGE_KEY: stage, REPORT_KEY: content}).encode() + b"\n"
    others = set(range(len(cluster.addresses))) - {cluster.index}
    reached: set[int] = set()  # The workers that have answered our call; `callers` are those that have called us.
    reports: dict[int, Report] = {}
    started = logged = time.monotonic()
    with _listen(cluster.addresses[cluster.index], stage, handshake) as callers:
        while True:
            for index in sorted(others - reached):
                answer = _call(cluster.addresses[index], stage, handshake)
                if answer is not None and answer[0] == index:
                    reports[index] = answer[1]
                    reached.add(index)
                if time.monotonic() - started > timeout_s:
                    break
            reports.update({caller: theirs for caller, theirs in list(callers.items()) if caller in others})
            absent = sorted(others - (reached & callers.keys()))
            waited_s = time.monotonic() - started
            if (not absent or waited_s > timeout_s) and not report.problem:
                _check_reports(cluster, report, reports)  # Not earlier: a worker that left could not tell the others.
            if not absent or (waited_s > timeout_s and report.problem):
                return reports
            missing = ", ".join(f"{index} ({cluster.addresses[index]})" for index in absent)
            if waited_s > timeout_s:
                required, received = f"be reached within {timeout_s:.0f} s", f"no answer from worker {missing}"
                advice = "Start it, correct its address in TF_CONFIG or CLUSTER_SPEC, or raise --cluster_timeout."
                raise UserError(Problem("Every worker", required, received, advice))
            if time.monotonic() - logged > LOG_INTERVAL_S:
                logged = time.monotonic()
                _LOG.info("waiting for worker %s, %.0f of %.0f s", missing, waited_s, timeout_s)
            time.sleep(POLL_INTERVAL_S)


def tell_problem(cluster: Cluster | None, error: Exception, timeout_s: float) -> None:
    """Tell the other workers, if there are any, why this one cannot run: each names it. The caller raises the error."""
    if cluster and len(cluster.addresses) > 1:
        limit_s = min(timeout_s, TELL_WITHIN_S)
        _LOG.info("telling the other workers, for %.0f s at most, that this one cannot run", limit_s)
        with contextlib.suppress(UserError):  # Its port may be in use, too.
            exchange_reports(cluster, JOB_STAGE, Report({}, str(error)), limit_s)


@contextlib.contextmanager
def _listen(address: str, stage: str, handshake: bytes) -> Iterator[dict[int, Report]]:
    """Answer calls on this worker's port, in a thread. Yields a dictionary, callers' index -> report, that it fills.

    The port is closed at the end, so that TensorFlow can use it.
    """
    port = int(address.rpartition(":")[2])
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

    listener.settimeout(POLL_INTERVAL_S)
    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    try:
        yield callers
    finally:
        ended.set()
        thread.join()
        listener.close()


def _call(address: str, stage: str, handshake: bytes) -> tuple[int, Report] | None:
    """Call a worker. Returns its index and report; None if it does not answer with a handshake of this stage."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=REPLY_TIMEOUT_S) as connection:
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


def _check_reports(cluster: Cluster, ours: Report, reports: Mapping[int, Report]) -> None:
    """Raises what exchange_reports does for workers that cannot run, or run another job."""

    def describe(index: int, what: str) -> str:
        return f"worker {index} ({cluster.addresses[index]}){what}"

    unable = [describe(index, f": {report.problem}") for index, report in sorted(reports.items()) if report.problem]
    if unable:
        raise UserError(*(Problem("Every worker", "be able to run the job", received) for received in unable))
    different = []
    for index, report in sorted(reports.items()):
        names = _describe_differences(ours.job_signature, report.job_signature)
        if names:
            received, advice = describe(index, f" with another ({names})"), "Start all workers with the same flags."
            different.append(Problem("Every worker", "run the same configuration on the same data", received, advice))
    if different:
        raise UsageError(*different)


def _describe_differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    return "; ".join(
        f"{name}: {ours.get(name)} here, {theirs.get(name)} there"
        for name in sorted({*ours, *theirs})
        if ours.get(name) != theirs.get(name)
    )

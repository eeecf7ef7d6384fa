"""Commands run as processes, several at a time; a signal to this process is passed on to them.

It knows nothing of what the commands do: whoever calls it leaves out those whose work is done, and so resumes.
"""

import contextlib
import dataclasses
import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence

from trainer import child_process
from trainer.child_process import STOP_GRACE_S
from trainer.runtime.signals import Stopped, StopRequest

POLL_INTERVAL_S = 0.2
MAX_MESSAGE_CHARACTERS = 600

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class JobRun:
    """A command and the file that its output is appended to."""

    name: str
    command: Sequence[str]
    log: str


@dataclasses.dataclass(frozen=True)
class EndedJob:
    job: JobRun
    exit_code: int  # As subprocess has it: that of a signal is negative.
    seconds: float
    message: str  # The end of what it wrote. "" after code 0.


@dataclasses.dataclass
class _Running:
    job: JobRun
    process: subprocess.Popen[bytes]
    slot: int
    started: float
    log_start: int  # Where its output begins in the log, in bytes.
    stop_requested_at: float | None = None  # When it was told to stop.


def run_jobs(
    jobs: Sequence[JobRun],
    request: StopRequest,
    *,
    slots: Sequence[Mapping[str, str]] = ({},),
    timeout_s: float | None = None,
    on_end: Callable[[EndedJob], None] = lambda ended: None,
) -> list[EndedJob]:
    """Run the commands, as many at a time as there are slots, in their order; return how each ended.

    A slot is the environment variables of the jobs that run in it, such as CUDA_VISIBLE_DEVICES. A job that takes
    longer than `timeout_s` is told to stop, then killed. `on_end` is called after each. Raises signals.Stopped after a
    signal, when all processes have ended: within STOP_GRACE_S.
    """
    waiting, running, ended = list(jobs), list[_Running](), list[EndedJob]()
    free = list(range(len(slots)))
    try:
        while running or (waiting and not request.reason):
            while waiting and free and not request.reason:
                slot = free.pop(0)
                running.append(_start(waiting.pop(0), slot, slots[slot]))
            time.sleep(POLL_INTERVAL_S)
            for each in list(running):
                _stop_if_due(each, request, timeout_s)
                if each.process.poll() is not None:
                    running.remove(each)
                    free.append(each.slot)
                    ended.append(_describe_end(each))
                    on_end(ended[-1])
    finally:
        for each in running:  # This process fails: nobody would wait for them.
            child_process.kill_session(each.process)
    if request.reason:
        raise Stopped(f"stopped by {request.reason}")
    return ended


def _start(job: JobRun, slot: int, variables: Mapping[str, str]) -> _Running:
    os.makedirs(os.path.dirname(job.log) or ".", exist_ok=True)
    with open(job.log, "ab") as log:
        start = log.tell()
        process = child_process.start_session(
            job.command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, variables=variables
        )
    return _Running(job, process, slot, time.monotonic(), start)


def _stop_if_due(each: _Running, request: StopRequest, timeout_s: float | None) -> None:
    now = time.monotonic()
    if each.stop_requested_at is None and (
        request.reason or (timeout_s is not None and now - each.started > timeout_s)
    ):
        each.stop_requested_at = now
        with contextlib.suppress(ProcessLookupError):
            each.process.send_signal(signal.SIGTERM)
    elif each.stop_requested_at is not None and now - each.stop_requested_at > STOP_GRACE_S:
        _LOG.warning("%s did not stop within %.0f s, and is killed.", each.job.name, STOP_GRACE_S)
        child_process.kill_session(each.process)


def _describe_end(each: _Running) -> EndedJob:
    code = each.process.returncode
    return EndedJob(each.job, code, time.monotonic() - each.started, _read_end(each) if code else "")


def _read_end(each: _Running) -> str:
    """The last line of the process's output, and how a signal ended it."""
    with open(each.job.log, "rb") as log:
        log.seek(max(each.log_start, os.path.getsize(each.job.log) - 4 * MAX_MESSAGE_CHARACTERS))
        lines = [line for line in log.read().decode("utf-8", "replace").splitlines() if line.strip()]
    last = lines[-1].strip()[-MAX_MESSAGE_CHARACTERS:] if lines else "no output"
    code = each.process.returncode
    return last if code > 0 else f"ended by {child_process.describe_exit(code)}, after: {last}"

"""A process of ours run to its end. A signal to this process is passed on to it."""

import contextlib
import logging
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from typing import IO

from trainer import child_process
from trainer.child_process import STOP_GRACE_S
from trainer.errors import EXIT_BAD_USAGE, EXIT_STOPPED, Problem, UsageError, UserError
from trainer.runtime.signals import Stopped, StopRequest

_LOG = logging.getLogger(__name__)
POLL_INTERVAL_S = 0.2
_AGAIN = "Run the same command again to continue."


def run(what: str, command: Sequence[str], request: StopRequest, stdin: str | None = None) -> str:
    """Run a process, which writes to this one's standard error, and return its standard output if it was given `stdin`.

    Without `stdin` its output is this process's. Raises signals.Stopped if it, or this process, was asked to stop;
    UserError, or UsageError after code 2, if it failed. `what` names it for the user, as the first words of a sentence.
    """
    if request.reason:
        raise Stopped(f"stopped by {request.reason}. {_AGAIN}")
    with contextlib.ExitStack() as stack:
        sent = received = None
        if stdin is not None:  # In files: communicate() of a pipe cannot be interrupted and continued.
            sent, received = (stack.enter_context(tempfile.TemporaryFile()) for _ in range(2))
            sent.write(stdin.encode())
            sent.seek(0)
        code = _wait(command, request, sent, received)
        if code == 0:
            if received is None:
                return ""
            received.seek(0)
            return received.read().decode()
    if request.reason or code == EXIT_STOPPED:
        raise Stopped(f"{what} was stopped by {request.reason or 'a signal'}. {_AGAIN}")
    if problem := child_process.find_signal_problem(what, code, "the lines above"):
        raise UserError(problem)
    error = UsageError if code == EXIT_BAD_USAGE else UserError
    advice = f"Its message is above. {_AGAIN}"
    raise error(Problem(what, "end without an error", child_process.describe_exit(code), advice))


def _wait(command: Sequence[str], request: StopRequest, stdin: IO[bytes] | None, stdout: IO[bytes] | None) -> int:
    """The exit code of a process, to which the first request to stop is passed on as SIGTERM.

    It is killed if it does not stop within STOP_GRACE_S, or if this process fails.
    """
    process = child_process.start_session(command, stdin=stdin, stdout=stdout)
    stop_requested_at: float | None = None
    try:
        while True:
            try:
                return process.wait(POLL_INTERVAL_S)
            except subprocess.TimeoutExpired:
                if stop_requested_at is None and request.reason:
                    stop_requested_at = time.monotonic()
                    process.send_signal(signal.SIGTERM)
                elif stop_requested_at is not None and time.monotonic() - stop_requested_at > STOP_GRACE_S:
                    _LOG.warning("it did not stop within %.0f s, and is killed.", STOP_GRACE_S)
                    child_process.kill_session(process)
    finally:
        if process.poll() is None:
            child_process.kill_session(process)

"""A process of ours run to its end. A signal to this process is passed on to it."""

import os
import signal
import subprocess
from collections.abc import Sequence

from trainer import child_process
from trainer.errors import EXIT_BAD_USAGE, EXIT_STOPPED, Problem, UsageError, UserError
from trainer.runtime.signals import Stopped, StopRequest

POLL_INTERVAL_S = 0.2
_AGAIN = "Run the same command again to continue."


def run(what: str, command: Sequence[str], request: StopRequest, stdin: str | None = None) -> str:
    """Run a process, which writes to this one's standard error, and return its standard output if it was given `stdin`.

    Without `stdin` its output is this process's. Raises signals.Stopped if it, or this process, was asked to stop;
    UserError, or UsageError after code 2, if it failed. `what` names it for the user, as the first words of a sentence.
    """
    if request.reason:
        raise Stopped(f"stopped by {request.reason}. {_AGAIN}")
    piped = None if stdin is None else subprocess.PIPE
    # In a session of its own, a Ctrl-C of the terminal reaches it through this process alone, and once.
    process = subprocess.Popen(
        command, stdin=piped, stdout=piped, text=True, env=child_process.environment(), start_new_session=True
    )
    told = False
    try:
        while True:
            try:
                output, _ = process.communicate(stdin, timeout=POLL_INTERVAL_S)
                break
            except subprocess.TimeoutExpired:
                stdin = None  # It goes on sending what it was given first.
                if request.reason and not told:
                    process.send_signal(signal.SIGTERM)
                    told = True
    finally:
        if process.poll() is None:  # This process fails: nobody would wait for the other one.
            os.killpg(process.pid, signal.SIGTERM)
    code = process.returncode
    if code == 0:
        return output or ""
    if request.reason or code == EXIT_STOPPED:
        raise Stopped(f"{what} was stopped by {request.reason or 'a signal'}. {_AGAIN}")
    if problem := child_process.find_signal_problem(what, code, "the lines above"):
        raise UserError(problem)
    error = UsageError if code == EXIT_BAD_USAGE else UserError
    advice = f"Its message is above. {_AGAIN}"
    raise error(Problem(what, "end without an error", child_process.describe_exit(code), advice))

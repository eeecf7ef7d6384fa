"""How a process of ours starts and kills another one, and what it says if a signal ends that one.

The module is found wherever the package lies and whatever the current folder is.
"""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import IO

from trainer.errors import Problem

# A run looks for a signal every 5 s, and saves a checkpoint. What takes longer is killed, and loses its last steps.
STOP_GRACE_S = 120.0
# Of what a process wrote, from each end: a crash is described before the modules that are loaded, and after warnings.
QUOTED_CHARACTERS = 2000


def command(module: str, *arguments: str) -> list[str]:
    """The command line that runs a module, such as trainer.export.predict, with this process's Python."""
    return [sys.executable, "-m", module, *arguments]


def environment(**changes: str) -> dict[str, str]:
    """This process's variables with these changes, and the folder of this package first in PYTHONPATH.

    A crash in native code writes the name of its signal, and where the Python threads were.
    """
    folder = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    path = os.pathsep.join(filter(None, [folder, os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "PYTHONFAULTHANDLER": "1", **changes}


def start_session(
    arguments: Sequence[str],
    *,
    stdin: IO[bytes] | int | None = None,
    stdout: IO[bytes] | int | None = None,
    stderr: IO[bytes] | int | None = None,
    variables: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a command as the leader of a session: a Ctrl-C of the terminal reaches it through this process alone.

    `variables` are changes of the environment, the files are those of subprocess.Popen.
    """
    changed = environment(**(variables or {}))
    return subprocess.Popen(arguments, stdin=stdin, stdout=stdout, stderr=stderr, env=changed, start_new_session=True)


def kill_session(process: subprocess.Popen[bytes]) -> None:
    """Kill a process of start_session and those of its session, and wait for its end."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def describe_exit(exit_code: int) -> str:
    """ "SIGABRT" for subprocess's -6, "code 1" for 1."""
    if exit_code >= 0:
        return f"code {exit_code}"
    known = {each.value: each.name for each in signal.Signals}
    return known.get(-exit_code, f"signal {-exit_code}")


def _quote(output: str) -> str:
    if len(output) <= 2 * QUOTED_CHARACTERS:
        return output
    return f"{output[:QUOTED_CHARACTERS]}\n...\n{output[-QUOTED_CHARACTERS:]}"


def find_signal_problem(process: str, exit_code: int, output: str) -> Problem | None:
    """The problem of a process that a signal ended, as subprocess's negative `exit_code` says; None for any other code.

    `process` names it for the user. The ends of its `output` are quoted.
    """
    if exit_code >= 0:
        return None
    received = f"{describe_exit(exit_code)}, after: {_quote(output.strip()) or 'no output'}"
    if -exit_code in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
        advice = "Somebody ended it, or the system did because memory ran out. Run the same command again."
    else:
        advice = "It crashed. Run the same command again; if it happens twice, see docs/limits.md#crashes."
    return Problem(process, "end by itself", received, advice)

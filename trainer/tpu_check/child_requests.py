"""Child processes that answer requests. A request and its answer are one line of JSON each.

The parent and both children import this module, so it imports nothing that one of their environments lacks.
"""

import contextlib
import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from trainer import child_process
from trainer.errors import UserError

ROOT = Path(__file__).parents[2]


@dataclasses.dataclass(frozen=True)
class ChildProcess:
    name: str  # For messages.
    process: subprocess.Popen[str]
    log: Path  # What the child writes to standard error.


@contextlib.contextmanager
def start_child(name: str, command: list[str], log: Path) -> Iterator[ChildProcess]:
    """Start `command` in the project's root. It is killed when the context ends."""
    pipe = subprocess.PIPE
    with (
        log.open("w") as stderr,
        subprocess.Popen(
            command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=stderr, text=True, env=child_process.environment()
        ) as process,
    ):
        try:
            yield ChildProcess(name, process, log)
        finally:
            process.kill()
            with contextlib.suppress(BrokenPipeError):  # A request that the child did not take.
                assert process.stdin
                process.stdin.close()


def send_request(child: ChildProcess, request: dict[str, Any]) -> dict[str, Any]:
    """Return the child's answer.

    Raises UserError with the child's message if it reports an error, or if a signal has ended it, and RuntimeError if
    it has ended otherwise, which is a defect of ours.
    """
    stdin, stdout = child.process.stdin, child.process.stdout
    assert stdin
    assert stdout
    with contextlib.suppress(BrokenPipeError):  # The child has ended, and has no answer.
        stdin.write(json.dumps(request) + "\n")
        stdin.flush()
    line = stdout.readline()
    if not line:
        exit_code = child.process.wait()
        if problem := child_process.find_signal_problem(child.name, exit_code, child.log.read_text()):
            raise UserError(problem)
        raise RuntimeError(f"{child.name} ended with {exit_code} on {request}:\n{child.log.read_text()[-3000:]}")
    answer: dict[str, Any] = json.loads(line)
    if "error" in answer:
        raise UserError(answer["error"])
    return answer


def answer_requests(answer: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """In the child: answer each request until standard input ends. A ValueError becomes {"error": message}."""
    for line in sys.stdin:
        try:
            reply = answer(json.loads(line))
        except ValueError as error:
            reply = {"error": str(error)}
        print(json.dumps(reply), flush=True)

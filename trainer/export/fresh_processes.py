"""The process of a parity check: it has nothing of the job, so that the exported folder alone is what computes."""

import contextlib
import subprocess
from collections.abc import Iterator

from trainer import child_process
from trainer.errors import Problem, UserError

# It imports TensorFlow, loads a model and computes 100 texts.
TIMEOUT_S = 600
# A failed child's standard error may be megabytes long; its end has the cause.
MAX_ERROR_CHARACTERS = 800


@contextlib.contextmanager
def fresh_process(module: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Start a module of ours in a new process. It ends with the block at the latest."""
    pipe = subprocess.PIPE
    environment = child_process.environment(CUDA_VISIBLE_DEVICES="-1")  # This process holds the accelerators.
    command = child_process.command(module, *arguments)
    with subprocess.Popen(
        command,
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
        text=True,
        env=environment,
        start_new_session=True,  # A Ctrl-C of the terminal reaches this process alone, which decides what it ends.
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def read_output(process: subprocess.Popen[str], given: str = "") -> str:
    """What a process of fresh_process prints for what it is `given` on standard input.

    Raises UserError if the process fails, or takes longer than TIMEOUT_S.
    """
    try:
        output, errors = process.communicate(given, TIMEOUT_S)
    except subprocess.TimeoutExpired:
        required = f"load and compute within {TIMEOUT_S} s in a fresh process"
        raise UserError(Problem("The export", required, "no answer")) from None
    if problem := child_process.find_signal_problem("The export's check", process.returncode, errors):
        raise UserError(problem)
    if process.returncode:
        received = errors.strip()[-MAX_ERROR_CHARACTERS:]
        raise UserError(Problem("The export", "load in a fresh process", received))
    return output

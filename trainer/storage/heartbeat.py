"""The process of our own that renews a lease while a run computes.

It is a process, since TensorFlow may hold Python's lock for as long as a step takes. It reads its standard input, which
ends with the run, whatever ends that; and each of the two ends the other at once if the lease is lost.
"""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence

from trainer import child_process
from trainer.errors import EXIT_STOPPED

_LOG = logging.getLogger(__name__)


@contextlib.contextmanager
def running(module: str, path: str, *arguments: str, pass_files: Sequence[int] = ()) -> Iterator[None]:
    """Run `python -m module path arguments` for as long as the block lasts. It also gets the open files `pass_files`.

    If it ends before, this process ends with EXIT_STOPPED.
    """
    process = subprocess.Popen(
        child_process.command(module, path, *arguments),
        stdin=subprocess.PIPE,
        env=child_process.environment(),
        pass_fds=pass_files,
        start_new_session=True,  # Ctrl-C in a terminal is to reach the run alone.
    )
    assert process.stdin
    released = threading.Event()

    def stop_with_process() -> None:
        exit_code = process.wait()
        if not released.is_set():
            ended = child_process.describe_exit(exit_code)
            _LOG.error("The process that renews %s ended with %s. Run the same command again.", path, ended)
            os._exit(EXIT_STOPPED)  # At once: another process may be about to write to the folder.

    threading.Thread(target=stop_with_process, daemon=True).start()
    try:
        yield
    finally:
        released.set()
        process.stdin.close()
        process.wait()


def kill_run(parent: int, reason: str) -> None:
    """In that process: kill the run, whose process number is `parent`, unless it has ended."""
    print(
        f"error: the run has lost its --model_dir and is killed before another run writes to it. {reason} "
        "Run the same command again to resume from the newest checkpoint.",
        file=sys.stderr,
        flush=True,
    )
    if os.getppid() == parent:
        os.kill(parent, signal.SIGKILL)

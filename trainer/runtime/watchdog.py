"""A bound on waits for devices and for other machines, which TensorFlow may wait for without end."""

import contextlib
import dataclasses
import faulthandler
import functools
import threading
import time
from collections.abc import Iterator

from trainer.runtime import app

MAX_WAIT_S = 3600.0  # Longer than any step takes, its compilation included.
POLL_INTERVAL_S = 15.0
STDERR = 2  # sys.stderr may be replaced by what is no file.


@dataclasses.dataclass(eq=False)
class _Wait:
    what: str
    # Polls, not a clock: a process that was suspended, alone or with its machine, has waited for nothing meanwhile.
    polls: int = 0


_WAITS: list[_Wait] = []  # Those that have not ended, of any thread.


@contextlib.contextmanager
def stop_if_stuck(what: str) -> Iterator[None]:
    """End the process with the code of a stop if the block, which waits for `what`, takes longer than MAX_WAIT_S.

    Where each thread is goes to standard error first: nothing else would tell what was waited for.
    """
    _start_watching()
    wait = _Wait(what)
    _WAITS.append(wait)
    try:
        yield
    finally:
        _WAITS.remove(wait)


@functools.cache
def _start_watching() -> None:
    """Start the thread that watches all waits. One for each would cost up to a millisecond on a busy machine."""

    def watch() -> None:
        while True:
            time.sleep(POLL_INTERVAL_S)
            for wait in _WAITS.copy():
                wait.polls += 1
                if wait.polls * POLL_INTERVAL_S > MAX_WAIT_S:
                    _stop(wait.what)

    threading.Thread(target=watch, name="watchdog", daemon=True).start()


def _stop(what: str) -> None:
    faulthandler.dump_traceback(STDERR)
    advice = "Run the same command again to resume from the newest checkpoint."
    app.stop_at_once(f"stopped: {what} did not end within {MAX_WAIT_S / 60:.0f} minutes. {advice}")

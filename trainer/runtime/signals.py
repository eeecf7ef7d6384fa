"""SIGTERM and SIGINT as a request that the train loop reads between two inner loops."""

import contextlib
import dataclasses
import signal
from collections.abc import Iterator
from types import FrameType


class Stopped(Exception):
    """The run stopped on request. Run again, it resumes from its newest checkpoint."""


@dataclasses.dataclass
class StopRequest:
    """Whether a signal has requested this process to stop."""

    reason: str | None = None  # The signal's name, or that another worker got one. None: no request.


def raise_if_requested(request: StopRequest, on_any_worker: bool) -> None:
    """Raises Stopped if a worker was asked to stop. `on_any_worker` is the all-reduced answer, equal on all of them.

    A signal that came to this worker after the agreement waits for the next one, so that all workers stop together.
    """
    if on_any_worker:
        request.reason = request.reason or "a signal to another worker"
        raise Stopped(f"stopped by {request.reason}")


@contextlib.contextmanager
def watch_signals() -> Iterator[StopRequest]:
    """Until the block ends, the first signal only fills in the request; a second one ends the process at once."""
    request = StopRequest()

    def on_first_signal(number: int, frame: FrameType | None) -> None:
        request.reason = signal.Signals(number).name
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, signal.SIG_DFL)

    handlers = {number: signal.signal(number, on_first_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield request
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)

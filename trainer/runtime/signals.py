"""SIGTERM and SIGINT as a request that the train loop reads between two inner loops."""

import contextlib
import dataclasses
import signal
import threading
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
def watch_signals(*, at_once: bool = True) -> Iterator[StopRequest]:
    """Until the block ends, the first signal only fills in the request; a second one ends the process at once.

    With `at_once` off, a second one does what it did before the block, in a process that has other things to do. Python
    handles signals in the main thread alone: in another one the request stays empty.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    # None: the handler was not installed by Python, which cannot install it again.
    handlers = {number: signal.getsignal(number) or signal.SIG_DFL for number in (signal.SIGTERM, signal.SIGINT)}

    def on_first_signal(number: int, frame: FrameType | None) -> None:
        request.reason = signal.Signals(number).name
        for each, handler in handlers.items():
            signal.signal(each, signal.SIG_DFL if at_once else handler)

    for number in handlers:
        signal.signal(number, on_first_signal)
    try:
        yield request
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)

"""SIGTERM and SIGINT as a flag that the loop looks at between steps."""

import contextlib
import dataclasses
import signal
from collections.abc import Iterator
from types import FrameType


class Stopped(Exception):
    """The run was asked to stop, and has a checkpoint to go on from."""


@dataclasses.dataclass
class StopRequest:
    name: str | None = None  # of the signal, or who else was asked; None while none has come

    def stop_if(self, asked: bool) -> None:
        """Raises Stopped if a signal has come, here or to another worker."""
        if asked:
            self.name = self.name or "a signal to another worker"
            raise Stopped(f"stopped by {self.name}")


@contextlib.contextmanager
def watch_signals() -> Iterator[StopRequest]:
    """Until the block ends, the first signal only sets the request; a second one ends the process at once."""
    request = StopRequest()

    def first(number: int, frame: FrameType | None) -> None:
        request.name = signal.Signals(number).name
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, signal.SIG_DFL)

    before = {number: signal.signal(number, first) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

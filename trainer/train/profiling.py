"""A profile of some train steps, for TensorBoard."""

import contextlib
import dataclasses
import logging
import re
from collections.abc import Callable, Iterator

from trainer.errors import Problem
from trainer.storage import fs

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class ProfiledSteps:
    """The steps after `start`, to `stop`."""

    start: int
    stop: int


def parse_steps(text: str | None, problems: list[Problem]) -> ProfiledSteps | None:
    """START:STOP -> the steps; None without a text, and if it is wrong, which is added to the problems."""
    match = re.fullmatch(r"(\d{1,9}):(\d{1,9})", text or "")
    if match and int(match[1]) < int(match[2]):
        return ProfiledSteps(int(match[1]), int(match[2]))
    if text is not None:
        problems.append(Problem("--profile", "be START:STOP, two numbers of steps, the second larger", text))
    return None


def next_boundary(step: int, boundary: int, profiled: ProfiledSteps | None) -> int:
    """The first step after `step` at which the profile starts or stops, `boundary` at the latest."""
    ends = (profiled.start, profiled.stop) if profiled else ()
    return min([boundary, *(end for end in ends if end > step)])


@contextlib.contextmanager
def profile_steps(folder: str, profiled: ProfiledSteps | None) -> Iterator[Callable[[int], None]]:
    """A function that is to be called with every step's number at which the loop is not on the device, from the first.

    The profile is written to plugins/profile/ in `folder`, TensorBoard's. That of a run that ends before is dropped.
    """
    import tensorflow as tf  # What reads the flag does without.

    local, running = fs.local_scratch(folder), False

    def at_step(step: int) -> None:
        nonlocal running
        if profiled and not running and profiled.start <= step < profiled.stop:
            tf.profiler.experimental.start(local)
            running = True
        elif profiled and running and step >= profiled.stop:
            tf.profiler.experimental.stop()
            running = False
            if local != folder:
                fs.copy_folder(fs.join(local, "plugins"), fs.join(folder, "plugins"))
            _LOG.info("profile of the steps %d to %d: tensorboard --logdir=%s", profiled.start + 1, step, folder)

    try:
        yield at_step
    finally:
        if running:
            tf.profiler.experimental.stop(save=False)

"""Where the package's progress and warnings go: standard error, plain for people, with absl's severities in a service.

Modules log to logging.getLogger(__name__). What other packages log stays hidden, unless --verbosity asks for it.
"""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator

from absl import logging as absl_logging

PACKAGE_LOGGER = logging.getLogger("trainer")
# Vertex AI and AI Platform set one of these in every job. Their log agents read the severity off absl's prefix.
SERVICE_VARIABLES = ("CLOUD_ML_JOB_ID", "AIP_MODEL_DIR")


class PlainFormatter(logging.Formatter):
    """The message alone; a warning or an error has its level before it."""

    def format(self, record: logging.LogRecord) -> str:
        message = super().format(record)
        return message if record.levelno < logging.WARNING else f"{record.levelname.lower()}: {message}"


def configure(verbosity: int | None = None) -> None:
    """Set up logging for a command. `verbosity` is absl's --verbosity, None if it was not given."""
    PACKAGE_LOGGER.setLevel(logging.INFO)
    absl_logging.set_verbosity(absl_logging.ERROR if verbosity is None else verbosity)
    if verbosity is not None:
        level = absl_logging.converter.absl_to_standard(verbosity)
        PACKAGE_LOGGER.setLevel(min(level, logging.ERROR))  # An exit code other than 0 always has its message.
    if any(os.environ.get(name) for name in SERVICE_VARIABLES):
        absl_logging.use_absl_handler()
        return
    _show_plainly()


def _show_plainly() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(PlainFormatter())
    PACKAGE_LOGGER.handlers = [handler]
    PACKAGE_LOGGER.propagate = False


@contextlib.contextmanager
def shown_for_a_call() -> Iterator[None]:
    """Until the block ends, progress and warnings are shown as by a command, unless the program has set logging up.

    Also a decorator. At the end, logging is as it was.
    """
    if logging.root.handlers or PACKAGE_LOGGER.handlers:
        yield
        return
    level, propagate = PACKAGE_LOGGER.level, PACKAGE_LOGGER.propagate
    # What Python uses where there is no handler. With it, absl's first message does not set the root logger up.
    last_resort = logging.lastResort or logging.NullHandler()
    logging.root.addHandler(last_resort)
    PACKAGE_LOGGER.setLevel(logging.INFO)
    _show_plainly()
    try:
        yield
    finally:
        logging.root.removeHandler(last_resort)
        PACKAGE_LOGGER.handlers = []
        PACKAGE_LOGGER.propagate = propagate
        PACKAGE_LOGGER.setLevel(level)

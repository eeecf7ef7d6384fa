"""How long a failure of storage is retried.

STORAGE_RETRY_SECONDS (60): the longest time in seconds that an operation on a bucket may take to fail. A variable and
not a flag, since the process that renews a lease, and that which checks an export, inherit it.
"""

import os
from typing import TYPE_CHECKING

from trainer.errors import Problem

if TYPE_CHECKING:
    from google.api_core.retry import Retry

RETRY_VARIABLE = "STORAGE_RETRY_SECONDS"
DEFAULT_RETRY_S = 60.0
MIN_RETRY_S = 2.0  # In less time not even a healthy connection's first reply arrives.


def find_retry_problem() -> Problem | None:
    """What is wrong with STORAGE_RETRY_SECONDS; None if nothing is."""
    value = os.environ.get(RETRY_VARIABLE, str(DEFAULT_RETRY_S))
    try:
        if float(value) >= MIN_RETRY_S and float(value) != float("inf"):
            return None
    except ValueError:
        pass
    return Problem(RETRY_VARIABLE, f"be a number of seconds, at least {MIN_RETRY_S:.0f}", repr(value))


def retry_seconds() -> float:
    """STORAGE_RETRY_SECONDS; the default in place of a wrong value, which check_installation refuses later."""
    return DEFAULT_RETRY_S if find_retry_problem() else float(os.environ.get(RETRY_VARIABLE, DEFAULT_RETRY_S))


def request_timeout_s() -> float:
    """How long Google's client waits for a connection, and for each next byte."""
    return max(1.0, retry_seconds() / 10)


def google_retry(timeout_s: float | None = None) -> "Retry":
    """Google's own choice of which errors to retry, for `timeout_s` seconds (default: STORAGE_RETRY_SECONDS)."""
    from google.cloud.storage.retry import DEFAULT_RETRY

    return DEFAULT_RETRY.with_delay(initial=0.5, maximum=8.0, multiplier=2.0).with_timeout(
        (timeout_s or retry_seconds()) - request_timeout_s()
    )

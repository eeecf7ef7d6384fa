"""How long a failure of storage is retried: one setting, for TensorFlow's gs:// client and for Google's.

STORAGE_RETRY_SECONDS (60): the longest time in seconds that an operation on a bucket may take to fail. A variable and
not a flag, since TensorFlow reads its own settings once, while it is imported, and an export's process inherits them.
"""

import os
from typing import TYPE_CHECKING

from trainer.errors import Problem

if TYPE_CHECKING:
    from google.api_core.retry import Retry

RETRY_VARIABLE = "STORAGE_RETRY_SECONDS"
DEFAULT_RETRY_S = 60.0
MIN_RETRY_S = 2.0  # In less time not even a healthy connection's first reply arrives.
# TensorFlow's attempts at one request, after the first. Each may hang for a twelfth of the setting, and the delay
# before it grows: 1, 2, 4, 8, 8 eightieths of the setting, and up to a second at random. With the default that is 56 s
# if every attempt hangs, and 20 s if each is refused. With a setting of a few seconds, a hang takes about 10 s more.
TENSORFLOW_RETRIES = 5
# The read buffer of an open file. TensorFlow's own 64 MB take 1 GB for 16 shards.
READ_BLOCK_MB = 8


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


def tensorflow_variables() -> dict[str, str]:
    """The variables to set before TensorFlow is imported."""
    delay_us, idle_timeout_s = int(retry_seconds() / 80 * 1e6), str(max(1, round(retry_seconds() / 12)))
    return {
        "GCS_RETRY_CONFIG_MAX_RETRIES": str(TENSORFLOW_RETRIES),
        "GCS_RETRY_CONFIG_INIT_DELAY_TIME_US": str(delay_us),
        "GCS_RETRY_CONFIG_MAX_DELAY_TIME_US": str(8 * delay_us),
        # The time without a single byte sent or received. A request as a whole keeps TensorFlow's limit of an hour.
        "GCS_REQUEST_IDLE_TIMEOUT_SECS": idle_timeout_s,
        "GCS_REQUEST_CONNECTION_TIMEOUT_SECS": idle_timeout_s,
        "GCS_READ_CACHE_BLOCK_SIZE_MB": str(READ_BLOCK_MB),
        # No cache: a stale size would truncate a file that another process has written.
        "GCS_STAT_CACHE_MAX_AGE": "0",
        "GCS_MATCHING_PATHS_CACHE_MAX_AGE": "0",
        "GCS_READ_CACHE_MAX_STALENESS": "0",
    }


def request_timeout_s() -> float:
    """How long Google's client waits for a connection, and for each next byte."""
    return max(1.0, retry_seconds() / 10)


def google_retry(timeout_s: float | None = None) -> "Retry":
    """Google's own choice of which errors to retry, for `timeout_s` seconds (default: STORAGE_RETRY_SECONDS)."""
    from google.cloud.storage.retry import DEFAULT_RETRY

    return DEFAULT_RETRY.with_delay(initial=0.5, maximum=8.0, multiplier=2.0).with_timeout(
        (timeout_s or retry_seconds()) - request_timeout_s()
    )

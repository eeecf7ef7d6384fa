"""How long storage that fails is tried again: one setting, for TensorFlow's gs:// client and for Google's alike.

STORAGE_RETRY_SECONDS (60): the longest that one operation on a bucket may take to fail, in seconds. A variable and not
a flag, since TensorFlow reads its own settings once, while it is imported, and an export's own process has to inherit
them.
"""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from google.api_core.retry import Retry

RETRY_VARIABLE = "STORAGE_RETRY_SECONDS"
DEFAULT_RETRY_S = 60.0
MIN_RETRY_S = 2.0  # below this not even a healthy connection's first reply is waited for
# TensorFlow's attempts at one request, after the first. Each may hang for a twelfth of the setting and waits longer
# than the one before: 1, 2, 4, 8, 8 eightieths of it, and up to a second at random. By the default that is 56 s where
# every attempt hangs, and 20 s where each is refused; of a setting of a few seconds, a hang takes some 10 s more.
TENSORFLOW_RETRIES = 5
# A file open for reading keeps a block of this many megabytes, TensorFlow's own 64 of them being 1 GB for 16 shards.
READ_BLOCK_MB = 8


def find_problem() -> str | None:
    """What is wrong with the setting; None if nothing is."""
    value = os.environ.get(RETRY_VARIABLE, str(DEFAULT_RETRY_S))
    try:
        if float(value) >= MIN_RETRY_S and float(value) != float("inf"):
            return None
    except ValueError:
        pass
    return f"{RETRY_VARIABLE} must be a number of seconds, at least {MIN_RETRY_S:.0f}. Received: {value!r}."


def retry_seconds() -> float:
    """The setting; the default in the place of one that is refused later, with a message."""
    return DEFAULT_RETRY_S if find_problem() else float(os.environ.get(RETRY_VARIABLE, DEFAULT_RETRY_S))


def tensorflow_variables() -> dict[str, str]:
    """TensorFlow's variables, to be set before it is imported."""
    step, patience = int(retry_seconds() / 80 * 1e6), str(max(1, round(retry_seconds() / 12)))
    return {
        "GCS_RETRY_CONFIG_MAX_RETRIES": str(TENSORFLOW_RETRIES),
        "GCS_RETRY_CONFIG_INIT_DELAY_TIME_US": str(step),
        "GCS_RETRY_CONFIG_MAX_DELAY_TIME_US": str(8 * step),
        # Seconds in which not one byte comes or goes; the limits of a whole request stay TensorFlow's own, an hour.
        "GCS_REQUEST_IDLE_TIMEOUT_SECS": patience,
        "GCS_REQUEST_CONNECTION_TIMEOUT_SECS": patience,
        "GCS_READ_CACHE_BLOCK_SIZE_MB": str(READ_BLOCK_MB),
        # What another process has written is seen at once: a stale size would cut the file.
        "GCS_STAT_CACHE_MAX_AGE": "0",
        "GCS_MATCHING_PATHS_CACHE_MAX_AGE": "0",
        "GCS_READ_CACHE_MAX_STALENESS": "0",
    }


def request_timeout_s() -> float:
    """Seconds to wait for a connection, and for each next byte, of Google's client."""
    return max(1.0, retry_seconds() / 10)


def google_retry(within: float | None = None) -> "Retry":
    """Google's own choice of what is worth another try, until `within` seconds (default: the setting) are over."""
    from google.cloud.storage.retry import DEFAULT_RETRY

    return DEFAULT_RETRY.with_delay(initial=0.5, maximum=8.0, multiplier=2.0).with_timeout(
        (within or retry_seconds()) - request_timeout_s()
    )

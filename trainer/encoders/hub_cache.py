"""tensorflow-hub's cache of SavedModels: the folder of a handle, its download, and the lock of another download."""

import contextlib
import hashlib
import logging
import os
import shlex
import socket
import tempfile
import time
import urllib.error
from collections.abc import Iterator

from trainer.encoders import download_problems
from trainer.encoders.saved_model_files import find_broken_file, find_missing_file, find_model_folder
from trainer.errors import Problem, UserError
from trainer.storage import fs

# The longest silence of the Hub's server. urllib has no limit of its own, and dropped packets cost 143 s.
NETWORK_TIMEOUT_S = 15.0
# The longest time without a new byte in another process's download. tensorflow-hub waits ten minutes, in silence.
LOCK_TIMEOUT_S = 30.0
LOCK_POLL_S = 0.5

_LOG = logging.getLogger(__name__)


def cache_folder(handle: str) -> str:
    """The folder in which tensorflow-hub keeps the SavedModel of exactly this handle: a trailing slash makes another.

    Source: _module_dir in tensorflow_hub/compressed_module_resolver.py, tfhub_cache_dir in resolver.py.
    """
    root = os.environ.get("TFHUB_CACHE_DIR") or os.path.join(
        os.environ.get("TMPDIR") or tempfile.gettempdir(), "tfhub_modules"
    )
    return fs.join(root, hashlib.sha1(handle.encode()).hexdigest())


@contextlib.contextmanager
def _network_timeout() -> Iterator[None]:
    previous = socket.getdefaulttimeout()
    socket.setdefaulttimeout(NETWORK_TIMEOUT_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(previous)


def _read_lock(lock: str) -> str | None:
    """The content of a lock file, HOST.PID.ID; None if there is none."""
    try:
        return fs.read_bytes(lock).decode(errors="replace")
    except FileNotFoundError:
        return None


def _count_bytes(folder: str) -> int:
    """The bytes of all files in a folder; 0 if it does not exist."""
    paths = [fs.join(folder, name) for name in fs.list_names(folder)] if fs.is_folder(folder) else []
    return sum(_count_bytes(path) if fs.is_folder(path) else fs.size(path) for path in paths)


def wait_for_lock(handle: str, flag: str, cached: str) -> None:
    """Return once no other process downloads `handle` to the folder `cached`: at once if none does.

    Raises UserError if a download makes no progress for LOCK_TIMEOUT_S: one that was killed leaves its lock.
    Source: atomic_download in tensorflow_hub/resolver.py. The lock is the file `cached`.lock with the content
    HOST.PID.ID, and the download is in the folder `cached`.ID.tmp until it is complete.
    """
    lock, received = f"{cached}.lock", -1
    while (content := _read_lock(lock)) is not None:
        host, process, identity = ["unknown", "unknown", *content.rsplit(".", 2)][-3:]
        with contextlib.suppress(FileNotFoundError):  # The download may end between any two of these lines.
            if received < 0:
                message = (
                    "%s is being downloaded by process %s on host %s; waiting while that makes progress (lock: %s)"
                )
                _LOG.info(message, handle, process, host, lock)
            if (size := _count_bytes(f"{cached}.{identity}.tmp")) != received:
                received, silent_since = size, time.monotonic()
            elif time.monotonic() - silent_since > LOCK_TIMEOUT_S:
                age = "" if fs.in_bucket(lock) else f" {time.time() - os.path.getmtime(lock):.0f} s ago"
                raise UserError(
                    Problem(
                        flag,
                        "name a SavedModel that no other process is downloading, or one whose download makes progress",
                        f"{handle}, locked by {lock}, which process {process} on host {host} wrote{age}; nothing was "
                        f"downloaded in the last {LOCK_TIMEOUT_S:.0f} s",
                        f"If that process no longer runs, remove its lock: rm {shlex.quote(lock)}. Then run the same "
                        "command again.",
                    )
                )
        time.sleep(LOCK_POLL_S)


def find_cached(handle: str, flag: str) -> str | None:
    """The folder of a handle's SavedModel in the cache; None if there is none.

    Raises UserError for an incomplete one.
    """
    cached = cache_folder(handle)
    if not fs.exists(cached):
        return None
    folder = find_model_folder(cached)
    if missing := find_missing_file(folder):
        raise UserError(download_problems.describe_incomplete(flag, handle, folder, missing, [cached]))
    return folder


def download(handle: str, flag: str) -> str:
    """The folder of a handle's SavedModel in the Hub's cache, downloaded unless it is there already.

    `flag` is the one that names the handle. Raises UserError if the download fails, is not a complete SavedModel, or is
    locked by another process.
    """
    if folder := find_cached(handle, flag):
        return folder
    import tensorflow as tf
    import tensorflow_hub as hub

    cached = cache_folder(handle)
    try:
        wait_for_lock(handle, flag, cached)
        with _network_timeout():
            cached = str(hub.resolve(handle))
    except UserError:
        raise
    except Exception as error:  # urllib, tarfile and the lock of the cache raise errors of many types
        place = f"The cache folder {cached} (TFHUB_CACHE_DIR={os.environ.get('TFHUB_CACHE_DIR', '')!r})"
        status = error.code if isinstance(error, urllib.error.HTTPError) else None
        advice = download_problems.WRITE_ADVICE if isinstance(error, tf.errors.OpError) else ""
        raise UserError(download_problems.describe_failure(flag, handle, place, error, status, advice)) from None
    folder = find_model_folder(cached)
    if not fs.in_bucket(folder) and (defect := find_broken_file(folder)):
        for path in (cached, f"{cached}.descriptor.txt"):
            fs.remove(path)
        raise UserError(download_problems.describe_wrong_download(flag, handle, defect))
    return folder

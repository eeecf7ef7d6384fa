"""tensorflow-hub's cache of SavedModels: the folder of a handle, its download, and the lock of another download."""

import contextlib
import hashlib
import logging
import os
import shlex
import socket
import tempfile
import time
from collections.abc import Iterator

from trainer.encoders.embedded import make_command
from trainer.errors import Problem, UserError
from trainer.storage import fs

# The longest silence of the Hub's server. urllib has no limit of its own, and dropped packets cost 143 s.
NETWORK_TIMEOUT_S = 15.0
# The longest time without a new byte in another process's download. tensorflow-hub waits ten minutes, in silence.
LOCK_TIMEOUT_S = 30.0
LOCK_POLL_S = 0.5

_LOG = logging.getLogger(__name__)


def is_saved_model(folder: str) -> bool:
    return fs.exists(fs.join(folder, "saved_model.pb"))


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


def download(handle: str, flag: str) -> str:
    """The folder of a handle's SavedModel in the Hub's cache, downloaded unless it is there already.

    `flag` is the one that names the handle. Raises UserError if the download fails or is locked by another process.
    """
    cached = cache_folder(handle)
    if is_saved_model(cached):
        return cached
    import tensorflow_hub as hub

    wait_for_lock(handle, flag, cached)
    try:
        with _network_timeout():
            folder = str(hub.resolve(handle))
    except Exception as error:  # urllib, tarfile and the lock of the cache raise errors of many types
        raise UserError(
            Problem(
                flag,
                "name a SavedModel that is in the Hub's cache or can be downloaded",
                f"{handle}. The cache folder {cached} (TFHUB_CACHE_DIR={os.environ.get('TFHUB_CACHE_DIR', '')!r}) has "
                f"no saved_model.pb, and the download failed with {type(error).__name__}: {error}",
                f"Download it where the network allows and copy it to that folder, or set {flag} to the folder of a "
                f"SavedModel, or use the embedded encoder: {make_command('minilm')}.",
            )
        ) from None
    if not is_saved_model(folder):
        received = f"{handle}, whose folder {folder} holds {', '.join(fs.list_names(folder)[:5]) or 'nothing'}"
        advice = "Remove that folder and download it again, or move the SavedModel's files to it."
        raise UserError(Problem(flag, "name a download with saved_model.pb at its top", received, advice))
    return folder

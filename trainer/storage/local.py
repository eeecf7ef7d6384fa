"""Files on this machine. `gcs` has the same functions for buckets; `fs` chooses between the two."""

import atexit
import contextlib
import errno
import fcntl
import functools
import json
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from typing import IO

from trainer.errors import Problem, UserError
from trainer.storage import disk_lease, shared_disk

LOCK_FILE = ".lock"

exists, is_folder, size, list_names = os.path.exists, os.path.isdir, os.path.getsize, os.listdir
copy = shutil.copyfile


def make_folder(path: str) -> None:
    os.makedirs(path, exist_ok=True)


def list_files(folder: str) -> list[str]:
    return [
        os.path.relpath(os.path.join(parent, name), folder) for parent, _, names in os.walk(folder) for name in names
    ]


def remove(path: str) -> None:
    if is_folder(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        with contextlib.suppress(FileNotFoundError):
            os.remove(path)


def read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def write(path: str, data: bytes) -> None:
    """Write a temporary file and rename it: a reader sees the old file or the new one, never a part of either."""
    temporary = f"{path}.partial"
    with open(temporary, "wb") as file:
        file.write(data)
    os.replace(temporary, path)


def describe_process() -> dict[str, str]:
    """What a lock says of its holder, this process."""
    return {"host": socket.gethostname(), "pid": str(os.getpid()), "since": time.strftime("%Y-%m-%d %H:%M:%S")}


def locked_error(folder: str, holder: str) -> UserError:
    """The error for a model_dir that another process has locked."""
    received, advice = f"{folder}, held by {holder}", "Wait for it to end, or choose another --model_dir."
    return UserError(Problem("--model_dir", "be used by one run at a time", received, advice))


@contextlib.contextmanager
def lock_folder(folder: str) -> Iterator[None]:
    """Lock an existing folder for this process. Raises UserError, naming the holder, if another process has it.

    The kernel's lock (flock) ends with the process, however that ends. It is all on a disk of this machine. On a disk
    that other machines may use, which do not all see that lock, `disk_lease` comes in addition.
    """
    path = os.path.join(folder, LOCK_FILE)
    holder = describe_process()
    with open(path, "a+") as file, contextlib.ExitStack() as stack:
        if shared_disk.is_shared(folder):
            mount = shared_disk.mount_identity(folder)
            lease = disk_lease.hold_lease(folder, holder, mount, lambda: _try_lock(file), file.fileno())
            other = stack.enter_context(lease)
        else:
            other = None if _try_lock(file) and _is_file_at(file, path) else ""
        if other is not None:
            file.seek(0)
            raise locked_error(folder, other or file.read().strip() or "another process")
        file.truncate(0)
        json.dump(holder, file)
        file.flush()
        try:
            yield
        finally:
            if is_folder(folder) and set(os.listdir(folder)) <= {LOCK_FILE, disk_lease.LEASE_FILE}:
                stack.close()  # The run was refused before it wrote: leave no empty model_dir.
                os.remove(path)
                with contextlib.suppress(OSError):  # NFS keeps a removed file's other name until it is closed.
                    os.rmdir(folder)


def _is_file_at(file: IO[str], path: str) -> bool:
    """Whether an open file still is the one at `path`. The process that had its lock may have removed it."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def _try_lock(file: IO[str]) -> bool | None:
    """Whether this process has the kernel's lock on an open file. None if its file system has no locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            return None
        raise
    return True


_PROCESS_FOLDERS: list[str] = []


@functools.cache
def process_folder(parent: str) -> str:
    """A new folder in `parent` that is removed when this process ends, or by the next process that asks for one.

    A process that is killed loses the kernel's lock on its own. A folder gets its name when it is locked.
    """
    # By the name, no folder of another machine is touched: locks do not pass every mount.
    prefix = f"hubtune-{shared_disk.mount_identity(parent).partition('/')[0]}-"
    with contextlib.suppress(OSError):  # Some let nobody list their folder of temporary files.
        for name in os.listdir(parent):
            if name.startswith(prefix):
                _remove_if_unlocked(os.path.join(parent, name))
    unlocked = tempfile.mkdtemp(prefix="hubtune-", dir=parent)
    folder = os.path.join(parent, prefix + os.path.basename(unlocked).removeprefix("hubtune-"))
    with contextlib.suppress(OSError):  # Without locks no other process removes it.
        fcntl.flock(os.open(unlocked, os.O_RDONLY), fcntl.LOCK_EX)  # Open until this process ends.
    os.rename(unlocked, folder)
    _PROCESS_FOLDERS.append(folder)
    return folder


@atexit.register
def remove_process_folders() -> None:
    """Remove this process's folders. For one that ends without its exit handlers."""
    for folder in _PROCESS_FOLDERS:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_if_unlocked(folder: str) -> None:
    """Remove a folder that this user has made, if no process has a lock on it."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            if os.fstat(descriptor).st_uid == os.geteuid():
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(descriptor)

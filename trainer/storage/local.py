"""Files on this machine. `gcs` has the same functions for buckets; `fs` chooses between the two."""

import contextlib
import errno
import fcntl
import json
import os
import shutil
import socket
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
            other = None if _try_lock(file) else ""
        if other is not None:
            file.seek(0)
            raise locked_error(folder, other or file.read().strip() or "another process")
        file.truncate(0)
        json.dump(holder, file)
        file.flush()
        try:
            yield
        finally:
            if set(os.listdir(folder)) <= {LOCK_FILE, disk_lease.LEASE_FILE}:
                stack.close()  # The run was refused before it wrote: leave no empty model_dir.
                os.remove(path)
                with contextlib.suppress(OSError):  # NFS keeps a removed file's other name until it is closed.
                    os.rmdir(folder)


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

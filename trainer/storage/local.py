"""Files on this machine. `gcs` has the same functions for buckets; `fs` chooses between the two."""

import contextlib
import fcntl
import json
import os
import shutil
import socket
import time
from collections.abc import Iterator

from trainer.errors import Problem, UserError

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
    """Lock an existing folder for this process. The kernel releases the lock when the process ends, however it ends."""
    path = os.path.join(folder, LOCK_FILE)
    with open(path, "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise locked_error(folder, file.read().strip() or "another process") from None
        file.truncate(0)
        json.dump(describe_process(), file)
        file.flush()
        try:
            yield
        finally:
            if os.listdir(folder) == [LOCK_FILE]:  # The run was refused before it wrote: leave no empty model_dir.
                os.remove(path)
                os.rmdir(folder)

"""The one door to files: a path may be local or gs://.

What is written appears whole or not at all: a local file under a temporary name first, then renamed; an object as the
service has it. What is in a bucket is `buckets`' business; the rest is TensorFlow's file layer.
"""

import contextlib
import fcntl
import json
import os
import socket
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any

import google_crc32c

from trainer.storage import gcs, lease


def _gfile() -> Any:
    import tensorflow as tf  # takes 3 s: not for --help

    return tf.io.gfile


def join(folder: str, *names: str) -> str:
    return os.path.join(folder, *names)


def join_inside(folder: str, name: str) -> str:
    """The path in `folder` of a name that a manifest, a list or a bucket holds.

    Raises ValueError, naming it, if it leads out of the folder: by its letters, or by a link on this disk.
    """
    path = join(folder, name)
    leaves = not name or name.startswith("/") or ".." in name.split("/") or any(c in name for c in "\\\0")
    if not leaves and not in_bucket(folder):
        root = os.path.realpath(folder)
        leaves = not os.path.realpath(path).startswith(root.rstrip("/") + "/")
    if leaves:
        raise ValueError(f"A name in {folder} must stay in that folder. Received: {name!r}. It was not followed.")
    return path


def in_bucket(path: str) -> bool:
    return gcs.is_gcs_path(path)


def exists(path: str) -> bool:
    """Raises OSError where a bucket cannot say: a failure is not taken for "no"."""
    return gcs.exists(path) if in_bucket(path) else bool(_gfile().exists(path))


def is_folder(path: str) -> bool:
    return gcs.is_folder(path) if in_bucket(path) else bool(_gfile().isdir(path))


def size(path: str) -> int:
    return gcs.size(path) if in_bucket(path) else int(_gfile().stat(path).length)


def make_folder(path: str) -> None:
    if in_bucket(path):
        gcs.check_bucket_exists(path)
    else:
        _gfile().makedirs(path)


def list_names(folder: str) -> list[str]:
    """The names in a folder, sorted; folders have no slash."""
    return gcs.list_names(folder) if in_bucket(folder) else sorted(_gfile().listdir(folder))


def remove(path: str) -> None:
    """Remove a file or a folder with all it holds; nothing if it is not there."""
    if in_bucket(path):
        gcs.remove(path)
    elif is_folder(path):
        _gfile().rmtree(path)
    elif exists(path):
        _gfile().remove(path)


def replace_folder(source: str, target: str) -> None:
    """Put `source` in the place of `target`. A reader sees the old folder, none, or the new one, never a mixture.

    Where one is in a bucket it is copied, what makes it whole last, and `source` removed after that.
    """
    remove(target)
    if in_bucket(source) or in_bucket(target):
        copy_folder(source, target)
        remove(source)
    else:
        _gfile().rename(source, target, overwrite=True)


def _files(folder: str) -> list[str]:
    """The files of a folder by their paths in it, in the order in which they are to be written."""
    if in_bucket(folder):
        return gcs.list_files(folder)
    walked = [(top, name) for top, _, names in _gfile().walk(folder) for name in names]
    return gcs.in_write_order([os.path.relpath(join(top, name), folder) for top, name in walked])


def copy_folder(source: str, target: str) -> None:
    for name in _files(source):
        path = join_inside(target, name)  # an object's name may hold anything
        if in_bucket(source) or in_bucket(target):
            gcs.copy(join(source, name), path)
        else:
            make_folder(os.path.dirname(path))
            _gfile().copy(join(source, name), path, overwrite=True)


def local_copy(path: str, only: Sequence[str] | None = None) -> str:
    """A local path to the same file or folder: itself, or a copy of what is in a bucket, held against its checksums.

    For what TensorFlow or others would read without. `only`: the files of a folder that are wanted. A copy lives as
    long as the process. Raises OSError if it is not there.
    """
    if not in_bucket(path):
        return path
    copied = join(local_scratch(path), os.path.basename(path.rstrip("/")))
    if only is not None:
        for name in only:
            gcs.copy(join(path, name), join(copied, name))
    elif is_folder(path):
        copy_folder(path, copied)
    else:
        gcs.copy(path, copied)
    return copied


def local_scratch(path: str) -> str:
    """A local folder for what belongs to `path`: `path` itself, or one that lives as long as the process."""
    if not in_bucket(path):
        return path
    held = tempfile.TemporaryDirectory(prefix="hubtune-")
    _COPIES.append(held)
    return held.name


_COPIES: list[tempfile.TemporaryDirectory[str]] = []  # each is removed when the process ends


def read_bytes(path: str) -> bytes:
    if in_bucket(path):
        return gcs.read(path)
    with _gfile().GFile(path, "rb") as file:
        data: bytes = file.read()
        return data


def read_text(path: str) -> str:
    return read_bytes(path).decode("utf-8")


def write_bytes(path: str, data: bytes) -> None:
    """Write a file whole: whoever reads `path` sees what was there before, or this."""
    if in_bucket(path):
        gcs.write(path, data)
        return
    temporary = f"{path}.partial"
    with _gfile().GFile(temporary, "wb") as file:
        file.write(data)
    _gfile().rename(temporary, path, overwrite=True)


def write_text(path: str, text: str) -> None:
    write_bytes(path, text.encode("utf-8"))


def crc32c(data: bytes) -> int:
    return int(google_crc32c.value(data))


@contextlib.contextmanager
def exclusive_lock(folder: str) -> Iterator[None]:
    """Hold `folder` (made if need be) for this process alone.

    The kernel releases the lock when its holder ends, however it ends; `lease` has what holds a folder in a bucket.
    Raises ValueError, naming the holder, if another process has it.
    """
    make_folder(folder)
    if in_bucket(folder):
        with lease.hold_lease(folder):
            yield
        return
    with open(join(folder, ".lock"), "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise ValueError(
                f"--model_dir must be used by one run at a time. Received: {folder}, held by "
                f"{file.read().strip() or 'another process'}. "
                "Wait for it to end, or choose another --model_dir."
            ) from None
        file.truncate(0)
        json.dump({"host": socket.gethostname(), "pid": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}, file)
        file.flush()
        try:
            yield
        finally:
            if os.listdir(folder) == [".lock"]:  # refused before it began: leave no folder that looks like a run
                os.remove(join(folder, ".lock"))
                os.rmdir(folder)

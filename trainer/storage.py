"""The one door to files. TensorFlow's file layer underneath, so that a path may be local or gs://.

What is written appears whole or not at all: to a temporary name first, then renamed.
"""

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from typing import Any

import google_crc32c


def _gfile() -> Any:
    import tensorflow as tf  # takes 3 s: not for --help

    return tf.io.gfile


def join(folder: str, *names: str) -> str:
    return os.path.join(folder, *names)


def exists(path: str) -> bool:
    return bool(_gfile().exists(path))


def is_folder(path: str) -> bool:
    return bool(_gfile().isdir(path))


def size(path: str) -> int:
    return int(_gfile().stat(path).length)


def make_folder(path: str) -> None:
    _gfile().makedirs(path)


def names(folder: str) -> list[str]:
    """The names in a folder, sorted, without the slash that gs:// gives to folders."""
    return sorted(name.rstrip("/") for name in _gfile().listdir(folder))


def remove(path: str) -> None:
    """Remove a file or a folder with all it holds; nothing if it is not there."""
    if is_folder(path):
        _gfile().rmtree(path)
    elif exists(path):
        _gfile().remove(path)


def rename(source: str, target: str) -> None:
    _gfile().rename(source, target, overwrite=True)


def replace_folder(source: str, target: str) -> None:
    """Put `source` in the place of `target`. A reader sees the old folder, none, or the new one, never a mixture."""
    remove(target)
    rename(source, target)


def copy_folder(source: str, target: str) -> None:
    for folder, _, files in _gfile().walk(source):
        to = join(target, os.path.relpath(folder, source)) if folder.rstrip("/") != source.rstrip("/") else target
        make_folder(to)
        for name in files:
            _gfile().copy(join(folder, name), join(to, name), overwrite=True)


def read_bytes(path: str) -> bytes:
    with _gfile().GFile(path, "rb") as file:
        data: bytes = file.read()
        return data


def read_text(path: str) -> str:
    return read_bytes(path).decode("utf-8")


def write_bytes(path: str, data: bytes) -> None:
    """Write a file whole: whoever reads `path` sees what was there before, or this."""
    temporary = f"{path}.partial"
    with _gfile().GFile(temporary, "wb") as file:
        file.write(data)
    rename(temporary, path)


def write_text(path: str, text: str) -> None:
    write_bytes(path, text.encode("utf-8"))


def crc32c(data: bytes) -> int:
    return int(google_crc32c.value(data))


@contextlib.contextmanager
def locked(folder: str) -> Iterator[None]:
    """Hold `folder` (made if need be) for this process alone; one in a bucket is not held yet.

    The kernel releases the lock when its holder ends, however it ends. Raises ValueError, naming the
    holder, if another process has it.
    """
    make_folder(folder)
    if "://" in folder:
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

"""The filesystem layer: every path may be local or in a bucket (gs://).

What is written appears complete or not at all. A new storage scheme is an entry of SCHEMES.
"""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

import google_crc32c

from trainer.errors import Problem, UserError
from trainer.storage import gcs, lease, local

# A path's scheme -> the module that handles its files, and the function that locks a folder.
SCHEMES = {"": (local, local.lock_folder), "gs": (gcs, lease.lock_folder)}


def _scheme(path: str) -> str:
    scheme = path.partition("://")[0] if "://" in path else ""
    if scheme not in SCHEMES:
        raise UserError(Problem("A path", "be local or begin with gs://", path))
    return scheme


def _files(path: str) -> ModuleType:
    return SCHEMES[_scheme(path)][0]


def in_bucket(path: str) -> bool:
    return _scheme(path) != ""


def join(folder: str, *names: str) -> str:
    return os.path.join(folder, *names)


def join_inside(folder: str, name: str) -> str:
    """The path in `folder` of a name that a manifest, a list or a bucket holds.

    Raises UserError for a name that leads out of the folder, by its letters or through a link on this disk.
    """
    path = join(folder, name)
    leaves = not name or name.startswith("/") or ".." in name.split("/") or any(c in name for c in "\\\0")
    if not leaves and not in_bucket(folder):
        root = os.path.realpath(folder)
        leaves = not os.path.realpath(path).startswith(root.rstrip("/") + "/")
    if leaves:
        raise UserError(Problem(f"A name in {folder}", "stay in that folder", repr(name), "It was not followed."))
    return path


def exists(path: str) -> bool:
    """Whether there is such a file or folder. Raises OSError where a bucket gives no answer: a failure is no "no"."""
    return bool(_files(path).exists(path))


def is_folder(path: str) -> bool:
    """Raises OSError where a bucket gives no answer."""
    return bool(_files(path).is_folder(path))


def size(path: str) -> int:
    """The size of a file in bytes. Raises FileNotFoundError if it does not exist."""
    return int(_files(path).size(path))


def make_folder(path: str) -> None:
    """Make a folder and those above it. A bucket has none to make."""
    _files(path).make_folder(path)


def list_names(folder: str) -> list[str]:
    """The names in a folder, sorted, those of folders without a slash. Raises FileNotFoundError if it is missing."""
    return sorted(_files(folder).list_names(folder))


def list_files(folder: str) -> list[str]:
    """The paths of all files in a folder and those in it, relative to it, sorted."""
    return sorted(_files(folder).list_files(folder))


def remove(path: str) -> None:
    """Remove a file, or a folder with its contents. Does nothing if it does not exist."""
    _files(path).remove(path)


def replace_folder(source: str, target: str) -> None:
    """Move the folder `source` to `target`. A reader of `target` sees the old folder, none, or the new one.

    If one of them is in a bucket, the files are copied, in the order of `gcs.write_order`, and then `source` removed.
    """
    remove(target)
    if in_bucket(source) or in_bucket(target):
        copy_folder(source, target)
        remove(source)
    else:
        os.rename(source, target)


def copy_folder(source: str, target: str) -> None:
    """Copy the files of a folder. Raises UserError for a name that leads out of it, as a bucket's object may have."""
    for name in sorted(_files(source).list_files(source), key=gcs.write_order):
        copy_file(join(source, name), join_inside(target, name))


def copy_file(source: str, target: str) -> None:
    """Copy a file, verified by its checksum if one of the two is in a bucket. Makes the local folder of `target`."""
    make_folder(os.path.dirname(target) or ".")
    if _scheme(source) == _scheme(target):
        _files(source).copy(source, target)
    elif in_bucket(source):
        _files(source).download(source, target)
    else:
        _files(target).upload(source, target)


def local_copy(path: str, only: Sequence[str] | None = None) -> str:
    """A local path to a file or folder: the same path, or a verified copy of what is in a bucket.

    For TensorFlow and others, which read local files alone. `only` names the files to copy of a folder. The copy lives
    as long as the process. Raises FileNotFoundError if `path` does not exist.
    """
    if not in_bucket(path):
        return path
    target = join(local_scratch(path), os.path.basename(path.rstrip("/")))
    if only is not None:
        for name in only:
            copy_file(join(path, name), join(target, name))
    elif is_folder(path):
        copy_folder(path, target)
    else:
        copy_file(path, target)
    return target


def tensorflow_path(path: str) -> str:
    """A local path to a file or folder that TensorFlow reads as it is: of what is in a bucket, a verified copy.

    TensorFlow's readers of checkpoints, and so of SavedModels, take a prefix for a pattern: below `exp [1]` or a name
    with a backslash they find nothing. Such a path is read through a link, which lives as long as the process.
    """
    path = local_copy(path)
    if not any(character in path for character in "[]*?\\"):
        return path
    link = join(make_scratch_folder(), "link")
    os.symlink(os.path.abspath(path), link)
    return link


def local_scratch(path: str) -> str:
    """A local folder for what belongs to `path`: `path` itself, or one that lives as long as the process."""
    return make_scratch_folder() if in_bucket(path) else path


def scratch_root() -> str:
    """The folder of temporary files: TMPDIR, or what the system has for them."""
    return tempfile.gettempdir()


def make_scratch_folder() -> str:
    """A new local folder that lives as long as the process."""
    folder = local.process_folder(scratch_root())
    local.make_folder(folder)  # A cleaner of temporary files may have removed it.
    return tempfile.mkdtemp(dir=folder)


def read_bytes(path: str) -> bytes:
    """A file's content, from a bucket as its checksum has it. Raises FileNotFoundError if it does not exist."""
    return bytes(_files(path).read(path))


def read_text(path: str) -> str:
    return read_bytes(path).decode("utf-8")


def write_bytes(path: str, data: bytes) -> None:
    """Write a file. A reader sees the old content or the new one, never a part of either."""
    _files(path).write(path, data)


def write_text(path: str, text: str) -> None:
    write_bytes(path, text.encode("utf-8"))


def read_json(path: str) -> dict[str, Any]:
    """The object in a JSON file. Raises json.JSONDecodeError if it does not parse."""
    content: dict[str, Any] = json.loads(read_text(path))
    return content


def write_json(path: str, content: Mapping[str, Any], *, ensure_ascii: bool = True) -> None:
    """Write an object as JSON, a key a line. `ensure_ascii` is json.dumps's."""
    write_text(path, json.dumps(content, indent=1, ensure_ascii=ensure_ascii) + "\n")


@contextlib.contextmanager
def new_file(path: str) -> Iterator[str]:
    """A local path to write to, in parts of any size. Its file becomes `path` at the end, or goes after an error."""
    folder, name = os.path.split(path)
    partial = join(local_scratch(folder), f"{name}.partial")
    try:
        yield partial
        if in_bucket(path):
            copy_file(partial, path)
        else:
            os.replace(partial, path)
    finally:
        remove(partial)


@contextlib.contextmanager
def complete_folder(target: str) -> Iterator[str]:
    """A new local folder to fill. At the end it replaces `target`, as replace_folder does, or goes after an error."""
    parent = None
    if not in_bucket(target):  # In the same file system, so that a rename puts it in place.
        parent = os.path.dirname(os.path.abspath(target))
        make_folder(parent)
    with tempfile.TemporaryDirectory(dir=parent, prefix=".partial-") as temporary:
        folder = join(temporary, "complete")
        make_folder(folder)
        yield folder
        replace_folder(folder, target)


def crc32c(data: bytes) -> int:
    return int(google_crc32c.value(data))


@contextlib.contextmanager
def exclusive_lock(folder: str) -> Iterator[None]:
    """Make a folder and lock it for this process. Raises UserError, naming the holder, if another process has it."""
    make_folder(folder)
    _, lock = SCHEMES[_scheme(folder)]
    with lock(folder):
        yield

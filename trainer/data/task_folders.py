"""The folder of one task in a source that may hold several: a folder, a .zip, or a file by itself."""

import contextlib
import dataclasses
import os
import posixpath
import zipfile
import zlib
from collections.abc import Collection, Iterator, Sequence
from typing import IO

from trainer.errors import Problem, UserError

MAX_SHOWN_FOLDERS = 5


@dataclasses.dataclass(frozen=True)
class TaskFolder:
    """A folder on the disk or in an archive."""

    source: str  # A folder, a .zip, or a file.
    path: str  # Inside the source; "" for the source itself.
    names: frozenset[str]  # Of the files in it.


def find_folder(
    source: str, files: Sequence[str], own_names: Sequence[str], other_names: Collection[str]
) -> TaskFolder:
    """The folder, at any depth, that has one of `files`: one of `own_names` if there is one, or else the least deep.

    A .zip of one of `own_names` in a folder is a source itself. Folders of `other_names` are left out. Upper or lower
    case makes no difference, and the source has the name of its file. Raises UserError if there is none, if several
    could be it, or if a .zip is damaged.
    """
    folders: dict[str, set[str]] = {}
    for path in _list_files(source):
        folders.setdefault(posixpath.dirname(path), set()).add(posixpath.basename(path))
    own, others = ({name.casefold() for name in names} for names in (own_names, other_names))
    found = {
        path: posixpath.basename(path).casefold() or _stem(os.path.abspath(source))
        for path, names in folders.items()
        if names & set(files)
    }
    candidates = [path for path, name in found.items() if name in own]
    if not candidates and os.path.isdir(source):
        paths = [posixpath.join(path, name) for path, names in folders.items() for name in names]
        archives = [path for path in paths if _is_archive(path) and _stem(path) in own]
        if archives:
            nearest = min(archives, key=lambda path: (_depth(path), path))
            return find_folder(os.path.join(source, nearest), files, own_names, other_names)
    candidates = candidates or [path for path, name in found.items() if name not in others]
    least = min(map(_depth, candidates), default=0)
    candidates = sorted(path for path in candidates if _depth(path) == least)
    required = f"hold {' or '.join(files)} of {own_names[0]}"
    if not candidates:
        shown = ", ".join(sorted(path or "the source itself" for path in found)[:MAX_SHOWN_FOLDERS])
        what = f"which has such files of others: {shown}" if shown else "which does not"
        raise UserError(Problem("--source", required, f"{source}, {what}"))
    if len(candidates) > 1:
        received = f"{source}, which has them in {', '.join(candidates[:MAX_SHOWN_FOLDERS])}"
        raise UserError(Problem("--source", required, received, "Name one of these folders."))
    return TaskFolder(source, candidates[0], frozenset(folders[candidates[0]]))


def _list_files(source: str) -> Iterator[str]:
    """The paths in a folder or a .zip, with slashes. Hidden folders are left out, and those that a Mac adds."""
    if os.path.isdir(source):
        for folder, folders, names in os.walk(source):
            folders[:] = [name for name in folders if not _is_hidden(name)]
            relative = os.path.relpath(folder, source).replace(os.sep, "/")
            yield from (posixpath.normpath(posixpath.join(relative, name)) for name in names)
    elif not os.path.exists(source):
        raise UserError(Problem("--source", "name a folder or a .zip", f"{source}, which does not exist"))
    elif _is_archive(source):
        with _damage_named(source), zipfile.ZipFile(source) as archive:
            for name in archive.namelist():
                if not name.endswith("/") and not any(map(_is_hidden, name.split("/"))):
                    yield name
    else:
        yield os.path.basename(source)


def _depth(path: str) -> int:
    """0 for the source itself, 1 for what is in it."""
    return path.count("/") + bool(path)


def _stem(path: str) -> str:
    return os.path.splitext(os.path.basename(path))[0].casefold()


def _is_hidden(name: str) -> bool:
    return name.startswith((".", "__MACOSX"))


def _is_archive(source: str) -> bool:
    return source.lower().endswith(".zip")


@contextlib.contextmanager
def _damage_named(source: str) -> Iterator[None]:
    try:
        yield
    # zipfile raises a RuntimeError for an encrypted member, NotImplementedError for a compression that it lacks.
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        received = f"{source}, which is damaged, truncated or encrypted ({error})"
        raise UserError(Problem("--source", "be a complete .zip", received, "Download it again.")) from None


@contextlib.contextmanager
def open_file(folder: TaskFolder, name: str) -> Iterator[IO[bytes]]:
    """A file of the folder, for reading. Raises UserError if there is none, or if the .zip is damaged."""
    path = posixpath.join(folder.path, name)
    if name not in folder.names:
        raise UserError(Problem("--source", f"hold {path}", f"{folder.source}, which does not"))
    if _is_archive(folder.source) and not os.path.isdir(folder.source):
        with _damage_named(folder.source), zipfile.ZipFile(folder.source) as archive, archive.open(path) as member:
            yield member
    else:
        root = folder.source if os.path.isdir(folder.source) else os.path.dirname(folder.source)
        with open(os.path.join(root, path), "rb") as file:
            yield file

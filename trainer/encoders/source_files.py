"""The files of a folder that is imported: which are there, which are pointers of Git LFS, and what is JSON."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainer.errors import Problem, UserError

_LFS_POINTER = b"version https://git-lfs."


def require_files(folder: Path, source: str, *choices: Sequence[str]) -> None:
    """Raises UserError for every choice of which the folder has no file, and for every pointer of Git LFS.

    A choice lists names of files, any one of which is enough. `source` is the flag's value, for messages.
    """
    problems = [
        Problem(source, f"name a folder with {' or '.join(names)}", f"{folder}, without it")
        for names in choices
        if not any((folder / name).is_file() for name in names)
    ]
    problems += [
        Problem(str(path), "be the file itself", "a pointer of Git LFS", "Run git lfs pull in its folder.")
        for path in sorted(folder.iterdir())
        if path.is_file() and _is_pointer(path)
    ]
    if problems:
        raise UserError(*problems)


def _is_pointer(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_LFS_POINTER)) == _LFS_POINTER


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises UserError if it holds anything else."""
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(Problem(str(path), "hold JSON", f"a file that does not parse ({error})")) from None
    if not isinstance(loaded, dict):
        raise UserError(Problem(str(path), "hold a JSON object", json.dumps(loaded)[:80]))
    return loaded

"""A mirror: a folder, local or in a bucket, with models of the Hub and Kaggle, for machines without a network.

MIRROR/SITE/PATH holds a SavedModel and, written last, sha256.json with the hash of each of its files.
"""

import hashlib
import json
import os

from trainer.encoders.handles import Handle
from trainer.errors import Problem, UserError
from trainer.storage import fs

MANIFEST = "sha256.json"
FLAG = "--encoders.mirror"


def _hash_files(folder: str) -> dict[str, str]:
    """Path in the folder -> SHA-256, in hexadecimal, of each file but the manifest."""
    hashes = {}
    for name in fs.list_files(folder):
        if name != MANIFEST:
            hashes[name] = hashlib.sha256(fs.read_bytes(fs.join(folder, name))).hexdigest()
    return hashes


def _read_manifest(folder: str) -> dict[str, str] | None:
    """The hashes that a folder of a mirror should have; None without a manifest. Raises UserError for another file."""
    path = fs.join(folder, MANIFEST)
    if not fs.exists(path):
        return None
    try:
        files = json.loads(fs.read_bytes(path))["files"]
        return {str(name): str(digest) for name, digest in files.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(Problem(path, "be the hashes of a mirror's files", "another file", _refill(""))) from None


def _refill(url: str) -> str:
    return f"Fill it again: python scripts/import_encoder.py --source=hub:{url or 'NAME'} --output=MIRROR"


def add_model(handle: Handle, folder: str, mirror: str) -> str:
    """Copy the SavedModel in the local folder `folder` to a mirror, unless it is there already; returns its folder.

    A copy that is cut off has no manifest, and is not used. Raises UserError for a handle that leads out of the mirror.
    """
    target = fs.join_inside(mirror, handle.mirror_folder)
    hashes = _hash_files(folder)
    if _read_manifest(target) == hashes:
        return target
    fs.remove(target)
    fs.copy_folder(folder, target)
    fs.write_text(fs.join(target, MANIFEST), json.dumps({"handle": handle.url, "files": hashes}, indent=2) + "\n")
    return target


def find_model(handle: Handle, mirror: str) -> str | None:
    """The local folder of a model in a mirror, or of a copy if that is in a bucket; None if the mirror lacks it.

    Reads all files. Raises UserError if they are not those of the manifest, or if there is none.
    """
    source = fs.join_inside(mirror, handle.mirror_folder)
    if not fs.is_folder(source):
        return None
    expected = _read_manifest(source)
    if expected is None:
        received = f"{source}, which lacks {MANIFEST}: its copy was cut off, or not made by import_encoder.py"
        raise UserError(Problem(FLAG, "hold a complete model for each that it holds", received, _refill(handle.url)))
    for name in expected:
        fs.join_inside(source, name)
    missing = sorted(set(expected) - set(fs.list_files(source)))
    local = source if missing else fs.local_copy(source, sorted(expected))
    found = {} if missing else _hash_files(local)
    different = missing or [name for name in {**expected, **found} if expected.get(name) != found.get(name)]
    if different:
        received = f"{os.path.join(source, different[0])}, which {'is missing' if missing else 'is another file'}"
        raise UserError(Problem(FLAG, f"hold the files of its {MANIFEST}", received, _refill(handle.url)))
    return local

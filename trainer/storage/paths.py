"""Paths as users write them, in the one form that everything below the flags expects.

`normalize_path` is applied where a path enters: to the flags of every command (`runtime.app`), to the paths of a
configuration (`config.loading`) and to a service's variables (`runtime.vertex_env`).
"""

import os
import re

from trainer.errors import Problem

AnyPath = str | os.PathLike[str]  # As Python's own functions take it.
URL_PREFIXES = ("https://", "http://")
# The start of a path of some scheme, complete or with a slash too few: gs://, s3://, file:///, gs:/. A colon elsewhere,
# as in runs/10:30, is a character of a local name.
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+|([gG][sS]):")


def normalize_path(setting: str, path: str, problems: list[Problem], *, url: bool = False) -> str:
    """The path with ~ and ~USER expanded, and without doubled or trailing slashes. "" and "-" stay.

    `setting` is the flag, key or variable that names it. Adds a problem for a path that is neither local nor gs://, or
    that no file can have, and returns that path as it is. With `url`, an http:// or https:// address is returned as it
    is. A local path keeps `..` and links; characters of patterns (`*`, `?`, `[`) are characters of a name.
    """
    try:
        path.encode()
    except UnicodeEncodeError:  # TensorFlow takes UTF-8 alone, at the first checkpoint.
        problems.append(Problem(setting, "be UTF-8", repr(path)))
        return path
    if url and path.startswith(URL_PREFIXES):
        return path
    if path.startswith("gs://"):
        return _normalize_bucket_path(setting, path, problems)
    if match := _SCHEME.match(path):
        required = "be a local path, gs://BUCKET/NAME or a URL" if url else "be a local path or gs://BUCKET/NAME"
        problems.append(Problem(setting, required, path, _advise(match[1] or match[2], path[match.end() :])))
        return path
    return _normalize_local_path(setting, path, problems)


def _advise(scheme: str, rest: str) -> str:
    if scheme.lower() == "gs":
        return f"Did you mean gs://{rest}?"
    return f"Did you mean /{rest}?" if scheme.lower() == "file" else ""


def _normalize_bucket_path(setting: str, path: str, problems: list[Problem]) -> str:
    """An object's name is taken literally by the service: a doubled slash, or `..`, would name another object."""
    bucket, _, name = path.removeprefix("gs://").partition("/")
    parts = [part for part in name.split("/") if part]
    if {".", ".."} & set(parts):
        problems.append(Problem(setting, "have no . or .. in a bucket", path))
    if not bucket or {".", ".."} & set(parts):
        return path  # The check of buckets names a missing one.
    return "/".join([f"gs://{bucket}", *parts])


def _normalize_local_path(setting: str, path: str, problems: list[Problem]) -> str:
    expanded = os.path.expanduser(path)
    if expanded == path and path.startswith("~") and not os.path.lexists(path):
        user = path.partition("/")[0]
        required = "begin with ~, or with ~USER for a user of this machine"
        problems.append(Problem(setting, required, path, f"Begin the name of a file of this folder as ./{user}."))
        return path
    collapsed = re.sub("/+", "/", expanded)
    return collapsed.rstrip("/") or collapsed

"""What a user can do about a download that failed, by the answer of the server."""

import shlex
import urllib.error

import requests

from trainer.encoders.embedded import make_command
from trainer.errors import Problem, describe_error

# By the status of the answer: https://www.rfc-editor.org/rfc/rfc9110#name-status-codes
_ADVICE = {
    401: "The server wants to know who asks: look on the model's page for what access to it needs.",
    403: "The server does not give it to you: look on the model's page whether terms are to be accepted.",
    404: "Compare the name and the version with the model's page.",
    429: "The server has had too many requests from here. Wait some minutes, then run the same command again.",
}


WRITE_ADVICE = (
    "Set TFHUB_CACHE_DIR, and KAGGLEHUB_CACHE for Kaggle, to a folder on a disk with space that can be written."
)

# urllib, which tensorflow-hub downloads with, and requests, which kagglehub does.
_UNREACHABLE = (urllib.error.URLError, TimeoutError, ConnectionError, requests.ConnectionError, requests.Timeout)


def advise(flag: str, url: str, error: Exception, status: int | None) -> str:
    """What to do about a failed download of `url`. `status`: that of the server's answer, None if there was none."""
    if status in _ADVICE:
        return _ADVICE[status]
    if status and status >= 500:
        return "The server fails. Run the same command again later."
    if not isinstance(error, _UNREACHABLE):
        if isinstance(error, OSError) and error.errno:
            return WRITE_ADVICE
        return (
            "The server sent something else than a SavedModel, or a part of one; nothing of it was kept. Run the same "
            "command again; if it happens twice, see what a browser shows at that address."
        )
    return (
        f"If this machine has no network, run python scripts/import_encoder.py --source=hub:{shlex.quote(url)} "
        f"--output=MIRROR on one that has, and give --encoders.mirror=MIRROR here; or set {flag} to the folder of a "
        f"SavedModel; or use the embedded encoder: {make_command('minilm')}."
    )


def describe_failure(
    flag: str, url: str, place: str, error: Exception, status: int | None, advice: str = ""
) -> Problem:
    """The problem of a download that failed. `place` describes the cache. `advice` replaces that of the status."""
    return Problem(
        flag,
        "name a SavedModel that is in a cache or can be downloaded",
        f"{url}. {place} has no complete SavedModel, and the download failed with {describe_error(error)}",
        advice or advise(flag, url, error, status),
    )


def describe_incomplete(flag: str, url: str, folder: str, missing: str, paths: list[str]) -> Problem:
    """The problem of a folder of a cache that lacks a file. `paths` are to be removed."""
    return Problem(
        flag,
        "name a SavedModel whose folder in the cache is complete",
        f"{url}, whose folder {folder} lacks {missing}",
        f"Remove it, and the same command downloads it again: rm -r {shlex.join(paths)}",
    )


def describe_wrong_download(flag: str, url: str, defect: str) -> Problem:
    """The problem of a download that is no SavedModel. `defect` is a clause after a comma."""
    return Problem(
        flag,
        "name a SavedModel that can be downloaded",
        f"{url}, {defect}. Nothing of it was kept",
        "Run the same command again; if it happens twice, the model on that page is another kind of file.",
    )

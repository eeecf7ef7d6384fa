"""Lock objects in a bucket: empty, described by their metadata. Of several writers the service lets one succeed.

A writer names the generation that it replaces, 0 for an object that does not exist, and each write makes another
generation. `timeout_s` is how long a request is retried, in place of STORAGE_RETRY_SECONDS.
"""

import contextlib
import json
from collections.abc import Mapping

from trainer.storage import gcs
from trainer.storage.bucket_errors import translate_errors


class LockLost(Exception):
    """The lock object is another holder's, whom the message describes, or was removed."""


def describe_holder(holder: Mapping[str, str] | None) -> str:
    """A holder for a message, without its token."""
    if holder is None:
        return "nobody: the lock object was removed"
    return json.dumps({key: value for key, value in holder.items() if key != "token"})


def read_lock(path: str, timeout_s: float | None = None) -> tuple[int, dict[str, str]] | None:
    """(the generation, the holder's description); None if it does not exist."""
    blob = gcs.blob_at(path)
    try:
        with translate_errors(path, "reading"):
            blob.reload(**gcs.request_options(timeout_s))
    except FileNotFoundError:
        return None
    return int(blob.generation), dict(blob.metadata or {})


def write_lock(path: str, holder: Mapping[str, str], generation: int, timeout_s: float | None = None) -> int | None:
    """Write it in place of this generation. Returns the new one; None if the object had another when it was written.

    None may also mean that it was written and the reply was lost: then read_lock returns `holder`.
    """
    from google.api_core.exceptions import PreconditionFailed

    blob = gcs.blob_at(path)
    blob.metadata = dict(holder)
    with translate_errors(path, "writing"):
        try:
            blob.upload_from_string("", if_generation_match=generation, **gcs.request_options(timeout_s))
        except PreconditionFailed:
            return None
    return int(blob.generation)


def renew_lock(path: str, holder: Mapping[str, str], generation: int, timeout_s: float | None = None) -> int:
    """Write this holder's lock again. Returns the new generation. Raises LockLost if it is another's, or gone."""
    written = write_lock(path, holder, generation, timeout_s)
    if written is not None:
        return written
    lock = read_lock(path, timeout_s)
    if lock is None or lock[1].get("token") != holder["token"]:
        raise LockLost(describe_holder(lock[1] if lock else None))
    return lock[0]  # It was written, and the reply was lost.


def remove_lock(path: str, generation: int) -> None:
    """Remove it if it still has this generation."""
    from google.api_core.exceptions import PreconditionFailed

    with (
        contextlib.suppress(FileNotFoundError),
        translate_errors(path, "deleting"),
        contextlib.suppress(PreconditionFailed),
    ):
        gcs.blob_at(path).delete(if_generation_match=generation, **gcs.request_options())

"""Lock objects in a bucket: empty, described by their metadata. Of several writers the service lets one succeed.

A writer names the generation that it replaces, 0 for an object that does not exist, and each write makes another
generation. `timeout_s` is how long a request is retried, in place of STORAGE_RETRY_SECONDS.
"""

import contextlib
from collections.abc import Mapping

from trainer.storage import gcs


def read_lock(path: str, timeout_s: float | None = None) -> tuple[int, dict[str, str]] | None:
    """(the generation, the holder's description); None if it does not exist."""
    blob = gcs.blob_at(path)
    try:
        with gcs.translate_errors(path, "reading"):
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
    try:
        with gcs.translate_errors(path, "writing"):
            blob.upload_from_string("", if_generation_match=generation, **gcs.request_options(timeout_s))
    except PreconditionFailed:
        return None
    return int(blob.generation)


def remove_lock(path: str, generation: int) -> None:
    """Remove it if it still has this generation."""
    from google.api_core.exceptions import PreconditionFailed

    with contextlib.suppress(PreconditionFailed, FileNotFoundError), gcs.translate_errors(path, "deleting"):
        gcs.blob_at(path).delete(if_generation_match=generation, **gcs.request_options())

"""What storage does where a path begins with gs://, through google-cloud-storage. No other module imports that.

TensorFlow's own gs:// client is left to what only TensorFlow can read and write (checkpoints, SavedModels). It
sees no difference between "not there" and "not allowed" in isdir and latest_checkpoint, checks no checksum of a plain
file, keeps sizes in a cache, and makes folders in a bucket that is missing for ever. Here each read and each write is
held against the object's CRC32C, and only a 404 means "not there".

There are no folders: an object's name holds its path. An upload is seen whole or not at all, so that a file needs no
temporary name; a folder has no such moment, so that its last file (see LAST) is what makes it one.
"""

import base64
import contextlib
import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import google_crc32c

from trainer.storage import retries

GCS_PREFIX = "gs://"
# Without its own of these a folder is taken for none: written after all else, in this order; removed before all else.
LAST_WRITTEN_FILES = ("saved_model.pb", "dataset.json")


class BucketError(OSError):
    """A bucket that cannot be used: the message names it, what was wanted of it, and what came."""


def is_gcs_path(path: str) -> bool:
    return path.startswith(GCS_PREFIX)


def split_path(path: str) -> tuple[str, str]:
    """ "gs://bucket/a/b" -> ("bucket", "a/b"). Raises ValueError if it names no bucket."""
    bucket, _, name = path.removeprefix(GCS_PREFIX).partition("/")
    if not bucket:
        raise ValueError(f"A path in a bucket must be gs://BUCKET/NAME. Received: {path!r}.")
    return bucket, name.strip("/")


@functools.cache
def client() -> Any:
    """Google's client, with whatever credentials the environment gives it: it finds and keeps them, we never do."""
    # Off Google's machines nothing answers there: two looks of 3 s at most, for Google's own three (12 s in all).
    os.environ.setdefault("GCE_METADATA_DETECT_RETRIES", "2")
    from google.cloud import storage

    return storage.Client(project="none")  # a project owns buckets; objects are reached without one


@contextlib.contextmanager
def translate_errors(path: str, doing: str) -> Iterator[None]:
    """Turn what Google's client raises, but for "not there", into BucketError."""
    import requests
    from google.api_core import exceptions
    from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError
    from google.cloud.storage.exceptions import DataCorruption, InvalidResponse

    try:
        yield
    except exceptions.NotFound as error:
        if "bucket" in error.message and "does not exist" in error.message:
            raise BucketError(missing_bucket_message(path)) from None
        raise FileNotFoundError(f"{path} is not there ({doing}).") from None
    except exceptions.Forbidden as error:
        raise BucketError(
            f"{path} must allow {doing}. Received: 403, {_short(error.message)} Grant the account that this runs as "
            "roles/storage.objectAdmin on the bucket, or name another path."
        ) from None
    except DefaultCredentialsError as error:
        received = "none." if "credentials were not found" in str(error) else _short(error)
        raise BucketError(
            f"{path} needs Google credentials. Received: {received} Run `gcloud auth application-default login`, or "
            "set GOOGLE_APPLICATION_CREDENTIALS to a service account's key file."
        ) from None
    except (exceptions.Unauthenticated, exceptions.Unauthorized):
        raise BucketError(f"{path} needs credentials that are accepted. Received: 401. Renew them.") from None
    except exceptions.PreconditionFailed:
        raise
    except (
        GoogleAuthError,
        DataCorruption,
        InvalidResponse,
        exceptions.GoogleAPIError,
        requests.RequestException,
    ) as error:
        cause = getattr(error, "cause", None) or error
        if isinstance(cause, InvalidResponse):
            what = f"status {cause.response.status_code}."
        else:
            what = f"{type(cause).__name__}: {_short(cause)}"
        raise BucketError(
            f"{path} could not be reached for {doing}. Received: {what} Run the same command again; "
            f"{retries.RETRY_VARIABLE} ({retries.retry_seconds():.0f}) is how long a failure is retried, in seconds."
        ) from None


def _short(error: object) -> str:
    return str(error).splitlines()[0][:200].rstrip(".") + "." if str(error) else ""


def missing_bucket_message(path: str) -> str:
    """What to tell of a path whose bucket is missing."""
    bucket = split_path(path)[0]
    return f"The bucket of {path} must exist. Received: gs://{bucket}, which does not. Make it, or name another path."


def _options(within: float | None = None) -> dict[str, Any]:
    return {"retry": retries.google_retry(within), "timeout": retries.request_timeout_s()}


def _blob(path: str) -> Any:
    bucket, name = split_path(path)
    return client().bucket(bucket).blob(name)


def _blobs(path: str) -> list[Any]:
    """The objects of a folder, all its folders' included. Raises BucketError if the bucket is missing."""
    bucket, name = split_path(path)
    with translate_errors(path, "listing"):
        return list(client().list_blobs(bucket, prefix=f"{name}/" if name else None, **_options()))


# --- Files ------------------------------------------------------------------------------------------


def size(path: str) -> int:
    """In bytes. Raises FileNotFoundError if there is no such object."""
    with translate_errors(path, "reading"):
        blob = _blob(path)
        blob.reload(**_options())
        return int(blob.size)


def exists(path: str) -> bool:
    """Whether there is such an object, or such a folder. Raises BucketError for any answer but yes and no."""
    try:
        if split_path(path)[1]:
            size(path)
            return True
    except FileNotFoundError:
        pass
    return is_folder(path)


def read(path: str) -> bytes:
    """The object whole, of one generation, as its checksum has it.

    Raises FileNotFoundError if it is not there; BucketError if it does not come whole within the setting's time.
    """
    from google.api_core.retry import Retry, if_exception_type
    from google.cloud.storage.exceptions import DataCorruption

    def once() -> bytes:
        blob = _blob(path)
        data: bytes = blob.download_as_bytes(checksum="crc32c", **_options())
        # Looked at once more: what the client puts together of several short replies, it gives without a check. The
        # sum is of the bytes as they are stored, which may be packed.
        if (
            not blob.content_encoding
            and blob.crc32c != base64.b64encode(google_crc32c.Checksum(data).digest()).decode()
        ):
            raise DataCorruption(None, f"{len(data)} bytes of another CRC32C than the object's.")
        return data

    with translate_errors(path, "reading"):  # a body that is damaged on its way is worth another try
        return bytes(Retry(if_exception_type(DataCorruption), initial=0.1, timeout=retries.retry_seconds())(once)())


def write(path: str, data: bytes) -> None:
    """Upload an object whole; the service refuses one whose checksum is not ours."""
    with translate_errors(path, "writing"):
        _blob(path).upload_from_string(data, "application/octet-stream", checksum="crc32c", **_options())


# --- Marks: small objects that one of several writers gets to write; `within`: seconds, instead of the setting --


def read_lock_object(path: str, within: float | None = None) -> tuple[int, dict[str, str]] | None:
    """(the generation, what it says); None if it is not there."""
    blob = _blob(path)
    try:
        with translate_errors(path, "reading"):
            blob.reload(**_options(within))
    except FileNotFoundError:
        return None
    return int(blob.generation), dict(blob.metadata or {})


def write_lock_object(path: str, says: Mapping[str, str], generation: int, within: float | None = None) -> int | None:
    """The new generation; None if the object had another generation than this (0: not there) when it was written.

    None may also mean that it was written and the reply lost: then read_mark gives what `says`.
    """
    from google.api_core.exceptions import PreconditionFailed

    blob = _blob(path)
    blob.metadata = dict(says)
    try:
        with translate_errors(path, "writing"):
            blob.upload_from_string("", if_generation_match=generation, **_options(within))
    except PreconditionFailed:
        return None
    return int(blob.generation)


def remove_lock_object(path: str, generation: int) -> None:
    """Remove it, if it still is of this generation."""
    from google.api_core.exceptions import PreconditionFailed

    with contextlib.suppress(PreconditionFailed, FileNotFoundError), translate_errors(path, "deleting"):
        _blob(path).delete(if_generation_match=generation, **_options())


# --- Folders ----------------------------------------------------------------------------------------


def check_bucket_exists(path: str) -> None:
    """Nothing to make; but raises BucketError if the bucket is missing, where TensorFlow would try for ever."""
    is_folder(path)


def is_folder(path: str) -> bool:
    bucket, name = split_path(path)
    with translate_errors(path, "listing"):
        found = client().list_blobs(bucket, prefix=f"{name}/" if name else None, max_results=1, **_options())
        return any(True for _ in found) or not name


def list_names(folder: str) -> list[str]:
    """Raises FileNotFoundError if nothing is there."""
    name = split_path(folder)[1]
    cut = len(name) + 1 if name else 0
    found = {blob.name[cut:].split("/")[0] for blob in _blobs(folder)} - {""}
    if not found and not is_folder(folder):
        raise FileNotFoundError(f"{folder} is not there (listing).")
    return sorted(found)


def _order(name: str) -> tuple[int, str]:
    """Where a file stands in the writing of its folder: those of LAST come last."""
    last = os.path.basename(name)
    return (LAST_WRITTEN_FILES.index(last) + 1 if last in LAST_WRITTEN_FILES else 0, name)


def list_files(folder: str) -> list[str]:
    """The files of a folder by their paths in it, in the order in which they are to be written."""
    name = split_path(folder)[1]
    found = [blob.name[len(name) + 1 if name else 0 :] for blob in _blobs(folder) if not blob.name.endswith("/")]
    return sorted(found, key=_order)


def in_write_order(names: Sequence[str]) -> list[str]:
    """The same files of a folder elsewhere, in the order in which they are to be written."""
    return sorted(names, key=_order)


def remove(path: str) -> None:
    """Remove an object and all below it, what makes it a folder first. Nothing if it is not there."""
    from google.api_core.exceptions import NotFound

    below = sorted(_blobs(path), key=lambda blob: _order(blob.name), reverse=True)
    with translate_errors(path, "deleting"):
        for blob in [_blob(path), *below] if split_path(path)[1] else below:
            with contextlib.suppress(NotFound):  # removed by a request whose reply was lost
                blob.delete(**_options())


def copy(source: str, target: str) -> None:
    """Copy a file, of which one or both are in a bucket; within the service where both are."""
    if is_gcs_path(source) and is_gcs_path(target):
        with translate_errors(source, f"copying to {target}"):
            to, token = _blob(target), None
            while True:  # a call copies what it can in its time
                token, _, _ = to.rewrite(_blob(source), token=token, **_options())
                if token is None:
                    return
    if is_gcs_path(target):
        write(target, Path(source).read_bytes())
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        Path(target).write_bytes(read(source))

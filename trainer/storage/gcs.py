"""Files whose path begins with gs://, through google-cloud-storage. `local` has the same functions for this machine.

TensorFlow's own gs:// client is left to what only TensorFlow can read and write (checkpoints, SavedModels). It does not
tell "does not exist" from "not allowed" in isdir and latest_checkpoint, compares no checksum of a plain file, caches
sizes, and retries without end to make a folder in a missing bucket. Here each read and each write is verified against
the object's CRC32C, and only a 404 means "does not exist".

There are no folders: an object's name holds its path. An upload appears complete or not at all, so that a file needs no
temporary name. A folder appears file by file, so that its last file (see LAST_WRITTEN_FILES) is what completes it.
"""

import base64
import contextlib
import functools
import os
import re
from collections.abc import Iterator
from typing import Any

import google_crc32c

from trainer.errors import Problem
from trainer.storage import retries

GCS_PREFIX = "gs://"
# https://cloud.google.com/storage/docs/buckets#naming
BUCKET_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*[a-z0-9]|[a-z0-9]")
# A folder without its own of these counts as missing. They are written last, in this order, and removed first.
LAST_WRITTEN_FILES = ("saved_model.pb", "dataset.json")


class BucketError(OSError):
    """A bucket that cannot be used. The arguments are those of its `problem`, whose setting is the path."""

    def __init__(self, path: str, required: str, received: str, advice: str = "") -> None:
        self.problem = Problem(path, required, received, advice)
        super().__init__(str(self.problem))


def is_gcs_path(path: str) -> bool:
    return path.startswith(GCS_PREFIX)


def split_path(path: str) -> tuple[str, str]:
    """ "gs://bucket/a/b" -> ("bucket", "a/b"). Raises BucketError if it names no bucket."""
    bucket, _, name = path.removeprefix(GCS_PREFIX).partition("/")
    if not BUCKET_NAME.fullmatch(bucket):
        raise BucketError(path, "be gs://BUCKET/NAME", f"the bucket's name {bucket!r}")
    return bucket, name.strip("/")


@functools.cache
def client() -> Any:
    """Google's client, with the credentials that it finds in the environment. They never pass through our code."""
    # Outside Google Cloud no metadata server answers: two attempts of 3 s at most, for Google's three (12 s in all).
    os.environ.setdefault("GCE_METADATA_DETECT_RETRIES", "2")
    from google.cloud import storage

    return storage.Client(project="none")  # A project owns buckets; objects are read and written without one.


@contextlib.contextmanager
def translate_errors(path: str, doing: str) -> Iterator[None]:
    """Turn what Google's client raises into FileNotFoundError, for a missing object, or BucketError."""
    import requests
    from google.api_core import exceptions
    from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError
    from google.cloud.storage.exceptions import DataCorruption, InvalidResponse

    try:
        yield
    except exceptions.PreconditionFailed:
        raise
    except exceptions.NotFound as error:
        if "bucket" in error.message and "does not exist" in error.message:
            raise missing_bucket_error(path) from None
        raise FileNotFoundError(f"{path} does not exist ({doing}).") from None
    except exceptions.Forbidden as error:
        advice = "Grant the account that this runs as roles/storage.objectAdmin on the bucket, or name another path."
        raise BucketError(path, f"allow {doing}", f"403, {_first_line(error.message)}", advice) from None
    except DefaultCredentialsError as error:
        received = "none" if "credentials were not found" in str(error) else _first_line(error)
        advice = (
            "Run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS to the key file of a "
            "service account."
        )
        raise BucketError(path, "be used with Google credentials", received, advice) from None
    except (exceptions.Unauthenticated, exceptions.Unauthorized):
        raise BucketError(path, "be used with credentials that the service accepts", "401", "Renew them.") from None
    except (
        GoogleAuthError,
        DataCorruption,
        InvalidResponse,
        exceptions.GoogleAPIError,
        requests.RequestException,
    ) as error:
        cause = getattr(error, "cause", None) or error
        status = f"status {cause.response.status_code}" if isinstance(cause, InvalidResponse) else None
        setting = f"{retries.RETRY_VARIABLE} ({retries.retry_seconds():.0f})"
        advice = f"Run the same command again. {setting} is how long a failure is retried, in seconds."
        received = status or f"{type(cause).__name__}: {_first_line(cause)}"
        raise BucketError(path, f"be reachable for {doing}", received, advice) from None


def _first_line(error: object) -> str:
    return str(error).partition("\n")[0][:200].rstrip(".")


def missing_bucket_error(path: str) -> BucketError:
    """The error for a path whose bucket does not exist."""
    received = f"no bucket gs://{split_path(path)[0]}"
    return BucketError(path, "be in a bucket that exists", received, "Make it, or name another path.")


def request_options(timeout_s: float | None = None) -> dict[str, Any]:
    """The client's arguments for one request. `timeout_s` replaces STORAGE_RETRY_SECONDS."""
    return {"retry": retries.google_retry(timeout_s), "timeout": retries.request_timeout_s()}


def blob_at(path: str) -> Any:
    """The client's object for a path. Makes no request."""
    bucket, name = split_path(path)
    return client().bucket(bucket).blob(name)


def _blobs(path: str) -> list[Any]:
    """The objects below a folder, at any depth. Raises BucketError if the bucket does not exist."""
    bucket, name = split_path(path)
    with translate_errors(path, "listing"):
        return list(client().list_blobs(bucket, prefix=f"{name}/" if name else None, **request_options()))


# --- Files ------------------------------------------------------------------------------------------


def size(path: str) -> int:
    """In bytes. Raises FileNotFoundError if there is no such object."""
    with translate_errors(path, "reading"):
        blob = blob_at(path)
        blob.reload(**request_options())
        return int(blob.size)


def exists(path: str) -> bool:
    """Whether there is such an object, or such a folder. Raises BucketError if the service gives no answer."""
    try:
        if split_path(path)[1]:
            size(path)
            return True
    except FileNotFoundError:
        pass
    return is_folder(path)


def read(path: str) -> bytes:
    """The complete object, of one generation, verified against its checksum.

    Raises FileNotFoundError if it does not exist; BucketError if no intact copy arrives within STORAGE_RETRY_SECONDS.
    """
    from google.api_core.retry import Retry, if_exception_type
    from google.cloud.storage.exceptions import DataCorruption

    def download() -> bytes:
        blob = blob_at(path)
        data: bytes = blob.download_as_bytes(checksum="crc32c", **request_options())
        # Verified here as well: the client does not verify what it joins from several truncated replies. The checksum
        # is that of the stored bytes, which may be compressed.
        if (
            not blob.content_encoding
            and blob.crc32c != base64.b64encode(google_crc32c.Checksum(data).digest()).decode()
        ):
            raise DataCorruption(None, f"{len(data)} bytes of another CRC32C than the object's.")
        return data

    retry = Retry(if_exception_type(DataCorruption), initial=0.1, timeout=retries.retry_seconds())
    with translate_errors(path, "reading"):
        return bytes(retry(download)())


def write(path: str, data: bytes) -> None:
    """Upload an object; the service refuses one whose checksum differs from ours."""
    with translate_errors(path, "writing"):
        blob_at(path).upload_from_string(data, "application/octet-stream", checksum="crc32c", **request_options())


def copy(source: str, target: str) -> None:
    """Copy an object within the service."""
    with translate_errors(source, f"copying to {target}"):
        blob, token = blob_at(target), None
        while True:  # The service may need several calls for a large object.
            token, _, _ = blob.rewrite(blob_at(source), token=token, **request_options())
            if token is None:
                return


# --- Folders ----------------------------------------------------------------------------------------


def make_folder(path: str) -> None:
    """There is nothing to make. Raises BucketError if the bucket does not exist: TensorFlow would retry without end."""
    is_folder(path)


def is_folder(path: str) -> bool:
    """Whether there are objects below. Raises BucketError if the bucket does not exist or gives no answer."""
    bucket, name = split_path(path)
    with translate_errors(path, "listing"):
        blobs = client().list_blobs(bucket, prefix=f"{name}/" if name else None, max_results=1, **request_options())
        return any(True for _ in blobs) or not name


def _names_below(folder: str) -> list[str]:
    """The objects below a folder, by their paths in it."""
    name = split_path(folder)[1]
    return [blob.name[len(name) + 1 if name else 0 :] for blob in _blobs(folder)]


def list_names(folder: str) -> list[str]:
    """Raises FileNotFoundError if the folder does not exist."""
    names = {name.split("/")[0] for name in _names_below(folder)} - {""}
    if not names and not is_folder(folder):
        raise FileNotFoundError(f"{folder} does not exist (listing).")
    return list(names)


def list_files(folder: str) -> list[str]:
    """The files of a folder, by their paths in it."""
    return [name for name in _names_below(folder) if name and not name.endswith("/")]


def write_order(name: str) -> tuple[int, str]:
    """A sort key for the files of a folder: those of LAST_WRITTEN_FILES come last."""
    file = os.path.basename(name)
    return (LAST_WRITTEN_FILES.index(file) + 1 if file in LAST_WRITTEN_FILES else 0, name)


def remove(path: str) -> None:
    """Remove an object and all below it, in the reverse of write_order. Does nothing if it does not exist."""
    from google.api_core.exceptions import NotFound

    below = sorted(_blobs(path), key=lambda blob: write_order(blob.name), reverse=True)
    with translate_errors(path, "deleting"):
        for blob in [blob_at(path), *below] if split_path(path)[1] else below:
            with contextlib.suppress(NotFound):  # An earlier request removed it, and its reply was lost.
                blob.delete(**request_options())

"""Files whose path begins with gs://, through google-cloud-storage. `local` has the same functions for this machine.

TensorFlow never sees such a path: what it reads and writes is copied here, and verified. Each read and each write is
checked against the object's CRC32C, and only a 404 means "does not exist".

There are no folders: an object's name holds its path. An upload appears complete or not at all, so that a file needs no
temporary name. A folder appears file by file, so that its last file (see LAST_WRITTEN_FILES) is what completes it.
"""

import base64
import contextlib
import os
import re
from collections.abc import Callable, Iterator
from typing import Any

import google_crc32c

from trainer.storage import retries
from trainer.storage.bucket_errors import BucketError, missing_bucket_error, translate_errors
from trainer.storage.gcs_client import client

GCS_PREFIX = "gs://"
# https://cloud.google.com/storage/docs/buckets#naming
BUCKET_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*[a-z0-9]|[a-z0-9]")
# A folder without its own of these counts as missing. They are written last, in this order, and removed first.
LAST_WRITTEN_FILES = ("saved_model.pb", "dataset.json", "config.json", "classifier.json")
CHECKSUM_BLOCK_BYTES = 1 << 20


def is_gcs_path(path: str) -> bool:
    return path.startswith(GCS_PREFIX)


def split_path(path: str) -> tuple[str, str]:
    """ "gs://bucket/a/b" -> ("bucket", "a/b"). Raises BucketError if it names no bucket."""
    bucket, _, name = path.removeprefix(GCS_PREFIX).partition("/")
    if not BUCKET_NAME.fullmatch(bucket):
        raise BucketError(path, "be gs://BUCKET/NAME", f"the bucket's name {bucket!r}")
    return bucket, name.strip("/")


def request_options(timeout_s: float | None = None) -> dict[str, Any]:
    """The client's arguments for one request. `timeout_s` replaces STORAGE_RETRY_SECONDS."""
    return {"retry": retries.google_retry(timeout_s), "timeout": retries.request_timeout_s()}


def blob_at(path: str) -> Any:
    """The client's object for a path. Makes no request."""
    bucket, name = split_path(path)
    return client().bucket(bucket).blob(name)


@contextlib.contextmanager
def _listing(path: str) -> Iterator[None]:
    """translate_errors for a listing, to which 404 means one thing in whatever words: there is no such bucket."""
    try:
        with translate_errors(path, "listing"):
            yield
    except FileNotFoundError:
        raise missing_bucket_error(path) from None


def _blobs(path: str) -> list[Any]:
    """The objects below a folder, at any depth. Raises BucketError if the bucket does not exist."""
    bucket, name = split_path(path)
    with _listing(path):
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

    def download(blob: Any) -> tuple[bytes, google_crc32c.Checksum]:
        data = blob.download_as_bytes(checksum="crc32c", **request_options())
        return data, google_crc32c.Checksum(data)

    return bytes(_download_verified(path, download))


def download(path: str, local_path: str) -> None:
    """Write the complete object to a local file, in blocks. Raises what `read` raises."""

    def download_to_file(blob: Any) -> tuple[None, google_crc32c.Checksum]:
        blob.download_to_filename(local_path, checksum="crc32c", **request_options())
        with open(local_path, "rb") as file:
            checksum = google_crc32c.Checksum()
            for _ in checksum.consume(file, CHECKSUM_BLOCK_BYTES):
                pass
        return None, checksum

    _download_verified(path, download_to_file)


def _download_verified(path: str, download: Callable[[Any], tuple[Any, google_crc32c.Checksum]]) -> Any:
    """What `download` returns of an object, once the checksum of what has arrived is the object's."""
    from google.api_core.retry import Retry, if_exception_type
    from google.cloud.storage.exceptions import DataCorruption
    from requests.exceptions import ChunkedEncodingError

    def attempt() -> Any:
        blob = blob_at(path)
        result, checksum = download(blob)
        if blob.crc32c is None:  # The service sends it with the bytes. Others tell it when they are asked.
            blob.reload(**request_options())
        # Verified here as well: the client does not verify what it joins from several truncated replies. The checksum
        # is that of the stored bytes, which may be compressed.
        if not blob.content_encoding and blob.crc32c != base64.b64encode(checksum.digest()).decode():
            raise DataCorruption(None, "what has arrived has another CRC32C than the object.")
        return result

    # The second: the client does not retry a refusal, such as 404, whose explanation was cut off.
    retried = if_exception_type(DataCorruption, ChunkedEncodingError)
    retry = Retry(retried, initial=0.1, timeout=retries.retry_seconds())
    with translate_errors(path, "reading"):
        return retry(attempt)()


def write(path: str, data: bytes) -> None:
    """Upload an object; the service refuses one whose checksum differs from ours."""
    _upload(path, lambda blob, **options: blob.upload_from_string(data, **options))


def upload(local_path: str, path: str) -> None:
    """Upload a local file, in blocks. The service refuses one whose checksum differs from ours."""
    _upload(path, lambda blob, **options: blob.upload_from_filename(local_path, **options))


def _upload(path: str, send: Callable[..., None]) -> None:
    from google.api_core.exceptions import GoogleAPICallError

    def attempt() -> None:
        send(blob_at(path), content_type="application/octet-stream", checksum="crc32c", **request_options())

    with translate_errors(path, "writing"):
        try:
            attempt()
        except GoogleAPICallError as error:
            if error.code not in (404, 410):
                raise
            attempt()  # The service may forget the session of a large upload, which then has to begin again.


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
    """There is nothing to make."""


def is_folder(path: str) -> bool:
    """Whether there are objects below. Raises BucketError if the bucket does not exist or gives no answer."""
    bucket, name = split_path(path)
    with _listing(path):
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

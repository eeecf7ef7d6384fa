"""kagglehub's cache of Kaggle's models: the folder of a handle, and its download with the user's credentials."""

import contextlib
import functools
import logging
import os
import sys
import uuid
from collections.abc import Iterator

import requests

from trainer.encoders import download_problems
from trainer.encoders.handles import FRAMEWORK, Handle
from trainer.encoders.saved_model_files import find_broken_file, find_missing_file, find_model_folder
from trainer.errors import Problem, UserError
from trainer.storage import fs

# The longest silence of Kaggle's servers. kagglehub's requests to the API have no limit of their own.
NETWORK_TIMEOUT_S = 15.0
CREDENTIALS_PAGE = "https://www.kaggle.com/settings"
# kagglehub names a folder by the handle as it was written. What it downloaded for others is found too.
_SPELLINGS = (FRAMEWORK, "TensorFlow2", "tensorflow2")


def _cache_root() -> str:
    """Source: get_cache_folder in kagglehub/config.py."""
    return os.path.abspath(os.environ.get("KAGGLEHUB_CACHE") or os.path.expanduser("~/.cache/kagglehub"))


def cache_folder(handle: Handle) -> str:
    """The folder in which kagglehub keeps a model. It is complete if FOLDER.complete exists too.

    Source: _get_model_path and _get_models_completion_marker_filepath in kagglehub/cache.py.
    """
    return fs.join(_cache_root(), "models", handle.path)


def find_cached(handle: Handle, flag: str) -> str | None:
    """The folder of a handle's SavedModel in the cache; None if there is none.

    Raises UserError for one that was downloaded completely and has lost a file.
    """
    folders = [cache_folder(handle).replace(f"/{FRAMEWORK}/", f"/{spelling}/") for spelling in _SPELLINGS]
    cached = next((path for path in folders if fs.is_folder(path) and fs.exists(f"{path}.complete")), None)
    if cached is None:
        return None
    folder = find_model_folder(cached)
    if missing := find_missing_file(folder):
        paths = [cached, f"{cached}.complete"]
        raise UserError(download_problems.describe_incomplete(flag, handle.url, folder, missing, paths))
    return folder


@contextlib.contextmanager
def _network_timeout() -> Iterator[None]:
    """kagglehub has no setting for the time that it waits for an answer of the API: without this, it is endless."""
    send = requests.Session.send
    limited = functools.partialmethod(send, timeout=NETWORK_TIMEOUT_S)
    requests.Session.send = limited  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        requests.Session.send = send  # type: ignore[method-assign]


@contextlib.contextmanager
def _new_folder(cached: str) -> Iterator[str]:
    """A new folder beside the one in the cache, which at the end goes with all that was made for it."""
    folder = f"{cached}.{uuid.uuid4().hex}.tmp"
    fs.make_folder(folder)
    try:
        yield folder
    finally:
        fs.remove(folder)
        parent = os.path.dirname(folder)
        with contextlib.suppress(OSError):  # Of the first that is not empty.
            while parent != _cache_root():
                os.rmdir(parent)
                parent = os.path.dirname(parent)


def download(handle: Handle, flag: str) -> str:
    """The folder of a handle's SavedModel in kagglehub's cache, downloaded by kagglehub unless it is there already.

    `flag` is the one that names the handle. Raises UserError if the download fails, or is not a complete SavedModel.
    """
    if folder := find_cached(handle, flag):
        return folder
    cached = cache_folder(handle)
    try:
        with _new_folder(cached) as temporary:
            received = _call_kagglehub(handle, temporary)
            if defect := find_broken_file(find_model_folder(received)):
                raise UserError(download_problems.describe_wrong_download(flag, handle.url, defect))
            if received != temporary:  # On Kaggle itself, and on Colab, the models are mounted.
                return find_model_folder(received)
            fs.remove(fs.join(temporary, ".complete"))  # How kagglehub marks what it writes outside of its cache.
            if not find_cached(handle, flag):  # Another process may have downloaded it meanwhile.
                fs.replace_folder(temporary, cached)
                fs.write_bytes(f"{cached}.complete", b"")
    except UserError:
        raise
    except Exception as error:  # requests, urllib3, zipfile, kagglehub and its parts raise errors of many types.
        raise UserError(_describe_failure(handle, flag, cached, error)) from None
    return find_model_folder(cached)


def _call_kagglehub(handle: Handle, folder: str) -> str:
    """Download a model's files to `folder`; returns where they are. Raises errors of many types."""
    import kagglehub  # Here, since it is not needed for what is cached.

    logging.getLogger("kagglehub").setLevel(logging.WARNING)
    # It prints notes on new releases, where a command's results belong.
    with _network_timeout(), contextlib.redirect_stdout(sys.stderr):
        return str(kagglehub.model_download(handle.path, output_dir=folder))


def _describe_failure(handle: Handle, flag: str, cached: str, error: Exception) -> Problem:
    response = getattr(error, "response", None)
    status = None if response is None else response.status_code
    place = f"The cache folder {cached} (KAGGLEHUB_CACHE={os.environ.get('KAGGLEHUB_CACHE', '')!r})"
    advice = _advise_access(handle) if status in (401, 403) else ""
    return download_problems.describe_failure(flag, handle.url, place, error, status, advice)


def _advise_access(handle: Handle) -> str:
    from kagglehub import config

    if config.get_kaggle_credentials():
        return (
            f"Accept the model's terms on {handle.url} with the account of your credentials (KAGGLE_USERNAME and "
            f"KAGGLE_KEY, KAGGLE_API_TOKEN, or the files in ~/.kaggle), or renew them: {CREDENTIALS_PAGE}"
        )
    return (
        "No credentials were found. Set KAGGLE_USERNAME and KAGGLE_KEY, or KAGGLE_API_TOKEN, or save kaggle.json to "
        f"~/.kaggle; all come from {CREDENTIALS_PAGE}. Accept the model's terms, if it has any, on {handle.url}"
    )

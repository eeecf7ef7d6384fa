"""Checks every path that a command is about to use, before anything is computed.

Of a bucket: does it exist, are we allowed, can what is written be deleted? Of a local path that is written: can it be
made?
"""

import concurrent.futures
import contextlib
import dataclasses
import logging
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from trainer.errors import Problem, UsageError
from trainer.storage import gcs, retries
from trainer.storage.bucket_errors import BucketError, missing_bucket_error, translate_errors
from trainer.storage.gcs_client import client

READ_PERMISSIONS = ("storage.objects.get", "storage.objects.list")
WRITE_PERMISSIONS = (*READ_PERMISSIONS, "storage.objects.create", "storage.objects.delete")
# A bucket answers within this time, or counts as out of reach.
CHECK_TIMEOUT_S = 15.0
REQUEST_TIMEOUT_S = 4.0

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class PathUse:
    """A path that a command is about to use."""

    flag: str  # As the user writes it: --data_dir, or a variable such as AIP_MODEL_DIR.
    path: str | None
    writes: bool = False
    is_file: bool = False  # A file that is written, in a folder that exists. Otherwise a folder, made if it is missing.


def in_buckets(uses: Sequence[PathUse]) -> list[PathUse]:
    """The uses whose path is in a bucket."""
    return [use for use in uses if use.path and gcs.is_gcs_path(use.path)]


def check_paths(uses: Sequence[PathUse], region: str | None = None, problems: Sequence[Problem] = ()) -> None:
    """Raises UsageError with `problems`, those that were found before, and every one that find_path_problems finds."""
    try:
        problems = [*problems, *find_path_problems(uses, lambda: region)]
    except UsageError as error:
        problems = [*problems, *error.problems]
    if problems:
        raise UsageError(*problems)


def find_path_problems(uses: Sequence[PathUse], find_region: Callable[[], str | None] = lambda: None) -> list[Problem]:
    """Check that the paths allow what the command needs. A problem's `setting` is the use's flag.

    Local paths that are only read have none: their readers say what is missing. `find_region` returns the
    accelerator's region, such as us-central1, or None. If there is a bucket it is called once, and a bucket elsewhere
    gets a warning: it works, but slowly and at a cost. Raises UsageError at once for credentials that cannot be read,
    which every bucket needs.
    """
    local = [problem for problem in map(_find_local_problem, uses) if problem]
    uses = in_buckets(uses)
    if not uses:
        return local
    try:
        with translate_errors(uses[0].path or "", "checking its bucket"):
            client()
    except BucketError as error:
        raise UsageError(_name_flag(error.problem, uses[0])) from None
    region = find_region()
    with concurrent.futures.ThreadPoolExecutor(len(uses)) as executor:  # Several take no longer than one.
        remote = [problem for problem in executor.map(lambda use: _find_problem(use, region), uses) if problem]
    return local + remote


def _find_local_problem(use: PathUse) -> Problem | None:
    """Why nothing can be written to a local path, which a run would find out at its end."""
    if not use.path or not use.writes or gcs.is_gcs_path(use.path):
        return None
    if use.is_file and os.path.isdir(use.path):
        return Problem(use.flag, "name a file", f"{use.path}, a folder")
    folder = (os.path.dirname(use.path) or ".") if use.is_file else use.path
    if use.is_file and not os.path.isdir(folder):
        return Problem(use.flag, "be in a folder that exists", use.path, f"Make {folder}, or name another.")
    while not os.path.lexists(folder):
        folder = os.path.dirname(folder) or "."
    if not os.path.isdir(folder):
        return Problem(use.flag, "be a folder, or the path of a new one", f"{use.path} ({folder} is not a folder)")
    if not os.access(folder, os.W_OK | os.X_OK):
        return Problem(use.flag, "allow writing", f"{use.path} (no permission to write in {folder})")
    return None


def _name_flag(problem: Problem, use: PathUse) -> Problem:
    """The problem of a path as that of the flag that names it."""
    return dataclasses.replace(problem, setting=use.flag, received=f"{use.path} ({problem.received})")


def _find_problem(use: PathUse, region: str | None) -> Problem | None:
    from google.api_core.exceptions import MethodNotAllowed, MethodNotImplemented, NotFound

    path, required = use.path or "", WRITE_PERMISSIONS if use.writes else READ_PERMISSIONS
    options = {
        "retry": retries.google_retry(min(CHECK_TIMEOUT_S, retries.retry_seconds())),
        "timeout": min(REQUEST_TIMEOUT_S, retries.request_timeout_s()),
    }
    granted: Sequence[str] = ()
    try:
        bucket = gcs.split_path(path)[0]
        # Another server than Google's may not know this request. Of a missing bucket the listing tells.
        unknown = contextlib.suppress(NotFound, MethodNotAllowed, MethodNotImplemented)
        with translate_errors(path, "checking its bucket"), unknown:
            granted = client().bucket(bucket).test_iam_permissions(list(required), **options)
        _try_path(use, options)
    except FileNotFoundError:
        return _name_flag(missing_bucket_error(path).problem, use)
    except BucketError as error:
        problem = _name_flag(error.problem, use)
        missing = [permission for permission in required if permission not in granted]
        if not granted or not missing or "does not have" not in problem.received:
            return problem
        allowed = f"allow {', '.join(required)} to the account that this runs as"
        return dataclasses.replace(problem, required=allowed, received=f"{path} (no {', '.join(missing)})")
    location = _find_location(bucket, path, options) if region else None
    # "US" and "EU" span several regions, and the service does not say which of them hold the objects.
    if location and region and "-" in location and location.lower() != region:
        _LOG.warning(
            "%s is in %s, the accelerator in %s: every read crosses regions, which is slow and billed. A bucket in %s "
            "avoids it.",
            *(use.flag, location.lower(), region, region),
        )
    return None


def _try_path(use: PathUse, options: Mapping[str, Any]) -> None:
    """List the path, and if it is written, write an object below it and delete that one.

    An account may have rights on a part of the bucket only, which the bucket's own answer leaves out; and a retention
    policy or a hold lets objects be written, but not replaced. Raises what translate_errors raises.
    """
    path = use.path or ""
    bucket, name = gcs.split_path(path)
    with translate_errors(path, "listing"):
        list(client().list_blobs(bucket, prefix=f"{name}/" if name else None, max_results=1, **options))
    if use.writes:
        scratch = gcs.blob_at(f"{path}{'' if use.is_file else '/'}.hubtune-check-{uuid.uuid4().hex}")
        with translate_errors(path, "writing"):
            scratch.upload_from_string("", **options)
        with (
            contextlib.suppress(FileNotFoundError),  # An earlier request deleted it, and its reply was lost.
            translate_errors(path, "deleting what was written"),
        ):
            scratch.delete(**options)


def _find_location(bucket: str, path: str, options: Mapping[str, Any]) -> str | None:
    """Where a bucket is; None if this account may not know."""
    with (
        contextlib.suppress(BucketError, FileNotFoundError),
        translate_errors(path, "reading its location"),
    ):
        return str(client().get_bucket(bucket, **options).location)
    return None

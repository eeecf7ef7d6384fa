"""A look at every bucket that a command is to use, before anything is computed: is it there, may we do as we must?"""

import concurrent.futures
import contextlib
import http.client
import os
import sys
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

from trainer.errors import UsageError
from trainer.storage import gcs, retries

READ_PERMISSIONS = ("storage.objects.get", "storage.objects.list")
WRITE_PERMISSIONS = (*READ_PERMISSIONS, "storage.objects.create", "storage.objects.delete")
# Seconds within which a bucket has answered, or is said not to.
CHECK_TIMEOUT_S = 15.0


def buckets_in(wanted: Mapping[str, tuple[str | None, bool]]) -> dict[str, tuple[str, bool]]:
    """Those of the paths that are in a bucket."""
    return {flag: (path, writes) for flag, (path, writes) in wanted.items() if path and gcs.is_gcs_path(path)}


def check_paths(wanted: Mapping[str, tuple[str | None, bool]], region: str | None = None) -> None:
    """Raises UsageError with every one of the `problems`."""
    found = find_problems(wanted, region)
    if found:
        raise UsageError(told(found))


def told(found: Mapping[str, str]) -> str:
    """Problems as a message, a line each."""
    return "\n".join(dict.fromkeys(found.values()))


def find_problems(wanted: Mapping[str, tuple[str | None, bool]], region: str | None = None) -> dict[str, str]:
    """Hold every bucket among the paths against what the run needs of it: flag -> what is wrong, for each that fails.

    `wanted`: flag, or variable in capitals -> (path, whether it is written to); local paths are passed over. `region`:
    the accelerator's, such as us-central1, where it is known; a bucket elsewhere is named on standard error, since it
    works, and costs. Raises UsageError at once where there are no credentials: looking for them takes seconds, and no
    bucket does without.
    """
    ours = buckets_in(wanted)
    if not ours:
        return {}
    try:
        with gcs.translate_errors(next(iter(ours.values()))[0], "a look at its bucket"):
            gcs.client()
    except gcs.BucketError as error:
        raise UsageError(f"{_name(next(iter(ours)))}: {error}") from None

    def problem(flag: str) -> str | None:
        path, writes = ours[flag]
        try:
            _hold(_name(flag), path, WRITE_PERMISSIONS if writes else READ_PERMISSIONS, region)
        except (OSError, ValueError) as error:
            return f"{_name(flag)}: {error}"
        return None

    with concurrent.futures.ThreadPoolExecutor(len(ours)) as side_by_side:  # so that several cost no more than one
        found = dict(zip(ours, side_by_side.map(problem, ours), strict=True))
    return {flag: what for flag, what in found.items() if what}


def _name(flag: str) -> str:
    return flag if flag.isupper() else f"--{flag}"


def _hold(name: str, path: str, needed: Sequence[str], region: str | None) -> None:
    bucket = gcs.split_path(path)[0]
    options = {
        "retry": retries.google_retry(min(CHECK_TIMEOUT_S, retries.retry_seconds())),
        "timeout": min(4.0, retries.request_timeout_s()),
    }
    try:
        with gcs.translate_errors(path, "a look at its bucket"):
            granted = gcs.client().bucket(bucket).test_iam_permissions(list(needed), **options)
    except FileNotFoundError:
        raise gcs.BucketError(gcs.missing_bucket_message(path)) from None
    missing = [permission for permission in needed if permission not in granted]
    if missing:
        raise gcs.BucketError(
            f"The account that this runs as must be allowed {', '.join(needed)} on gs://{bucket}. Received: no "
            f"{', '.join(missing)}. Grant it roles/storage.objectAdmin there, or name another {name}."
        )
    place = _region(bucket, path, options) if region else None
    # "US" and "EU" hold many regions; which of them are near is not said.
    if place and region and "-" in place and place.lower() != region:
        print(
            f"warning: {name} is in {place.lower()}, the accelerator in {region}: every read crosses regions, which "
            f"is slow and billed. A bucket in {region} avoids it.",
            file=sys.stderr,
        )


def _region(bucket: str, path: str, options: Mapping[str, Any]) -> str | None:
    """Where a bucket is; None if this account may not know."""
    with contextlib.suppress(gcs.BucketError, FileNotFoundError), gcs.translate_errors(path, "its location"):
        return str(gcs.client().get_bucket(bucket, **options).location)
    return None


# The metadata server's address; its name, metadata.google.internal, may take 20 s not to be found.
# https://cloud.google.com/compute/docs/metadata/querying-metadata
METADATA_ADDRESS = "169.254.169.254"


def machine_region() -> str | None:
    """The region of the Google machine that this runs on, such as us-central1; None if it is none, within a second."""
    if os.environ.get("NO_GCE_CHECK", "").lower() == "true":
        return None
    host = os.environ.get("GCE_METADATA_HOST", METADATA_ADDRESS)
    asked = urllib.request.Request(
        f"http://{host}/computeMetadata/v1/instance/zone", headers={"Metadata-Flavor": "Google"}
    )
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(asked, timeout=1) as reply:
            zone = reply.read(200).decode().rsplit("/", 1)[-1]
    except (OSError, ValueError, http.client.HTTPException):
        return None
    return str(zone.rsplit("-", 1)[0])

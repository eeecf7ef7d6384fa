"""A look at every bucket that a command is to use, before anything is computed: is it there, may we do as we must?"""

import contextlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from trainer import buckets, retries
from trainer.environment import UsageError

READ = ("storage.objects.get", "storage.objects.list")
WRITE = (*READ, "storage.objects.create", "storage.objects.delete")
# Seconds within which a bucket has answered, or is said not to.
WITHIN = 15.0


def buckets_in(wanted: Mapping[str, tuple[str | None, bool]]) -> dict[str, tuple[str, bool]]:
    """Those of the paths that are in a bucket."""
    return {flag: (path, writes) for flag, (path, writes) in wanted.items() if path and buckets.is_ours(path)}


def check(wanted: Mapping[str, tuple[str | None, bool]], region: str | None = None) -> None:
    """Hold every bucket among the paths against what the run needs of it.

    `wanted`: flag, or variable in capitals -> (path, whether it is written to); local paths are passed over. `region`:
    the accelerator's, such as us-central1, where it is known; a bucket elsewhere is named on standard error, since it
    works, and costs. Raises UsageError with every problem of every bucket.
    """
    found = []
    for flag, (path, writes) in buckets_in(wanted).items():
        try:
            _hold(_name(flag), path, WRITE if writes else READ, region)
        except (OSError, ValueError) as error:
            found.append(f"{_name(flag)}: {error}")
    if found:
        raise UsageError("\n".join(dict.fromkeys(found)))


def _name(flag: str) -> str:
    return flag if flag.isupper() else f"--{flag}"


def _hold(name: str, path: str, needed: Sequence[str], region: str | None) -> None:
    bucket = buckets.split(path)[0]
    options = {"retry": retries.for_google(min(WITHIN, retries.seconds())), "timeout": min(4.0, retries.timeout())}
    try:
        with buckets.said(path, "a look at its bucket"):
            granted = buckets.client().bucket(bucket).test_iam_permissions(list(needed), **options)
    except FileNotFoundError:
        raise buckets.BucketError(buckets.no_bucket(path)) from None
    missing = [permission for permission in needed if permission not in granted]
    if missing:
        raise buckets.BucketError(
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
    with contextlib.suppress(buckets.BucketError, FileNotFoundError), buckets.said(path, "its location"):
        return str(buckets.client().get_bucket(bucket, **options).location)
    return None

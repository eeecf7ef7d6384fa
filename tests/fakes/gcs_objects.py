"""Buckets and objects in memory, as Google Cloud Storage keeps and describes them."""

import base64
import dataclasses
import functools
import hashlib
import itertools
import json
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime

import google_crc32c

PAGE_SIZE = 1000  # The most names in one reply to a listing, as in the real service.
PERMISSIONS = tuple(
    f"storage.{name}"
    for name in ("buckets.get", *(f"objects.{p}" for p in ("get", "list", "create", "delete", "update")))
)
PRECONDITIONS = (
    ("GenerationMatch", 0, True),
    ("GenerationNotMatch", 0, False),
    ("MetagenerationMatch", 1, True),
    ("MetagenerationNotMatch", 1, False),
)


class ServiceError(Exception):
    """A reply that is an error, with its status code."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status, self.message = status, message


@dataclasses.dataclass
class Object:
    name: str
    data: bytes
    meta: dict
    generation: int
    metageneration: int = 1
    written: str = dataclasses.field(default_factory=lambda: datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f") + "Z")

    @functools.cached_property
    def crc32c(self) -> str:
        return base64.b64encode(google_crc32c.Checksum(self.data).digest()).decode()

    @functools.cached_property
    def md5(self) -> str:
        return base64.b64encode(hashlib.md5(self.data).digest()).decode()


@dataclasses.dataclass
class Bucket:
    name: str
    location: str = "US-CENTRAL1"
    permissions: tuple[str, ...] = PERMISSIONS
    anonymous: tuple[str, ...] | None = None  # The permissions of a caller without credentials; None: the same.
    folders: dict[str, list[str]] = dataclasses.field(default_factory=dict)  # A prefix -> permissions below it.
    token: str | None = None  # The only access token that is accepted.
    retained: bool = False  # A retention policy: no object is replaced or deleted.
    requester_pays: bool = False
    sends_hashes: bool = True  # With the bytes of an object.
    meta: dict = dataclasses.field(default_factory=dict)  # The other values that it was made with.
    objects: dict[str, Object] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Session:
    """A resumable upload that has begun."""

    bucket: str
    name: str
    query: Mapping[str, str]
    meta: dict
    data: bytes = b""
    done: dict | None = None


@dataclasses.dataclass
class Service:
    buckets: dict[str, Bucket] = dataclasses.field(default_factory=dict)
    sessions: dict[str, Session] = dataclasses.field(default_factory=dict)
    # Generations start at the clock's microseconds and grow, as the real ones do.
    numbers: itertools.count = dataclasses.field(default_factory=lambda: itertools.count(int(time.time() * 1e6)))


@dataclasses.dataclass(frozen=True)
class Request:
    method: str
    path: str  # Quoted, without the query.
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    body: bytes
    denied: tuple[str, ...] = ()  # The permissions that a fault has removed.

    def first_values(self) -> dict[str, str]:
        """The query with the first value of each name."""
        return {name: values[0] for name, values in self.query.items()}


@dataclasses.dataclass(frozen=True)
class Reply:
    status: int
    body: bytes = b""
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)


def json_reply(value: dict) -> Reply:
    return Reply(200, json.dumps(value).encode(), {"Content-Type": "application/json"})


# --- Objects as a client receives them --------------------------------------------------------------


def resource(bucket: str, stored: Object) -> dict:
    return {
        "kind": "storage#object",
        "id": f"{bucket}/{stored.name}/{stored.generation}",
        "name": stored.name,
        "bucket": bucket,
        "generation": str(stored.generation),
        "metageneration": str(stored.metageneration),
        "size": str(len(stored.data)),
        "crc32c": stored.crc32c,
        "md5Hash": stored.md5,
        "etag": f"{stored.generation}/{stored.metageneration}",
        "timeCreated": stored.written,
        "updated": stored.written,
        **{key: stored.meta[key] for key in ("contentType", "metadata") if key in stored.meta},
    }


def media(stored: Object, headers: Mapping[str, str]) -> Reply:
    """The bytes, or the requested range of them."""
    described = {
        "Content-Type": stored.meta.get("contentType") or "application/octet-stream",
        "ETag": f'"{stored.generation}"',
        "x-goog-generation": str(stored.generation),
        "x-goog-metageneration": str(stored.metageneration),
        "x-goog-hash": f"crc32c={stored.crc32c},md5={stored.md5}",
        "x-goog-stored-content-length": str(len(stored.data)),
    }
    wanted, size = re.fullmatch(r"bytes=(\d+)-(\d*)", headers.get("Range") or ""), len(stored.data)
    if not wanted:
        return Reply(200, stored.data, described)
    first, end = int(wanted[1]), min(size, int(wanted[2]) + 1) if wanted[2] else size
    if first >= size:
        return Reply(416, b"", {"Content-Range": f"bytes */{size}"})
    return Reply(206, stored.data[first:end], {**described, "Content-Range": f"bytes {first}-{end - 1}/{size}"})


# --- Objects by name --------------------------------------------------------------------------------


def find_bucket(service: Service, name: str) -> Bucket:
    if name not in service.buckets:
        raise ServiceError(404, "The specified bucket does not exist.")
    return service.buckets[name]


def describe_bucket(bucket: Bucket) -> dict:
    own = {"kind": "storage#bucket", "name": bucket.name, "location": bucket.location, "locationType": "region"}
    return {**bucket.meta, **own}


def make_bucket(service: Service, request: Request) -> Reply:
    """Make a bucket in the project of the query."""
    if "storage.buckets.create" in request.denied:
        raise ServiceError(403, "The caller does not have storage.buckets.create access to the Google Cloud project.")
    meta = {**json.loads(request.body), "projectNumber": request.first_values()["project"]}
    name, location = meta.pop("name"), meta.pop("location").upper()
    if name in service.buckets:
        raise ServiceError(409, "The requested bucket name is not available.")
    service.buckets[name] = Bucket(name, location, meta=meta)
    return json_reply(describe_bucket(service.buckets[name]))


def find_object(bucket: Bucket, name: str, query: Mapping[str, str]) -> Object:
    stored = bucket.objects.get(name)
    if stored is None or query.get("generation", str(stored.generation)) != str(stored.generation):
        raise ServiceError(404, f"No such object: {bucket.name}/{name}")
    return stored


def check_preconditions(query: Mapping[str, str], stored: Object | None, prefix: str = "if") -> None:
    """Raise 412 if a precondition fails. A name without an object has generation 0."""
    numbers = (stored.generation, stored.metageneration) if stored else (0, 0)
    for name, which, same in PRECONDITIONS:
        if prefix + name in query and (int(query[prefix + name]) == numbers[which]) != same:
            raise ServiceError(412, "At least one of the pre-conditions you specified did not hold.")


def check_retention(bucket: Bucket, name: str) -> None:
    if bucket.retained and name in bucket.objects:
        reason = f"Object '{bucket.name}/{name}' is subject to bucket's retention policy or object retention"
        raise ServiceError(403, f"{reason} and cannot be deleted or overwritten until 2030-01-01T00:00:00Z")


def put(service: Service, bucket: Bucket, name: str, data: bytes, meta: dict, query: Mapping[str, str]) -> dict:
    """Write an object if the preconditions hold and its checksums are the declared ones."""
    check_preconditions(query, bucket.objects.get(name))
    check_retention(bucket, name)
    written = Object(name, data, meta, next(service.numbers))
    for key, own in (("crc32c", written.crc32c), ("md5Hash", written.md5)):
        if meta.get(key, own) != own:
            raise ServiceError(400, f"Provided {key} {meta[key]!r} doesn't match calculated {own!r}.")
    bucket.objects[name] = written
    return resource(bucket.name, written)


def listing(bucket: Bucket, query: Mapping[str, str]) -> Reply:
    prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
    rows = []  # (name or prefix, whether it is a prefix), in order, without duplicates.
    for name in sorted(name for name in bucket.objects if name.startswith(prefix)):
        end = name.find(delimiter, len(prefix)) if delimiter else -1
        row = (name[: end + 1], True) if end >= 0 else (name, False)
        if not rows or rows[-1] != row:
            rows.append(row)
    rows = [row for row in rows if row[0] > query.get("pageToken", "")]
    page = rows[: min(PAGE_SIZE, int(query.get("maxResults", PAGE_SIZE)))]
    answer = {
        "kind": "storage#objects",
        "items": [resource(bucket.name, bucket.objects[name]) for name, is_prefix in page if not is_prefix],
        "prefixes": [name for name, is_prefix in page if is_prefix],
    }
    return json_reply(answer | ({"nextPageToken": page[-1][0]} if len(rows) > len(page) else {}))

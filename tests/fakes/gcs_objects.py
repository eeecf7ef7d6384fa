"""Buckets and objects in memory, behind as much of Google Cloud Storage's API as its two clients here use.

TensorFlow's client reads through the XML API and does the rest through JSON; google-cloud-storage does all through
JSON. A request is a Request, an answer a Reply; nothing here knows of sockets, TLS or faults.
"""

import base64
import dataclasses
import hashlib
import itertools
import json
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import unquote

import google_crc32c

PAGE = 1000  # names in an answer to a listing, as in the real service
PERMISSIONS = tuple(
    f"storage.{name}"
    for name in ("buckets.get", *(f"objects.{p}" for p in ("get", "list", "create", "delete", "update")))
)
TOKEN = {"access_token": "of-the-simulator", "expires_in": 3600, "token_type": "Bearer"}
PRECONDITIONS = (
    ("GenerationMatch", 0, True),
    ("GenerationNotMatch", 0, False),
    ("MetagenerationMatch", 1, True),
    ("MetagenerationNotMatch", 1, False),
)


class Refused(Exception):
    """An answer that is an error: its status code and the service's words."""

    def __init__(self, status: int, words: str):
        super().__init__(words)
        self.status, self.words = status, words


@dataclasses.dataclass
class Object:
    name: str
    data: bytes
    meta: dict
    generation: int
    metageneration: int = 1
    written: str = dataclasses.field(default_factory=lambda: datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f") + "Z")

    def crc32c(self) -> str:
        return base64.b64encode(google_crc32c.Checksum(self.data).digest()).decode()

    def md5(self) -> str:
        return base64.b64encode(hashlib.md5(self.data).digest()).decode()


@dataclasses.dataclass
class Bucket:
    name: str
    location: str = "US-CENTRAL1"
    permissions: tuple[str, ...] = PERMISSIONS
    meta: dict = dataclasses.field(default_factory=dict)  # what it was made with, beside its name and location
    objects: dict[str, Object] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Session:
    """A resumable upload under way."""

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
    # Generations grow from the clock's microseconds, as the real ones do.
    numbers: itertools.count = dataclasses.field(default_factory=lambda: itertools.count(int(time.time() * 1e6)))


@dataclasses.dataclass(frozen=True)
class Request:
    method: str
    path: str  # still quoted, without the query
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    body: bytes
    denied: tuple[str, ...] = ()  # permissions that a fault has taken away

    def one(self) -> dict[str, str]:
        """The query with the first value of each name."""
        return {name: values[0] for name, values in self.query.items()}


@dataclasses.dataclass(frozen=True)
class Reply:
    status: int
    body: bytes = b""
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)


def in_json(value: dict) -> Reply:
    return Reply(200, json.dumps(value).encode(), {"Content-Type": "application/json"})


# --- What an object is to a client ----------------------------------------------------------------


def resource(bucket: str, found: Object) -> dict:
    return {
        "kind": "storage#object",
        "id": f"{bucket}/{found.name}/{found.generation}",
        "name": found.name,
        "bucket": bucket,
        "generation": str(found.generation),
        "metageneration": str(found.metageneration),
        "size": str(len(found.data)),
        "crc32c": found.crc32c(),
        "md5Hash": found.md5(),
        "etag": f"{found.generation}/{found.metageneration}",
        "timeCreated": found.written,
        "updated": found.written,
        **{key: found.meta[key] for key in ("contentType", "metadata") if key in found.meta},
    }


def media(found: Object, headers: Mapping[str, str]) -> Reply:
    """The bytes, or the range of them that is asked for."""
    said = {
        "Content-Type": found.meta.get("contentType") or "application/octet-stream",
        "ETag": f'"{found.generation}"',
        "x-goog-generation": str(found.generation),
        "x-goog-metageneration": str(found.metageneration),
        "x-goog-hash": f"crc32c={found.crc32c()},md5={found.md5()}",
        "x-goog-stored-content-length": str(len(found.data)),
    }
    wanted, size = re.fullmatch(r"bytes=(\d+)-(\d*)", headers.get("Range") or ""), len(found.data)
    if not wanted:
        return Reply(200, found.data, said)
    first, end = int(wanted[1]), min(size, int(wanted[2]) + 1) if wanted[2] else size
    if first >= size:
        return Reply(416, b"", {"Content-Range": f"bytes */{size}"})
    return Reply(206, found.data[first:end], {**said, "Content-Range": f"bytes {first}-{end - 1}/{size}"})


# --- Objects by name --------------------------------------------------------------------------------


def bucket_of(service: Service, name: str) -> Bucket:
    if name not in service.buckets:
        raise Refused(404, "The specified bucket does not exist.")
    return service.buckets[name]


def about(bucket: Bucket) -> dict:
    own = {"kind": "storage#bucket", "name": bucket.name, "location": bucket.location, "locationType": "region"}
    return {**bucket.meta, **own}


def make(service: Service, request: Request) -> Reply:
    """Make a bucket, for the project that the query names."""
    if "storage.buckets.create" in request.denied:
        raise Refused(403, "The caller does not have storage.buckets.create access to the Google Cloud project.")
    meta = {**json.loads(request.body), "projectNumber": request.one()["project"]}
    name, location = meta.pop("name"), meta.pop("location").upper()
    if name in service.buckets:
        raise Refused(409, "The requested bucket name is not available.")
    service.buckets[name] = Bucket(name, location, meta=meta)
    return in_json(about(service.buckets[name]))


def found_in(bucket: Bucket, name: str, query: Mapping[str, str]) -> Object:
    found = bucket.objects.get(name)
    if found is None or query.get("generation", str(found.generation)) != str(found.generation):
        raise Refused(404, f"No such object: {bucket.name}/{name}")
    return found


def hold_to(query: Mapping[str, str], found: Object | None, prefix: str = "if") -> None:
    """Refuse with 412 where a precondition does not hold. A name without an object has generation 0."""
    numbers = (found.generation, found.metageneration) if found else (0, 0)
    for name, which, same in PRECONDITIONS:
        if prefix + name in query and (int(query[prefix + name]) == numbers[which]) != same:
            raise Refused(412, "At least one of the pre-conditions you specified did not hold.")


def put(service: Service, bucket: Bucket, name: str, data: bytes, meta: dict, query: Mapping[str, str]) -> dict:
    """Write an object whole, if the preconditions hold and the checksums that came with it are its own."""
    hold_to(query, bucket.objects.get(name))
    written = Object(name, data, meta, next(service.numbers))
    for key, own in (("crc32c", written.crc32c()), ("md5Hash", written.md5())):
        if meta.get(key, own) != own:
            raise Refused(400, f"Provided {key} {meta[key]!r} doesn't match calculated {own!r}.")
    bucket.objects[name] = written
    return resource(bucket.name, written)


def listing(bucket: Bucket, query: Mapping[str, str]) -> Reply:
    prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
    rows = []  # (name or prefix, whether it is a prefix), in order, each once
    for name in sorted(name for name in bucket.objects if name.startswith(prefix)):
        cut = name.find(delimiter, len(prefix)) if delimiter else -1
        row = (name[: cut + 1], True) if cut >= 0 else (name, False)
        if not rows or rows[-1] != row:
            rows.append(row)
    rows = [row for row in rows if row[0] > query.get("pageToken", "")]
    page = rows[: min(PAGE, int(query.get("maxResults", PAGE)))]
    answer = {
        "kind": "storage#objects",
        "items": [resource(bucket.name, bucket.objects[name]) for name, is_prefix in page if not is_prefix],
        "prefixes": [name for name, is_prefix in page if is_prefix],
    }
    return in_json(answer | ({"nextPageToken": page[-1][0]} if len(rows) > len(page) else {}))


# --- Uploads -----------------------------------------------------------------------------------------


def upload(service: Service, bucket: Bucket, request: Request) -> Reply:
    query = request.one()
    if "upload_id" in query:
        return go_on(service, bucket, request, query["upload_id"])
    if query["uploadType"] == "media":
        meta = {"contentType": request.headers.get("Content-Type")}
        return in_json(put(service, bucket, query["name"], request.body, meta, query))
    if query["uploadType"] == "multipart":
        boundary = re.search(r'boundary="?([^";]+)"?', request.headers["Content-Type"])
        _, first, second, _ = request.body.split(f"--{boundary[1]}".encode())
        meta = json.loads(first.partition(b"\r\n\r\n")[2])
        data = second.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n")
        return in_json(put(service, bucket, query.get("name") or meta["name"], data, meta, query))
    meta = json.loads(request.body) if request.body else {}
    name = query.get("name") or meta["name"]
    hold_to(query, bucket.objects.get(name))
    number = f"session-{next(service.numbers)}"
    service.sessions[number] = Session(bucket.name, name, query, meta)
    place = f"/upload/storage/v1/b/{bucket.name}/o?uploadType=resumable&upload_id={number}"
    return Reply(200, b"", {"Location": place, "X-GUploader-UploadID": number})


def go_on(service: Service, bucket: Bucket, request: Request, number: str) -> Reply:
    """A part of a resumable upload, or the question how much of it has arrived."""
    session = service.sessions.get(number)
    if session is None:
        raise Refused(404, "No such upload session.")
    if session.done:
        return in_json(session.done)
    says = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", request.headers.get("Content-Range") or "")
    if not says:
        session.data, total = request.body, str(len(request.body))
    else:
        total = says[2]
        if says[1] is not None:
            if int(says[1]) > len(session.data):
                raise Refused(400, "The part begins behind what has arrived.")
            session.data = session.data[: int(says[1])] + request.body
    if total == "*" or len(session.data) < int(total):
        return Reply(308, b"", {"Range": f"bytes=0-{len(session.data) - 1}"} if session.data else {})
    session.done = put(service, bucket, session.name, session.data, session.meta, session.query)
    return in_json(session.done)


# --- Requests ----------------------------------------------------------------------------------------


def needs(request: Request) -> str | None:
    """The permission that a request takes; None for one that takes none."""
    if "testPermissions" in request.path or request.path.endswith("/token") or "computeMetadata" in request.path:
        return None
    if request.path.startswith("/upload/") or "/rewriteTo/" in request.path or request.path.endswith("/compose"):
        return "storage.objects.create"
    if re.fullmatch(r"/storage/v1/b/[^/]+", request.path):
        return "storage.buckets.get"
    if re.fullmatch(r"/storage/v1/b/[^/]+/o", request.path):
        return "storage.objects.list"
    return "storage.objects." + {"DELETE": "delete", "PATCH": "update"}.get(request.method, "get")


def answer(service: Service, request: Request) -> Reply:
    """What the service says to a request; raises Refused where it is an error."""
    if request.path.endswith("/token"):
        return in_json(TOKEN)
    if request.path.startswith("/computeMetadata/"):
        return Reply(200, b"projects/1/zones/us-central1-b", {"Metadata-Flavor": "Google"})
    if request.path == "/storage/v1/b" and request.method == "POST":
        return make(service, request)
    of_json = re.fullmatch(
        r"(/upload|/download)?/storage/v1/b/([^/]+)(?:/(o|iam/testPermissions)(?:/([^/]+)(/.*)?)?)?", request.path
    )
    of_xml = re.fullmatch(r"/([^/]+)/(.+)", request.path)
    if not of_json and not (of_xml and request.method == "GET"):
        raise Refused(501, f"not simulated: {request.method} {request.path}")
    bucket = bucket_of(service, (of_json[2] if of_json else of_xml[1]))
    allowed = [name for name in bucket.permissions if name not in request.denied]
    if (needed := needs(request)) and needed not in allowed:
        raise Refused(403, f"The caller does not have {needed} access to the Google Cloud Storage bucket.")
    if not of_json:
        return media(found_in(bucket, unquote(of_xml[2]), request.one()), request.headers)
    kind, _, what, name, action = of_json.groups()
    if what is None:
        return in_json(about(bucket))
    if what != "o":
        return in_json({"permissions": [name for name in request.query.get("permissions", []) if name in allowed]})
    if kind == "/upload":
        return upload(service, bucket, request)
    if name is None:
        return listing(bucket, request.one())
    return on_object(service, bucket, unquote(name), action, request)


def on_object(service: Service, bucket: Bucket, name: str, action: str | None, request: Request) -> Reply:
    query = request.one()
    if action == "/compose":
        wanted = json.loads(request.body)
        parts = [found_in(bucket, part["name"], {}).data for part in wanted["sourceObjects"]]
        return in_json(put(service, bucket, name, b"".join(parts), wanted.get("destination", {}), query))
    if action:
        to = re.fullmatch(r"/rewriteTo/b/([^/]+)/o/(.+)", action)
        if not to:
            raise Refused(501, f"not simulated: {action}")
        source = found_in(bucket, name, {})
        hold_to(query, source, "ifSource")
        done = put(service, bucket_of(service, to[1]), unquote(to[2]), source.data, source.meta, query)
        sizes = {"objectSize": done["size"], "totalBytesRewritten": done["size"]}
        return in_json({"kind": "storage#rewriteResponse", "done": True, **sizes, "resource": done})
    found = found_in(bucket, name, query)
    hold_to(query, found)
    if request.method == "DELETE":
        del bucket.objects[name]
        return Reply(204)
    if request.method == "PATCH":
        found.meta, found.metageneration = found.meta | json.loads(request.body or b"{}"), found.metageneration + 1
    return media(found, request.headers) if query.get("alt") == "media" else in_json(resource(bucket.name, found))

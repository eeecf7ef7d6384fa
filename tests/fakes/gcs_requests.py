"""The part of Google Cloud Storage's JSON API that google-cloud-storage uses here: a Request to a Reply.

This module knows nothing of sockets, TLS or faults.
"""

import dataclasses
import json
import re
from urllib.parse import unquote

from fakes import gcs_objects
from fakes.gcs_objects import Bucket, Reply, Request, Service, ServiceError, Session, json_reply

TOKEN = {
    "access_token": "of-the-simulator",
    "expires_in": 3600,
    "token_type": "Bearer",
    "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
}


# --- Uploads -----------------------------------------------------------------------------------------


def upload(service: Service, bucket: Bucket, request: Request) -> Reply:
    query = request.first_values()
    if "upload_id" in query:
        return continue_upload(service, bucket, request, query["upload_id"])
    if query["uploadType"] == "media":
        meta = {"contentType": request.headers.get("Content-Type")}
        return json_reply(gcs_objects.put(service, bucket, query["name"], request.body, meta, query))
    if query["uploadType"] == "multipart":
        boundary = re.search(r'boundary="?([^";]+)"?', request.headers["Content-Type"])
        _, first, second, _ = request.body.split(f"--{boundary[1]}".encode())
        meta = json.loads(first.partition(b"\r\n\r\n")[2])
        data = second.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n")
        return json_reply(gcs_objects.put(service, bucket, query.get("name") or meta["name"], data, meta, query))
    meta = json.loads(request.body) if request.body else {}
    name = query.get("name") or meta["name"]
    gcs_objects.check_preconditions(query, bucket.objects.get(name))
    number = f"session-{next(service.numbers)}"
    service.sessions[number] = Session(bucket.name, name, query, meta)
    place = f"/upload/storage/v1/b/{bucket.name}/o?uploadType=resumable&upload_id={number}"
    return Reply(200, b"", {"Location": place, "X-GUploader-UploadID": number})


def continue_upload(service: Service, bucket: Bucket, request: Request, number: str) -> Reply:
    """Add a part of a resumable upload, or reply how much of it has arrived."""
    session = service.sessions.get(number)
    if session is None:
        raise ServiceError(404, "No such upload session.")
    if session.done:
        return json_reply(session.done)
    content_range = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", request.headers.get("Content-Range") or "")
    if not content_range:
        session.data, total = request.body, str(len(request.body))
    else:
        total = content_range[2]
        if content_range[1] is not None:
            if int(content_range[1]) > len(session.data):
                raise ServiceError(400, "The part begins after the end of what has arrived.")
            session.data = session.data[: int(content_range[1])] + request.body
    if total == "*" or len(session.data) < int(total):
        return Reply(308, b"", {"Range": f"bytes=0-{len(session.data) - 1}"} if session.data else {})
    session.done = gcs_objects.put(service, bucket, session.name, session.data, session.meta, session.query)
    return json_reply(session.done)


# --- Requests ----------------------------------------------------------------------------------------


def required_permission(request: Request) -> str | None:
    """The permission that a request requires; None if it requires none."""
    if "testPermissions" in request.path or "upload_id" in request.query:  # An upload that goes on was allowed before.
        return None
    if request.path.startswith("/upload/") or "/rewriteTo/" in request.path or request.path.endswith("/compose"):
        return "storage.objects.create"
    if re.fullmatch(r"/storage/v1/b/[^/]+", request.path):
        return "storage.buckets.get"
    if re.fullmatch(r"/storage/v1/b/[^/]+/o", request.path):
        return "storage.objects.list"
    return "storage.objects." + {"DELETE": "delete", "PATCH": "update"}.get(request.method, "get")


def addressed_name(request: Request) -> str:
    """The object, or the prefix of objects, that a request is about."""
    query = request.first_values()
    in_path = re.search(r"/o/([^/]+)", request.path)
    if in_path:
        return unquote(in_path[1])
    if request.path.startswith("/upload/") and "name" not in query:
        multipart = query["uploadType"] == "multipart"
        meta = request.body.partition(b"\r\n\r\n")[2].partition(b"\r\n--")[0] if multipart else request.body
        return str(json.loads(meta)["name"])
    return query.get("name") or query.get("prefix", "")


def check_caller(bucket: Bucket, request: Request) -> list[str]:
    """The permissions of the request's sender. Raises ServiceError if the bucket does not accept it."""
    credentials = request.headers.get("Authorization")
    if bucket.token and credentials != f"Bearer {bucket.token}":
        raise ServiceError(401, "Invalid Credentials")
    if bucket.requester_pays and not request.headers.get("X-Goog-User-Project"):
        raise ServiceError(400, "Bucket is a requester pays bucket but no user project provided.")
    anonymous = credentials is None and bucket.anonymous is not None
    granted = bucket.anonymous if anonymous else bucket.permissions
    needed = required_permission(request)
    if needed:
        name = addressed_name(request)
        below = {
            permission for prefix, more in bucket.folders.items() if name.startswith(prefix) for permission in more
        }
        if needed in request.denied or needed not in {*granted, *below}:
            caller, status = ("Anonymous caller", 401) if anonymous else ("The caller", 403)
            raise ServiceError(status, f"{caller} does not have {needed} access to the Google Cloud Storage object.")
    return [name for name in granted if name not in request.denied]


def exchange_token(request: Request) -> Reply | None:
    """A token for credentials: of a service account, a federated identity or an impersonated account."""
    if request.path.endswith("/token"):
        return json_reply(TOKEN)
    if request.path.endswith(":generateAccessToken"):
        return json_reply({"accessToken": "of-the-impersonated", "expireTime": "2099-01-01T00:00:00Z"})
    return None


def handle(service: Service, request: Request) -> Reply:
    """The service's reply to a request. Raises ServiceError for an error."""
    if token := exchange_token(request):
        return token
    if request.path.startswith("/computeMetadata/"):
        return Reply(200, b"projects/1/zones/us-central1-b", {"Metadata-Flavor": "Google"})
    if request.path == "/storage/v1/b" and request.method == "POST":
        return gcs_objects.make_bucket(service, request)
    path = re.fullmatch(
        r"(/upload|/download)?/storage/v1/b/([^/]+)(?:/(o|iam/testPermissions)(?:/([^/]+)(/.*)?)?)?", request.path
    )
    if not path:
        raise ServiceError(501, f"not simulated: {request.method} {request.path}")
    kind, bucket_name, what, name, action = path.groups()
    bucket = gcs_objects.find_bucket(service, bucket_name)
    allowed = check_caller(bucket, request)
    if what is None:
        return json_reply(gcs_objects.describe_bucket(bucket))
    if what != "o":
        return json_reply({"permissions": [name for name in request.query.get("permissions", []) if name in allowed]})
    if kind == "/upload":
        return upload(service, bucket, request)
    if name is None:
        return gcs_objects.listing(bucket, request.first_values())
    return handle_object(service, bucket, unquote(name), action, request)


def handle_object(service: Service, bucket: Bucket, name: str, action: str | None, request: Request) -> Reply:
    query = request.first_values()
    if action == "/compose":
        wanted = json.loads(request.body)
        parts = [gcs_objects.find_object(bucket, part["name"], {}).data for part in wanted["sourceObjects"]]
        return json_reply(gcs_objects.put(service, bucket, name, b"".join(parts), wanted.get("destination", {}), query))
    if action:
        to = re.fullmatch(r"/rewriteTo/b/([^/]+)/o/(.+)", action)
        if not to:
            raise ServiceError(501, f"not simulated: {action}")
        source = gcs_objects.find_object(bucket, name, {})
        gcs_objects.check_preconditions(query, source, "ifSource")
        target = gcs_objects.find_bucket(service, to[1])
        done = gcs_objects.put(service, target, unquote(to[2]), source.data, source.meta, query)
        sizes = {"objectSize": done["size"], "totalBytesRewritten": done["size"]}
        return json_reply({"kind": "storage#rewriteResponse", "done": True, **sizes, "resource": done})
    stored = gcs_objects.find_object(bucket, name, query)
    gcs_objects.check_preconditions(query, stored)
    if request.method == "DELETE":
        gcs_objects.check_retention(bucket, name)
        del bucket.objects[name]
        return Reply(204)
    if request.method == "PATCH":
        stored.meta, stored.metageneration = stored.meta | json.loads(request.body or b"{}"), stored.metageneration + 1
    if query.get("alt") != "media":
        return json_reply(gcs_objects.resource(bucket.name, stored))
    reply = gcs_objects.media(stored, request.headers)
    sent = {name: value for name, value in reply.headers.items() if bucket.sends_hashes or name != "x-goog-hash"}
    return dataclasses.replace(reply, headers=sent)

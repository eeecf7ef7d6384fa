"""The images of this checkout, built in the cloud from cloudbuild.yaml: started once for a source, then followed."""

import gzip
import hashlib
import io
import re
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from trainer.cloud.google_api import Refused, Unreached, asked, credentials
from trainer.errors import UsageError

ROOT = Path(__file__).parents[2]
IMAGES, TESTS = ("cpu", "gpu", "tpu"), ("checks", "test", "smoke")  # cloudbuild.yaml's steps
GOING = ("PENDING", "QUEUED", "WORKING")
# Seconds between two looks at a build: the first, and the longest.
SOON, LATER = 0.5, 10.0
# Seconds that a build may wait for its turn: https://cloud.google.com/build/docs/build-config-file-schema (queueTtl).
QUEUE = 3600.0
# Seconds without an answer, after which following is given up; the build goes on.
LOST = 300.0


def addresses(project: str, region: str) -> dict[str, str]:
    """cpu, gpu, tpu -> the image, such as us-central1-docker.pkg.dev/PROJECT/hubtune/hubtune-gpu:0.1.0."""
    config = _config()
    values = {**config["substitutions"], "_REGION": region, "PROJECT_ID": project}
    tags = {step["id"]: [part for part in step["args"] if part.startswith("--tag=")] for step in config["steps"]}
    return {kind: _expanded(tags[kind][0].removeprefix("--tag="), values) for kind in IMAGES}


def _config() -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((ROOT / "cloudbuild.yaml").read_text(encoding="utf-8"))
    return config


def _expanded(text: str, values: Mapping[str, str]) -> str:
    """With the substitutions put in, as Cloud Build does it."""
    return re.sub(r"\$\{(\w+)\}", lambda name: values.get(name[1], name[0]), text)


def archive(root: Path = ROOT) -> bytes:
    """The project's files (see _listed) as they are now, in a tar.gz: the same bytes for the same files."""
    names = [name for name in _listed(root) if (root / name).is_file() and not (root / name).is_symlink()]
    packed = io.BytesIO()
    with gzip.GzipFile("", "wb", fileobj=packed, mtime=0) as zipped, tarfile.open(fileobj=zipped, mode="w") as tar:
        for name in sorted(names):
            data = (root / name).read_bytes()
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o755 if (root / name).stat().st_mode & 0o100 else 0o644
            tar.addfile(entry, io.BytesIO(data))
    return packed.getvalue()


def _listed(root: Path) -> list[str]:
    """What git tracks; of a copy without its history, what .gitignore lets through. Raises UsageError without git."""
    listing = ["ls-files", "-z", "--cached"]
    found = _git(root, *listing)
    if not found:
        with tempfile.TemporaryDirectory() as empty:
            _git(root, "init", "--quiet", "--bare", empty)
            listing = [f"--git-dir={empty}", f"--work-tree={root}", "ls-files", "-z", "--others", "--exclude-standard"]
            found = _git(root, *listing)
    return [name for name in found.split("\0") if name]


def _git(root: Path, *arguments: str) -> str:
    try:
        return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, timeout=60).stdout
    except FileNotFoundError:
        raise UsageError("git must be installed: it tells the project's files from data and secrets.") from None


def mark(source: bytes) -> str:
    """The tag of every build of this source."""
    return f"source-{hashlib.sha256(source).hexdigest()[:16]}"


def build(region: str, bucket: str, kinds: Sequence[str], tests: bool, marked: str) -> dict[str, Any]:
    """A Build in the JSON mapping of its proto: cloudbuild.yaml's, with the steps that are wanted, and its source."""
    config = _config()
    wanted = (*(TESTS if tests else ()), *kinds)
    steps = [step for step in config["steps"] if step["id"] in wanted]
    arguments = {argument for step in steps for argument in step["args"]}
    return {
        **config,
        "steps": steps,
        "images": [name for name in config["images"] if f"--tag={name}" in arguments],
        "substitutions": {**config["substitutions"], "_REGION": region},
        "source": {"storageSource": {"bucket": bucket, "object": source_name(marked)}},
        "tags": ["hubtune", marked],
    }


def source_name(marked: str) -> str:
    """The object that holds the source."""
    return f"source/{marked}.tar.gz"


# --- In the cloud -------------------------------------------------------------------------------------


def builds(project: str, marked: str, fresh: bool) -> list[Any]:
    """The builds of this source, the newest first."""
    from google.cloud.devtools import cloudbuild_v1 as api

    client = api.CloudBuildClient(credentials=credentials())
    where = {"parent": f"projects/{project}/locations/global", "project_id": project, "page_size": 20}
    request = api.ListBuildsRequest(**where, filter=f'tags="{marked}"')
    doing = "a look at earlier builds"
    return [found for found in asked(client.list_builds, request, doing, project, fresh=fresh) if marked in found.tags]


def in_registry(images: Mapping[str, str], project: str, earlier: Sequence[Any]) -> list[str]:
    """The kinds of those images whose tag in the repository is of a finished build of this source."""
    from google.api_core.exceptions import NotFound
    from google.cloud import artifactregistry_v1 as api

    made = {(found.name, found.digest) for one in earlier for found in one.results.images}
    client = api.ArtifactRegistryClient(credentials=credentials())
    there = []
    for kind, address in images.items():
        host, _, repository, name = address.split("/")
        where = f"projects/{project}/locations/{host.removesuffix('-docker.pkg.dev')}/repositories/{repository}"
        package, version = name.split(":")
        request = api.GetTagRequest(name=f"{where}/packages/{package}/tags/{version}")
        try:
            tag = asked(client.get_tag, request, f"a look at the image {name}", project, but=(NotFound,))
        except NotFound:
            continue
        if (address, tag.version.rsplit("/", 1)[-1]) in made:
            there.append(kind)
    return there


def under_way(earlier: Sequence[Any], images: Iterable[str]) -> Any | None:
    """The build that is to make all of these images, and has not ended."""
    for one in earlier:
        values = {**one.substitutions, "PROJECT_ID": one.project_id}
        if one.status.name in GOING and {*images} <= {_expanded(name, values) for name in one.images}:
            return one
    return None


def start(project: str, wanted: Mapping[str, Any]) -> Any:
    """Start a build, once: where the reply is lost, the next look at the builds finds it."""
    from google.cloud.devtools import cloudbuild_v1 as api
    from google.protobuf import json_format

    message = api.Build(json_format.ParseDict(dict(wanted), api.Build.pb(api.Build())))
    parent = f"projects/{project}/locations/global"
    request = api.CreateBuildRequest(parent=parent, project_id=project, build=message)
    client = api.CloudBuildClient(credentials=credentials())
    started = asked(client.create_build, request, "starting a build", project, once=True)
    return api.BuildOperationMetadata(started.metadata).build


def follow(project: str, one: Any, say: Callable[[str], None]) -> Any:
    """The build when it has ended well; `say` is told of every step that begins or ends.

    Raises Refused if it fails, Unreached if nothing is heard of it for LOST seconds. It waits as long as the build may
    queue and run, no longer.
    """
    from google.cloud.devtools import cloudbuild_v1 as api

    client = api.CloudBuildClient(credentials=credentials())
    name = f"projects/{project}/locations/global/builds/{one.id}"
    request = api.GetBuildRequest(name=name, project_id=project, id=one.id)
    begun = heard = time.monotonic()
    pause = SOON
    told: dict[str, str] = {}
    while True:
        try:
            one = asked(client.get_build, request, f"a look at the build {one.id}", project)
            heard = time.monotonic()
        except Unreached as error:
            if time.monotonic() - heard > LOST:
                raise
            print(f"warning: {error}", file=sys.stderr)
        for step in one.steps:
            if told.get(step.id, "QUEUED") != step.status.name != "STATUS_UNKNOWN":
                told[step.id] = step.status.name
                say(f"{step.id}: {step.status.name.lower()}")
        if one.status == api.Build.Status.SUCCESS:
            return one
        if one.status.name not in GOING:
            raise Refused(_failure(one, told))
        if time.monotonic() - begun > QUEUE + one.timeout.total_seconds() + LOST:
            raise Unreached(
                f"The build {one.id} must have ended by now. Received: {one.status.name}. See {one.log_url}"
            )
        time.sleep(pause)
        pause = min(LATER, pause * 1.5)


def _failure(one: Any, told: Mapping[str, str]) -> str:
    steps = ", ".join(
        f"{step} {status.lower()}" for step, status in told.items() if status not in ("SUCCESS", "WORKING")
    )
    why = " ".join((one.failure_info.detail or one.status_detail).split()) or "nothing more"
    # Before the first step and after the last, the source is fetched and the images are pushed.
    rights = (
        "The account that builds needs roles/logging.logWriter, roles/artifactregistry.writer and "
        "roles/storage.objectViewer: https://cloud.google.com/build/docs/cloud-build-service-account-updates."
    )
    return (
        f"The build {one.id} must succeed. Received: {one.status.name}{f' ({steps})' if steps else ''}, {why}. Its "
        f"log: {one.log_url} {'' if steps else rights}".rstrip()
    )

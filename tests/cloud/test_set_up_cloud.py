"""scripts/set_up_cloud.py as a user runs it, against Google's services on the loopback, in their own messages."""

import contextlib
import itertools
import json
import subprocess
import time
from dataclasses import dataclass, field

import grpc
import pytest
import requests
import yaml
from fakes import grpc_services
from fakes.grpc_services import Hang, Method, Refusal
from google.cloud import artifactregistry_v1 as registry
from google.cloud import service_usage_v1 as usage
from google.cloud.devtools import cloudbuild_v1 as cloudbuild
from google.longrunning import operations_pb2
from google.protobuf import any_pb2, json_format
from helpers import python

from trainer.cloud import image_builds, project_setup

HOSTS = [f"{name}.googleapis.com" for name in ("serviceusage", "artifactregistry", "cloudbuild")]
FLAGS = ["--project=my-project", "--region=europe-west4", "--bucket=made-bucket"]
ADDRESS = "europe-west4-docker.pkg.dev/my-project/hubtune"
NAMES = [f"{ADDRESS}/hubtune:0.1.0", f"{ADDRESS}/hubtune-gpu:0.1.0", f"{ADDRESS}/hubtune-tpu:0.1.0"]
NOT_FOUND = Refusal(grpc.StatusCode.NOT_FOUND, "Requested entity was not found.")


def as_build(mapping: dict) -> cloudbuild.Build:
    return cloudbuild.Build(json_format.ParseDict(mapping, cloudbuild.Build.pb(cloudbuild.Build())))


def packed(message) -> any_pb2.Any:
    found = any_pb2.Any()
    found.Pack(type(message).pb(message))
    return found


@dataclass
class Cloud:
    """What the services of one project hold. Its methods are their answers."""

    enabled: set[str] = field(default_factory=lambda: {"storage.googleapis.com"})
    repositories: dict[str, registry.Repository] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    builds: list[cloudbuild.Build] = field(default_factory=list)
    looks: int = 2  # at a build before it has ended
    ends: str = "SUCCESS"
    numbers: itertools.count = field(default_factory=itertools.count)

    def services(self, request):
        states = {True: usage.State.ENABLED, False: usage.State.DISABLED}
        return usage.BatchGetServicesResponse(
            services=[{"name": name, "state": states[name.rsplit("/")[-1] in self.enabled]} for name in request.names]
        )

    def enable(self, request):
        self.enabled |= set(request.service_ids)
        done = packed(usage.BatchEnableServicesResponse())
        return operations_pb2.Operation(name="operations/enable", done=True, response=done)

    def repository(self, request):
        return self.repositories.get(request.name, NOT_FOUND)

    def make_repository(self, request):
        name = f"{request.parent}/repositories/{request.repository_id}"
        self.repositories[name] = request.repository
        return operations_pb2.Operation(name=name)  # not done yet

    def operation(self, request):
        done = packed(self.repositories[request.name])
        return operations_pb2.Operation(name=request.name, done=True, response=done)

    def tag(self, request):
        version = self.tags.get(request.name)
        return registry.Tag(name=request.name, version=version) if version else NOT_FOUND

    def start(self, request):
        made = cloudbuild.Build(request.build)
        made.id, made.project_id, made.status = f"build-{next(self.numbers)}", request.project_id, "QUEUED"
        made.log_url = f"https://console.cloud.google.com/cloud-build/builds/{made.id}"
        self.builds.insert(0, made)
        metadata = packed(cloudbuild.BuildOperationMetadata(build=made))
        return operations_pb2.Operation(name=f"operations/build/{made.id}", metadata=metadata)

    def build(self, request):
        (found,) = (one for one in self.builds if one.id == request.id)
        self.looks -= 1
        found.status = "WORKING" if self.looks > 0 else self.ends
        for step in found.steps:
            step.status = found.status
        if self.looks <= 0 and self.ends == "SUCCESS":
            self.push(found)
        return found

    def push(self, build) -> None:
        values = {**build.substitutions, "PROJECT_ID": build.project_id}
        for image in build.images:
            for key, value in values.items():
                image = image.replace(f"${{{key}}}", value)
            name, version = image.rsplit("/", 1)[-1].split(":")
            digest = f"sha256:{len(self.tags):064x}"
            package = f"projects/my-project/locations/europe-west4/repositories/hubtune/packages/{name}"
            self.tags[f"{package}/tags/{version}"] = f"{package}/versions/{digest}"
            build.results.images.append(cloudbuild.BuiltImage(name=image, digest=digest))

    def list(self, request):
        asked = request.filter.removeprefix('tags="').removesuffix('"')
        return cloudbuild.ListBuildsResponse(builds=[one for one in self.builds if asked in one.tags])

    def methods(self, **instead) -> dict[str, Method]:
        """By path. `instead`: other answers, by the method's name."""
        service = "/google.api.serviceusage.v1.ServiceUsage"
        artifacts = "/google.devtools.artifactregistry.v1.ArtifactRegistry"
        cloud_build = "/google.devtools.cloudbuild.v1.CloudBuild"
        found = {
            f"{service}/BatchGetServices": (usage.BatchGetServicesRequest, self.services),
            f"{service}/BatchEnableServices": (usage.BatchEnableServicesRequest, self.enable),
            f"{artifacts}/GetRepository": (registry.GetRepositoryRequest, self.repository),
            f"{artifacts}/CreateRepository": (registry.CreateRepositoryRequest, self.make_repository),
            f"{artifacts}/GetTag": (registry.GetTagRequest, self.tag),
            "/google.longrunning.Operations/GetOperation": (operations_pb2.GetOperationRequest, self.operation),
            f"{cloud_build}/ListBuilds": (cloudbuild.ListBuildsRequest, self.list),
            f"{cloud_build}/CreateBuild": (cloudbuild.CreateBuildRequest, self.start),
            f"{cloud_build}/GetBuild": (cloudbuild.GetBuildRequest, self.build),
        }
        answers = {path: instead.get(path.rsplit("/", 1)[-1], [answer]) for path, (_, answer) in found.items()}
        return {path: Method(request, answers[path]) for path, (request, _) in found.items()}


@contextlib.contextmanager
def at(simulator, cloud: Cloud, **instead):
    with grpc_services.serving(simulator, HOSTS, cloud.methods(**instead)) as server:
        yield server


def set_up(simulator, *flags: str, **environment: str) -> subprocess.CompletedProcess:
    variables = simulator.environment(**environment)
    return python("scripts/set_up_cloud.py", *FLAGS, *flags, env=variables, timeout=60)


def uploads(simulator) -> list[dict]:
    return [line for line in simulator.log() if "wrote" in line]


def about_bucket(simulator) -> dict:
    proxy, address = f"http://127.0.0.1:{simulator.port}", "https://storage.googleapis.com/storage/v1/b/made-bucket"
    return requests.get(address, proxies={"https": proxy}, verify=simulator.folder / "ca.pem", timeout=10).json()


def test_a_project_is_set_up_and_then_left_as_it_is(simulator):
    cloud = Cloud()
    with at(simulator, cloud) as server:
        done = set_up(simulator)
        assert (done.returncode, done.stdout.split()) == (0, NAMES), done.stderr
        (enabled,) = server.requests("BatchEnableServices")
        assert enabled.parent == "projects/my-project"
        assert set(enabled.service_ids) == set(project_setup.SERVICES) - {"storage.googleapis.com"}
        (repository,) = server.requests("CreateRepository")
        assert repository.parent == "projects/my-project/locations/europe-west4"
        assert (repository.repository_id, repository.repository.format_.name) == ("hubtune", "DOCKER")
        (started,) = server.requests("CreateBuild")
        assert [step.id for step in started.build.steps] == ["checks", "test", "smoke", "cpu", "gpu", "tpu"]
        assert started.build.substitutions["_REGION"] == "europe-west4"
        assert started.build.source.storage_source.bucket == "made-bucket"
        bucket = about_bucket(simulator)
        assert bucket["location"] == "EUROPE-WEST4"
        assert bucket["iamConfiguration"]["uniformBucketLevelAccess"] == {"enabled": True}
        assert bucket["iamConfiguration"]["publicAccessPrevention"] == "enforced"
        (source,) = uploads(simulator)
        assert source["wrote"].endswith(started.build.source.storage_source.object_)
        assert "cpu: working" in done.stderr
        assert "cpu: success" in done.stderr

        wrote = len(uploads(simulator))
        again = set_up(simulator)
        assert (again.returncode, again.stdout) == (0, done.stdout), again.stderr
        for once in ("BatchEnableServices", "CreateRepository", "CreateBuild"):
            assert len(server.requests(once)) == 1
        assert len(uploads(simulator)) == wrote
        assert len([line for line in simulator.log() if "POST" in line["request"] and "/v1/b?" in line["request"]]) == 1


def test_a_build_under_way_is_followed_and_an_image_of_another_source_is_built_anew(simulator):
    cloud = Cloud(enabled=set(project_setup.SERVICES))
    marked = image_builds.mark(image_builds.archive())
    wanted = image_builds.build("europe-west4", "made-bucket", ["cpu"], False, marked)
    build = as_build(wanted)
    cloud.start(cloudbuild.CreateBuildRequest(project_id="my-project", build=build))
    with at(simulator, cloud) as server:
        done = set_up(simulator, "--images=cpu", "--notests")
        assert (done.returncode, done.stdout.split()) == (0, NAMES[:1]), done.stderr
        assert "under way" in done.stderr
        assert not server.requests("CreateBuild")

        cloud.tags = {name: version.replace("sha256:0", "sha256:1") for name, version in cloud.tags.items()}
        cloud.looks = 1
        assert set_up(simulator, "--images=cpu", "--notests").returncode == 0
        (started,) = server.requests("CreateBuild")
        assert [step.id for step in started.build.steps] == ["cpu"]
        assert len(started.build.images) == 1


def test_a_build_that_fails_is_named_with_its_steps_and_its_log(simulator):
    with at(simulator, Cloud(ends="FAILURE", looks=1)):
        done = set_up(simulator, "--images=cpu")
    assert (done.returncode, done.stdout) == (1, "")
    assert "error: The build build-0 must succeed. Received: FAILURE (checks failure," in done.stderr
    assert "https://console.cloud.google.com/cloud-build/builds/build-0" in done.stderr


DENIED, DISABLED = grpc.StatusCode.PERMISSION_DENIED, "Service Usage API has not been used in project 1 before"


@pytest.mark.parametrize(
    ("refusal", "message"),
    [
        (Refusal(DENIED, "Permission denied on project."), "roles/serviceusage.serviceUsageAdmin"),
        (Refusal(DENIED, DISABLED, "SERVICE_DISABLED"), "gcloud services enable"),
        (
            Refusal(grpc.StatusCode.FAILED_PRECONDITION, "Billing account for project '1' is not found."),
            "https://console.cloud.google.com/billing/linkedaccount?project=my-project",
        ),
        (Hang(30), "Run the same command again"),
    ],
)
def test_a_refusal_is_one_message_within_15_seconds(simulator, refusal, message):
    with at(simulator, Cloud(), BatchGetServices=[refusal]):
        begun = time.monotonic()
        done = set_up(simulator)
        assert time.monotonic() - begun < 15
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: a look at the services of my-project must be allowed. Received: ")
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_without_credentials_one_message_says_how_to_get_them(simulator, tmp_path):
    begun = time.monotonic()
    done = set_up(simulator, GOOGLE_APPLICATION_CREDENTIALS="", HOME=str(tmp_path))
    assert time.monotonic() - begun < 15
    assert done.returncode == 1
    assert done.stderr.startswith("error: Google credentials are required")
    assert "gcloud auth application-default login" in done.stderr


def test_credentials_that_cannot_be_renewed_are_said_at_once(simulator, tmp_path):
    expired = {
        "type": "authorized_user",
        "client_id": "i",
        "client_secret": "planted-secret",
        "refresh_token": "planted",
    }
    (tmp_path / "user.json").write_text(json.dumps(expired))
    with at(simulator, Cloud()), simulator.faults({"do": "status", "status": 400, "match": "/token", "times": -1}):
        done = set_up(simulator, GOOGLE_APPLICATION_CREDENTIALS=str(tmp_path / "user.json"))
    assert (done.returncode, done.stdout) == (1, "")
    assert "Renew the credentials: `gcloud auth application-default login`." in done.stderr
    assert "planted" not in done.stderr


def test_a_build_whose_reply_was_lost_is_found_by_the_next_run(simulator):
    cloud = Cloud(enabled=set(project_setup.SERVICES))

    def lost(request):
        cloud.start(request)
        return Refusal(grpc.StatusCode.UNAVAILABLE, "Socket closed")

    looks = [Refusal(grpc.StatusCode.UNAVAILABLE, "Socket closed"), cloud.build]
    with at(simulator, cloud, CreateBuild=[lost], GetBuild=looks) as server:
        first = set_up(simulator)
        assert first.returncode == 1
        assert "Received: UNAVAILABLE, Socket closed. Run the same command again" in first.stderr
        second = set_up(simulator)
        assert (second.returncode, second.stdout.split()) == (0, NAMES), second.stderr
        assert len(server.requests("CreateBuild")) == 1


def test_a_dry_run_prints_the_build_and_reaches_nothing(simulator):
    before = len(simulator.log())
    done = set_up(simulator, "--dry_run", "--notests", "--images=gpu", GOOGLE_APPLICATION_CREDENTIALS="")
    assert done.returncode == 0, done.stderr
    build = as_build(yaml.safe_load(done.stdout))
    assert [step.id for step in build.steps] == ["gpu"]
    assert "would make gs://made-bucket" in done.stderr
    assert len(simulator.log()) == before


def test_every_wrong_flag_is_named_at_once():
    flags = ["--project=My", "--region=europe", "--bucket=gs://a/b", "--images=npu"]
    done = python("scripts/set_up_cloud.py", *flags)
    assert done.returncode == 2
    named = [line.removeprefix("error: ").split()[0] for line in done.stderr.splitlines()]
    assert named == ["--project", "--region", "--bucket", "--images"]

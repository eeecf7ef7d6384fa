"""docs/cloud.md's commands from a project's id to a finished job.

Ours are run in their order: the storage simulator and local servers with the services' own messages answer, and the
job that arrives is run here, as Vertex AI would run it. Changed are the data, the encoder and the preset, to small
ones, and the machine, to one without a GPU. gcloud's are compared with what they name.
"""

import os
import re
import shlex
import subprocess
import sys

import pytest
import yaml
from fakes import grpc_services, vertex_replicas
from fakes.grpc_services import Method
from fakes.vertex_jobs import CREATE, GET, HOSTS, LIST_LOG_ENTRIES, job_in_state, log_entry
from google.cloud.aiplatform_v1 import CreateCustomJobRequest, GetCustomJobRequest
from google.cloud.logging_v2.types import ListLogEntriesRequest, ListLogEntriesResponse
from google.protobuf import json_format
from helpers import ROOT, excerpt, python, write_reviews

import trainer
from trainer.cloud import job_request, machine_types

DOCUMENT = (ROOT / "docs/cloud.md").read_text(encoding="utf-8")
CLOUD_BUILD = yaml.safe_load((ROOT / "cloudbuild.yaml").read_text(encoding="utf-8"))


def commands(label: str, changes: dict[str, str] | None = None) -> list[list[str]]:
    """The words of each command in a block of the document."""
    (block,) = re.findall(rf"^```sh {label}\n(.*?)^```", DOCUMENT, re.DOTALL | re.MULTILINE)
    for before, after in (changes or {}).items():
        assert before in block
        block = block.replace(before, after)
    return [shlex.split(line) for line in block.splitlines()]


class Vertex:
    """A service whose one job runs on this machine, and whose log is the output of the job."""

    def __init__(self, simulator, folder):
        self.simulator, self.output, self.child = simulator, folder / "output", None

    def create(self, request: CreateCustomJobRequest):
        message = request.custom_job
        self.job = json_format.MessageToDict(type(message).pb(message))
        (replica,) = vertex_replicas.replicas(self.job)
        path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
        environment = self.simulator.environment(**replica.environment, PATH=path, PYTHONPATH=str(ROOT))
        with self.output.open("w") as output:
            self.child = subprocess.Popen(replica.command, env=environment, stdout=output, stderr=subprocess.STDOUT)
        return job_in_state("PENDING")

    def get(self, request: GetCustomJobRequest):
        return job_in_state({None: "RUNNING", 0: "SUCCEEDED"}.get(self.child.poll(), "FAILED"))

    def list_log_entries(self, request: ListLogEntriesRequest) -> ListLogEntriesResponse:
        lines = [line for line in self.output.read_text(encoding="utf-8").splitlines() if line.strip()]
        entries = [log_entry(number, line, task_name="workerpool0-0") for number, line in enumerate(lines)]
        return ListLogEntriesResponse(entries=entries)

    def methods(self) -> dict[str, Method]:
        return {
            CREATE: Method(CreateCustomJobRequest, [self.create]),
            GET: Method(GetCustomJobRequest, [self.get]),
            LIST_LOG_ENTRIES: Method(ListLogEntriesRequest, [self.list_log_entries]),
        }


def test_the_commands_lead_to_a_finished_job(simulator, tmp_path):
    source = write_reviews(tmp_path / "reviews.csv", 300)
    vertex = Vertex(simulator, tmp_path)
    small = {
        "PROJECT": "my-project",
        "BUCKET": "bucket",
        "--machine=gpu": "--machine=cpu",
        "--source=minilm": "--source=random:tiny",
        "--task=imdb": f"--task=csv --source={source}",
        "configs/imdb_minilm": "configs/smoke",
        "data/imdb_minilm": "data/smoke",
        "encoders/minilm": "encoders/tiny",
    }
    outputs = []
    with grpc_services.serving(simulator, HOSTS, vertex.methods()):
        for program, *arguments in commands("job", small):
            assert program == "python"
            done = python(*arguments, env=simulator.environment())
            assert done.returncode == 0, (arguments, excerpt(done.stdout), excerpt(done.stderr))
            outputs.append(done.stdout)
    _, _, followed, predicted = outputs
    assert "finished: 20 steps" in followed
    assert "this is such an amazing movie!" in predicted


def test_the_tuning_command_prints_a_study():
    ((program, *arguments),) = commands("tune", {"BUCKET": "bucket"})
    assert program == "python"
    printed = python(*arguments, "--dry_run")
    assert printed.returncode == 0, printed.stderr
    assert yaml.safe_load(printed.stdout)["studySpec"]["metrics"][0]["metricId"] == "validation/accuracy"


def test_the_gcloud_command_is_the_one_that_the_printed_file_begins_with():
    (program, *arguments), gcloud = commands("gcloud", {"PROJECT": "p", "BUCKET": "bucket"})
    assert (program, arguments[-2]) == ("python", ">")
    printed = python(*arguments[:-2])
    assert printed.returncode == 0, printed.stderr
    assert shlex.split(printed.stdout.splitlines()[0].removeprefix("# ")) == gcloud
    assert gcloud[-1] == f"--config={arguments[-1]}"


def flags_of(command: list[str]) -> dict[str, str]:
    pairs = (word.removeprefix("--").partition("=") for word in command if word.startswith("--"))
    return {name: value for name, _, value in pairs}


def test_the_set_up_is_in_one_project_and_one_region():
    enable, bucket, repository, build = commands("setup")
    assert enable[:3] == ["gcloud", "services", "enable"]
    assert {"aiplatform.googleapis.com", "logging.googleapis.com", "cloudbuild.googleapis.com"} <= set(enable)
    assert bucket[:5] == ["gcloud", "storage", "buckets", "create", "gs://BUCKET"]
    assert {"uniform-bucket-level-access", "public-access-prevention"} <= flags_of(bucket).keys()
    assert repository[:5] == ["gcloud", "artifacts", "repositories", "create", job_request.IMAGE_REPOSITORY]
    assert build[:3] == ["gcloud", "builds", "submit"]
    assert {flags_of(command)["project"] for command in (enable, bucket, repository, build)} == {"PROJECT"}
    region = flags_of(build)["substitutions"].removeprefix("_REGION=")
    submit = next(command for command in commands("job") if "scripts/submit.py" in command)
    named = {flags_of(bucket)["location"], flags_of(repository)["location"], flags_of(submit)["region"]}
    assert named == {region}
    assert (ROOT / flags_of(build)["config"]).is_file()
    assert {pair.partition("=")[0] for pair in flags_of(build)["substitutions"].split(",")} <= set(
        CLOUD_BUILD["substitutions"]
    )


@pytest.mark.parametrize("name", ["cpu", "gpu", "tpu_v3", "tpu_v5e"])
def test_a_job_s_default_image_is_one_that_the_build_pushes(name):
    substitutions = {**CLOUD_BUILD["substitutions"], "_REGION": "europe-west4", "PROJECT_ID": "my-project"}
    pushed = [re.sub(r"\$\{(\w+)\}", lambda match: substitutions[match[1]], image) for image in CLOUD_BUILD["images"]]
    machine, _ = machine_types.resolve_machine(name)
    assert job_request.default_image("my-project", "europe-west4", machine, trainer.__version__) in pushed

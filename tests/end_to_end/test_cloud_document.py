"""The README's five commands from a project id to a finished job, run in their order, up to the network's edge.

What answers there are the storage simulator and the services' own messages; the job that arrives is run, here, as
Vertex AI would run it. Changed are the data, the encoder and the preset, to small ones, and the machine, to one without
a GPU.
"""

import os
import re
import shlex
import subprocess
import sys

from fakes import grpc_services, vertex_replicas
from fakes.grpc_services import Method
from google.protobuf import json_format
from helpers import ROOT, python, write_reviews
from test_job_logs import GET, LIST, entry
from test_job_logs import HOSTS as JOB_HOSTS
from test_job_logs import job as job_in
from test_set_up_cloud import HOSTS as SET_UP_HOSTS
from test_set_up_cloud import Cloud
from test_submit import CREATE


def commands(changes: list[tuple[str, str]]) -> list[list[str]]:
    """The arguments of each command of the section, after `python`."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^## In the cloud.*?^```\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    for before, after in changes:
        assert before in block
        block = block.replace(before, after)
    found = [shlex.split(line) for line in block.splitlines()]
    assert [words[0] for words in found] == ["python"] * 5
    return [words[1:] for words in found]


class Vertex:
    """A service whose one job runs on this machine, and whose log is what the job says."""

    def __init__(self, simulator, folder):
        self.simulator, self.output, self.child = simulator, folder / "output", None

    def create(self, request):
        message = request.custom_job
        self.job = json_format.MessageToDict(type(message).pb(message))
        (replica,) = vertex_replicas.replicas(self.job)
        path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
        environment = self.simulator.environment(**replica.environment, PATH=path, PYTHONPATH=str(ROOT))
        with self.output.open("w") as output:
            self.child = subprocess.Popen(replica.command, env=environment, stdout=output, stderr=subprocess.STDOUT)
        return job_in("PENDING")

    def get(self, request):
        return job_in({None: "RUNNING", 0: "SUCCEEDED"}.get(self.child.poll(), "FAILED"))

    def log(self, request):
        from google.cloud.logging_v2.types import ListLogEntriesResponse

        lines = [line for line in self.output.read_text(encoding="utf-8").splitlines() if line.strip()]
        return ListLogEntriesResponse(
            entries=[entry(number, line, task_name="workerpool0-0") for number, line in enumerate(lines)]
        )

    def methods(self) -> dict[str, Method]:
        from google.cloud.aiplatform_v1 import CreateCustomJobRequest, GetCustomJobRequest
        from google.cloud.logging_v2.types import ListLogEntriesRequest

        return {
            CREATE: Method(CreateCustomJobRequest, [self.create]),
            GET: Method(GetCustomJobRequest, [self.get]),
            LIST: Method(ListLogEntriesRequest, [self.log]),
        }


def test_five_commands_lead_from_a_project_to_a_finished_job(simulator, tmp_path):
    source = write_reviews(tmp_path / "reviews.csv", 300)
    vertex = Vertex(simulator, tmp_path)
    hosts = [*JOB_HOSTS, "europe-west4-aiplatform.googleapis.com", *SET_UP_HOSTS]
    small = [
        *(("PROJECT", "my-project"), ("us-central1", "europe-west4"), ("BUCKET", "made-bucket"), ("=gpu", "=cpu")),
        *(("--source=minilm", "--source=random:tiny"), ("--task=imdb", f"--task=csv --source={source}")),
        *(("configs/imdb_minilm", "configs/smoke"), ("data/imdb_minilm", "data/smoke")),
        ("encoders/minilm", "encoders/tiny"),
    ]
    said = []
    with grpc_services.serving(simulator, hosts, {**Cloud().methods(), **vertex.methods()}):
        for command in commands(small):
            done = python(*command, env=simulator.environment())
            assert done.returncode == 0, (command, done.stdout[-3000:], done.stderr[-3000:])
            said.append(done.stdout)
    images, _, _, followed, predicted = said
    (pool,) = vertex.job["jobSpec"]["workerPoolSpecs"]
    assert pool["containerSpec"]["imageUri"] in images.split()
    assert "finished: 20 steps" in followed
    assert "this is such an amazing movie!" in predicted

"""Submitting, by Google's client in a process of its own against a local server that speaks its messages."""

import json

import grpc
import pytest
from fakes import grpc_services
from fakes.grpc_services import Hang, Method, Refusal
from helpers import outcome
from test_job_spec import job_of, order, parsed

from trainer.cloud import vertex_client
from trainer.errors import UsageError

HOST = "us-central1-aiplatform.googleapis.com"
SERVICE = "/google.cloud.aiplatform.v1.JobService"
NAME = "projects/p/locations/us-central1/customJobs/17"

# Submits as often as it is told to, soon; prints each outcome.
CLIENT = """
import json
import sys
from trainer.cloud import vertex_client
vertex_client.WITHIN, vertex_client.PAUSE = 2.0, 0.05
job, times = json.loads(sys.argv[1]), int(sys.argv[2])
for _ in range(times):
    try:
        print(vertex_client.submit(job, "p", "us-central1").full)
    except vertex_client.Refused as refused:
        print(refused)
"""


def submitted(
    simulator, create: list, listing: list = (), times: int = 1, **environment: str
) -> tuple[list[str], grpc_services.Server]:
    """What so many submissions end with, and the server that they came to."""
    from google.cloud.aiplatform_v1 import types

    methods = {
        f"{SERVICE}/CreateCustomJob": Method(types.CreateCustomJobRequest, create),
        f"{SERVICE}/ListCustomJobs": Method(types.ListCustomJobsRequest, listing or [types.ListCustomJobsResponse()]),
    }
    with grpc_services.serving(simulator, [HOST], methods) as server:
        code, out, error = outcome(CLIENT, json.dumps(job_of(order())), times, env=simulator.environment(**environment))
    assert code == 0, error[-2000:]
    return out.splitlines(), server


def made(request=None):
    from google.cloud import aiplatform_v1

    return aiplatform_v1.CustomJob(name=NAME)


def test_what_arrives_is_the_job_with_a_label_of_its_own(simulator):
    (name, _), server = submitted(simulator, [made], times=2)
    assert name == NAME
    first, second = (request.custom_job for request in server.requests("CreateCustomJob"))
    marks = [job.labels.pop(vertex_client.LABEL) for job in (first, second)]
    assert len(set(marks)) == 2
    assert first == second == parsed(job_of(order()))
    assert server.requests("CreateCustomJob")[0].parent == "projects/p/locations/us-central1"


def test_google_s_clients_are_named_where_they_are_not_installed():
    code = """
import sys
from trainer.cloud import vertex_client
from trainer.errors import UsageError
sys.modules["google.cloud.aiplatform_v1"] = None
try:
    vertex_client.submit({}, "p", "us-central1")
except UsageError as refused:
    print(refused)
"""
    _, out, error = outcome(code)
    assert out.startswith("--target=vertex needs google-cloud-aiplatform"), error
    assert "make environment" in out


REFUSALS = {
    "RESOURCE_EXHAUSTED": "change --machine, --replicas or --region",
    "PERMISSION_DENIED": "Change --project, or have roles/aiplatform.user",
    "NOT_FOUND": "Change --project, --region",
    "INVALID_ARGUMENT": "Change the flag that the words above are of: --machine",
    "FAILED_PRECONDITION": "Change --region",
    "UNAUTHENTICATED": "gcloud auth application-default login",
}


def test_a_refusal_is_one_message_with_the_flag_to_change(simulator):
    refusals = [Refusal(grpc.StatusCode[code], f"words of {code}\nand more") for code in REFUSALS]
    out, server = submitted(simulator, refusals, times=len(refusals))
    for message, (code, advice) in zip(out, REFUSALS.items(), strict=True):
        assert message.startswith(f"Vertex AI must allow the job. Received: {code}, words of {code} and more. ")
        assert advice in message
    assert not server.requests("ListCustomJobs")  # a refusal is an answer: nothing was lost


def test_a_job_whose_reply_is_lost_or_does_not_come_is_found_and_not_sent_twice(simulator):
    from google.cloud.aiplatform_v1 import types

    nothing, found = types.ListCustomJobsResponse(), types.ListCustomJobsResponse(custom_jobs=[made()])
    lost = [Refusal(grpc.StatusCode.UNAVAILABLE, "the connection broke"), Hang(30)]
    out, server = submitted(simulator, lost, [nothing, found, nothing, found], times=2)
    assert out == [NAME, NAME]
    marks = [request.custom_job.labels[vertex_client.LABEL] for request in server.requests("CreateCustomJob")]
    looked = [request.filter for request in server.requests("ListCustomJobs")]
    assert looked == [f'labels.{vertex_client.LABEL}="{mark}"' for mark in marks for _ in range(2)]


def test_a_job_that_did_not_arrive_is_sent_again_with_the_same_label(simulator):
    out, server = submitted(simulator, [Refusal(grpc.StatusCode.UNAVAILABLE, "down"), made])
    assert out == [NAME]
    first, second = server.requests("CreateCustomJob")
    assert first == second
    assert len(server.requests("ListCustomJobs")) == vertex_client.LOOKS


def test_a_job_that_cannot_be_looked_for_is_not_sent_again(simulator):
    down = Refusal(grpc.StatusCode.UNAVAILABLE, "down")
    (message,), server = submitted(simulator, [down], [down])
    (sent,) = server.requests("CreateCustomJob")
    assert "Whether the job is there is not known" in message
    assert f"{vertex_client.LABEL}={sent.custom_job.labels[vertex_client.LABEL]}" in message


def test_credentials_that_cannot_be_renewed_are_said_and_nothing_is_looked_for(simulator, tmp_path):
    user = {"type": "authorized_user", "client_id": "1", "client_secret": "2", "refresh_token": "3"}
    (tmp_path / "user.json").write_text(json.dumps(user))
    expired = {"do": "status", "status": 400, "match": "oauth2.googleapis.com", "times": -1}
    with simulator.faults(expired):
        (message,), server = submitted(simulator, [made], GOOGLE_APPLICATION_CREDENTIALS=str(tmp_path / "user.json"))
    assert message.startswith("Vertex AI needs credentials that are accepted. Received: ")
    assert message.endswith("Renew them: gcloud auth application-default login.")
    assert not server.requests("CreateCustomJob")


@pytest.mark.parametrize(
    "name", ["", "17", "projects/p/locations/r/models/17", f"{NAME}/x", "projects//locations/r/customJobs/1"]
)
def test_what_is_no_job_s_name_is_refused(name):
    with pytest.raises(UsageError, match="A job's name must be projects/PROJECT/locations/REGION/customJobs/ID"):
        vertex_client.parsed(name)


def test_a_name_has_its_page():
    name = vertex_client.parsed(NAME)
    assert name.full == NAME
    assert name.console == (
        "https://console.cloud.google.com/agent-platform/locations/us-central1/training/17?project=p"
    )

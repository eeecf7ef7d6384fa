"""Submitting, by Google's client in a process of its own against a local server that speaks its messages."""

import json

import grpc
import pytest
from fakes import grpc_services
from fakes.grpc_services import Hang, Method, Refusal
from fakes.vertex_jobs import CREATE, HOSTS, NAME, job_in_state, parse_custom_job
from helpers import excerpt, outcome

from trainer.cloud import google_api, job_spec, vertex_client
from trainer.errors import UsageError

LIST = "/google.cloud.aiplatform.v1.JobService/ListCustomJobs"
# Submits so many times, with short pauses, and prints each outcome.
CLIENT = """
import json
import sys
from trainer.cloud import google_api, vertex_client
from trainer.errors import UserError
google_api.REQUEST_TIMEOUT_S, vertex_client.SEARCH_INTERVAL_S = 2.0, 0.05
job, times = json.loads(sys.argv[1]), int(sys.argv[2])
for _ in range(times):
    try:
        print(vertex_client.submit_job(job, "p", "us-central1").full)
    except UserError as refused:
        print(refused)
"""


@pytest.fixture
def custom_job(build_request) -> dict:
    return job_spec.build_custom_job(build_request())


@pytest.fixture
def submit(simulator, custom_job):
    """A function (answers, answers to searches, times) -> (the outcome of each submission, the server)."""
    from google.cloud.aiplatform_v1 import types

    def submit(create: list, searches: list = (), times: int = 1, **environment: str):
        searches = searches or [types.ListCustomJobsResponse()]
        methods = {
            CREATE: Method(types.CreateCustomJobRequest, create),
            LIST: Method(types.ListCustomJobsRequest, searches),
        }
        with grpc_services.serving(simulator, HOSTS, methods) as server:
            variables = simulator.environment(**environment)
            code, out, error = outcome(CLIENT, json.dumps(custom_job), times, env=variables)
        assert code == 0, excerpt(error)
        return out.splitlines(), server

    return submit


PENDING = job_in_state("PENDING")


def test_what_arrives_is_the_job_with_a_label_of_its_own(submit, custom_job):
    (name, _), server = submit([PENDING], times=2)
    assert name == NAME
    first, second = (request.custom_job for request in server.requests("CreateCustomJob"))
    labels = [job.labels.pop(vertex_client.SUBMISSION_LABEL) for job in (first, second)]
    assert len(set(labels)) == 2
    assert first == second == parse_custom_job(custom_job)
    assert server.requests("CreateCustomJob")[0].parent == "projects/p/locations/us-central1"


def test_a_refusal_is_one_message_with_the_flag_to_change(submit):
    statuses = ["RESOURCE_EXHAUSTED", "PERMISSION_DENIED", "NOT_FOUND", "INVALID_ARGUMENT", "UNIMPLEMENTED"]
    out, server = submit([Refusal(grpc.StatusCode[name], "a\nb") for name in statuses], times=len(statuses))
    for message, status in zip(out, statuses, strict=True):
        assert f"Received: {status}, a b. " in message
        assert google_api.ADVICE[status] in message
    assert not server.requests("ListCustomJobs")  # A refusal is a reply: nothing was lost.


def test_a_service_that_is_not_enabled_is_named(submit):
    refusal = Refusal(grpc.StatusCode.PERMISSION_DENIED, "It is disabled.", "SERVICE_DISABLED")
    (message,), _ = submit([refusal])
    assert google_api.ADVICE["SERVICE_DISABLED"] in message


def test_a_value_that_the_service_does_not_know_is_a_usage_error(custom_job):
    custom_job["jobSpec"]["workerPoolSpecs"][0]["machineSpec"]["acceleratorType"] = "NVIDIA_TESLA_T3"
    with pytest.raises(UsageError, match=r"NVIDIA_TESLA_T3.*--accelerator"):
        vertex_client.submit_job(custom_job, "p", "us-central1")


def test_a_job_whose_reply_is_lost_is_found_and_not_sent_twice(submit):
    from google.cloud.aiplatform_v1 import types

    nothing, existing = types.ListCustomJobsResponse(), types.ListCustomJobsResponse(custom_jobs=[PENDING])
    lost = [Refusal(grpc.StatusCode.UNAVAILABLE, "the connection broke"), Hang(30)]
    out, server = submit(lost, [nothing, existing, nothing, existing], times=2)
    assert out == [NAME, NAME]
    labels = [
        request.custom_job.labels[vertex_client.SUBMISSION_LABEL] for request in server.requests("CreateCustomJob")
    ]
    searches = [request.filter for request in server.requests("ListCustomJobs")]
    assert searches == [f'labels.{vertex_client.SUBMISSION_LABEL}="{label}"' for label in labels for _ in range(2)]


def test_a_job_that_did_not_arrive_is_sent_again_with_the_same_label(submit):
    out, server = submit([Refusal(grpc.StatusCode.UNAVAILABLE, "down"), PENDING])
    assert out == [NAME]
    first, second = server.requests("CreateCustomJob")
    assert first == second
    assert len(server.requests("ListCustomJobs")) == vertex_client.SEARCH_ATTEMPTS


def test_a_job_that_cannot_be_searched_for_is_not_sent_again(submit):
    down = Refusal(grpc.StatusCode.UNAVAILABLE, "down")
    (message,), server = submit([down], [down])
    (sent,) = server.requests("CreateCustomJob")
    assert f"{vertex_client.SUBMISSION_LABEL}={sent.custom_job.labels[vertex_client.SUBMISSION_LABEL]}" in message


def test_credentials_that_cannot_be_renewed_end_the_submission(simulator, submit, tmp_path):
    user = {"type": "authorized_user", "client_id": "1", "client_secret": "2", "refresh_token": "3"}
    (tmp_path / "user.json").write_text(json.dumps(user))
    expired = {"do": "status", "status": 400, "match": "oauth2.googleapis.com", "times": -1}
    with simulator.faults(expired):
        (message,), server = submit([PENDING], GOOGLE_APPLICATION_CREDENTIALS=str(tmp_path / "user.json"))
    assert message.endswith(google_api.LOGIN_ADVICE)
    assert not server.requests("CreateCustomJob")


@pytest.mark.parametrize(
    "name", ["", "17", "projects/p/locations/r/models/17", f"{NAME}/x", "projects//locations/r/customJobs/1"]
)
def test_a_name_that_is_not_a_job_s_is_refused(name):
    with pytest.raises(UsageError, match="--follow_job"):
        vertex_client.parse_job_name(name)


def test_a_name_has_its_page():
    name = vertex_client.parse_job_name(NAME)
    assert name.full == NAME
    assert name.console_url == (
        "https://console.cloud.google.com/agent-platform/locations/us-central1/training/17?project=p"
    )

"""The gRPC services against Google's own client, in a process of its own."""

import json

import grpc
from fakes import grpc_services
from fakes.grpc_services import Hang, Method, Refusal
from google.cloud import aiplatform_v1
from helpers import excerpt, outcome

HOST = "europe-west4-aiplatform.googleapis.com"
GET = "/google.cloud.aiplatform.v1.JobService/GetCustomJob"
CLIENT = """
import json
import sys
import time
from google.api_core.exceptions import GoogleAPICallError
from google.cloud.aiplatform_v1.services.job_service import JobServiceClient
client = JobServiceClient(client_options={"api_endpoint": sys.argv[1]})
outcomes = []
for number in range(int(sys.argv[2])):
    try:
        outcomes.append(client.get_custom_job(name=f"number {number}", timeout=2, retry=None).state.name)
    except GoogleAPICallError as error:
        outcomes.append(f"{error.grpc_status_code.name}: {error.message}")
print(json.dumps(outcomes))
"""


def job(state: str, **values) -> aiplatform_v1.CustomJob:
    return aiplatform_v1.CustomJob(state=aiplatform_v1.JobState[state], **values)


def call_service(simulator, calls: int) -> list[str]:
    code, out, error = outcome(CLIENT, HOST, calls, env=simulator.environment())
    assert code == 0, excerpt(error)
    return json.loads(out)


def test_answers_come_in_order_and_the_last_one_again(simulator):
    answers = [
        job("JOB_STATE_PENDING"),
        Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "no quota"),
        Hang(10),
        lambda request: job("JOB_STATE_FAILED" if request.name == "number 3" else "JOB_STATE_SUCCEEDED"),
    ]
    method = Method(aiplatform_v1.GetCustomJobRequest, answers)
    with grpc_services.serving(simulator, [HOST], {GET: method}) as server:
        outcomes = call_service(simulator, 5)
    assert outcomes[:2] == ["JOB_STATE_PENDING", "RESOURCE_EXHAUSTED: no quota"]
    assert outcomes[2].startswith("DEADLINE_EXCEEDED")
    assert outcomes[3:] == ["JOB_STATE_FAILED", "JOB_STATE_SUCCEEDED"]
    assert [request.name for request in server.requests("GetCustomJob")] == [f"number {n}" for n in range(5)]


def test_an_unknown_method_or_host_is_refused(simulator):
    with grpc_services.serving(simulator, [HOST], {}):
        assert call_service(simulator, 1)[0].startswith("UNIMPLEMENTED")
    assert call_service(simulator, 1)[0].startswith("UNAVAILABLE")

"""Following a job: scripts/submit.py as a process, against local servers for the jobs and for their log."""

import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import grpc
from fakes import grpc_services
from fakes.grpc_services import Method, Refusal
from helpers import ROOT, outcome, python

NAME = "projects/p/locations/us-central1/customJobs/17"
GET = "/google.cloud.aiplatform.v1.JobService/GetCustomJob"
LIST = "/google.logging.v2.LoggingServiceV2/ListLogEntries"
HOSTS = ["us-central1-aiplatform.googleapis.com", "logging.googleapis.com"]
BEGAN = datetime(2026, 11, 24, 1, 2, 3, tzinfo=UTC)


def job(state: str, words: str = ""):
    from google.cloud import aiplatform_v1

    made = aiplatform_v1.CustomJob(name=NAME, state=aiplatform_v1.JobState[f"JOB_STATE_{state}"])
    made.error.message = words
    return made


def entry(seconds: float, words: str, **labels: str):
    """A line of the log, so many seconds after its beginning; its words are its identity."""
    from google.api.monitored_resource_pb2 import MonitoredResource
    from google.cloud.logging_v2.types import LogEntry

    resource = MonitoredResource(type="ml_job", labels={"job_id": "17", **labels})
    payload = {"json_payload": {"message": words}} if labels else {"text_payload": words}
    when = BEGAN + timedelta(seconds=seconds)
    return LogEntry(log_name="projects/p/logs/x", insert_id=words, timestamp=when, resource=resource, **payload)


def log(arrivals: list[list]):
    """What the service answers with: at look n, what the filter asks for of all that has arrived, in pages of two."""
    from google.cloud.logging_v2.types import ListLogEntriesResponse

    looks = 0

    def answer(request):
        nonlocal looks
        looks += not request.page_token
        there = [one for arrived in arrivals[:looks] for one in arrived]
        if "timestamp>=" in request.filter:
            since = datetime.fromisoformat(request.filter.rpartition('>="')[2].rstrip('"'))
            there = [one for one in there if one.timestamp >= since]
        there.sort(key=lambda one: one.timestamp)
        at = int(request.page_token or 0)
        return ListLogEntriesResponse(
            entries=there[at : at + 2], next_page_token=str(at + 2) if len(there) > at + 2 else ""
        )

    return answer


def methods(states: list, listing) -> dict[str, Method]:
    from google.cloud.aiplatform_v1 import GetCustomJobRequest
    from google.cloud.logging_v2.types import ListLogEntriesRequest

    return {GET: Method(GetCustomJobRequest, states), LIST: Method(ListLogEntriesRequest, [listing])}


ARGUMENTS = ["scripts/submit.py", f"--follow_job={NAME}", "--look_every=0.1"]


def test_lines_come_in_order_and_once_and_a_failed_job_ends_with_its_words(simulator):
    arrivals = [
        [entry(0, "provisioning")],
        [entry(5, "step 20", task_name="workerpool0-0"), entry(9, "step 60", task_name="workerpool0-0")],
        [entry(7, "step 40", task_name="workerpool0-0"), entry(11, "step 80", task_name="workerpool0-0")],
        [entry(300, "much later")],
        [entry(301, "the last words")],
    ]
    down = Refusal(grpc.StatusCode.UNAVAILABLE, "a moment")
    states = [
        job("QUEUED"),
        job("PENDING"),
        job("RUNNING"),
        down,
        job("RUNNING"),
        *[job("FAILED")] * 5,  # the words come later than the state
        job("FAILED", "The replica workerpool0-0 exited with 1."),
    ]
    with grpc_services.serving(simulator, HOSTS, methods(states, log(arrivals))) as server:
        done = python(*ARGUMENTS, env=simulator.environment())
    assert done.returncode == 1, done.stderr
    assert done.stdout.splitlines() == [
        "01:02:03 service provisioning",
        "01:02:08 workerpool0-0 step 20",
        "01:02:10 workerpool0-0 step 40",
        "01:02:12 workerpool0-0 step 60",
        "01:02:14 workerpool0-0 step 80",
        "01:07:03 service much later",
        "01:07:04 service the last words",
    ]
    assert done.stderr.splitlines() == [
        "17: queued: Vertex AI waits for machines, or for quota",
        "17: pending",
        "17: running",
        "17: failed",
        "error: The replica workerpool0-0 exited with 1.",
    ]
    asked = server.requests("ListLogEntries")
    assert {tuple(request.resource_names) for request in asked} == {("projects/p",)}
    assert all('resource.type="ml_job" AND resource.labels.job_id="17"' in request.filter for request in asked)


def test_a_job_that_was_cancelled_ends_with_75_and_a_log_that_may_not_be_read_is_said_once(simulator):
    denied = Refusal(grpc.StatusCode.PERMISSION_DENIED, "no logging.logEntries.list")
    with grpc_services.serving(
        simulator, HOSTS, methods([job("RUNNING"), job("RUNNING"), job("CANCELLED")], lambda _: denied)
    ):
        done = python(*ARGUMENTS, env=simulator.environment())
    assert done.returncode == 75
    assert done.stdout == ""
    assert done.stderr.count("the log may not be read") == 1
    assert "goes on from the last checkpoint" in done.stderr


def test_a_job_that_is_not_there_is_said(simulator):
    gone = Refusal(grpc.StatusCode.NOT_FOUND, "The CustomJob does not exist.")
    with grpc_services.serving(simulator, HOSTS, methods([gone], log([]))):
        done = python(*ARGUMENTS, env=simulator.environment())
    assert (done.returncode, done.stdout) == (1, "")
    assert "Received: NOT_FOUND, The CustomJob does not exist." in done.stderr
    assert "--follow_job" in done.stderr


def test_a_service_that_does_not_answer_is_waited_for_within_a_bound(simulator):
    code = """
import sys
from trainer.cloud import job_logs
from trainer.cloud import vertex_client
job_logs.PATIENCE = 0.5
try:
    job_logs.follow(vertex_client.parsed(sys.argv[1]), 0.1)
except vertex_client.Refused as refused:
    print(refused)
"""
    down = Refusal(grpc.StatusCode.UNAVAILABLE, "down for now")
    with grpc_services.serving(simulator, HOSTS, methods([down], log([]))) as server:
        _, out, error = outcome(code, NAME, env=simulator.environment())
    assert "The job may go on. To follow it: python scripts/submit.py --follow_job=" in out, error
    assert "down for now" in out
    assert len(server.requests("GetCustomJob")) > 2


def test_ctrl_c_stops_following_and_not_the_job(simulator):
    with (
        grpc_services.serving(simulator, HOSTS, methods([job("RUNNING")], log([[]]))) as server,
        subprocess.Popen(
            [sys.executable, *ARGUMENTS],
            cwd=ROOT,
            env=simulator.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        until = time.monotonic() + 60
        while len(server.requests("GetCustomJob")) < 2 and time.monotonic() < until:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=30)
    assert (process.returncode, out) == (75, "")
    assert f"no longer following; the job goes on. To follow it: python scripts/submit.py --follow_job={NAME}" in error

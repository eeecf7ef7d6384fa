"""A job followed: scripts/submit.py as a process, against local servers for the jobs and for their log."""

import signal
import subprocess
import sys
import time

import grpc
import pytest
from fakes import grpc_services
from fakes.grpc_services import Refusal
from fakes.vertex_jobs import HOSTS, NAME, job_in_state, log_answer, log_entry, methods
from helpers import ROOT, outcome, python

ARGUMENTS = ["scripts/submit.py", f"--follow_job={NAME}", "--look_every=0.1"]


def test_lines_come_in_order_and_once_and_a_failure_has_its_error(simulator):
    arrivals = [
        [log_entry(0, "provisioning")],
        [log_entry(5, "step 20", task_name="workerpool0-0"), log_entry(9, "step 60", task_name="workerpool0-0")],
        [log_entry(7, "step 40", task_name="workerpool0-0"), log_entry(11, "step 80", task_name="workerpool0-0")],
        [log_entry(300, "much later")],
        [log_entry(301, "the last words")],
    ]
    down = Refusal(grpc.StatusCode.UNAVAILABLE, "a moment")
    states = [
        job_in_state("QUEUED"),
        job_in_state("PENDING"),
        job_in_state("RUNNING"),
        down,
        job_in_state("RUNNING"),
        *[job_in_state("FAILED")] * 5,  # The message comes later than the state.
        job_in_state("FAILED", "The replica workerpool0-0 exited with 1."),
    ]
    with grpc_services.serving(simulator, HOSTS, methods(states, log_answer(arrivals))) as server:
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
    requests = server.requests("ListLogEntries")
    assert {tuple(request.resource_names) for request in requests} == {("projects/p",)}
    assert all('resource.type="ml_job" AND resource.labels.job_id="17"' in request.filter for request in requests)


def test_a_canceled_job_ends_with_75_without_access_to_its_log(simulator):
    denied = Refusal(grpc.StatusCode.PERMISSION_DENIED, "no logging.logEntries.list")
    with grpc_services.serving(
        simulator,
        HOSTS,
        methods([job_in_state("RUNNING"), job_in_state("RUNNING"), job_in_state("CANCELLED")], lambda _: denied),
    ):
        done = python(*ARGUMENTS, env=simulator.environment())
    assert done.returncode == 75
    assert done.stdout == ""
    assert done.stderr.count("may not read the job's log") == 1
    assert "resumes from the last checkpoint" in done.stderr


def test_a_job_that_does_not_exist_is_refused(simulator):
    gone = Refusal(grpc.StatusCode.NOT_FOUND, "The CustomJob does not exist.")
    with grpc_services.serving(simulator, HOSTS, methods([gone], log_answer([]))):
        done = python(*ARGUMENTS, env=simulator.environment())
    assert (done.returncode, done.stdout) == (1, "")
    assert "Received: NOT_FOUND, The CustomJob does not exist." in done.stderr
    assert "--follow_job" in done.stderr


def test_a_service_that_does_not_answer_ends_following(simulator):
    code = """
import sys
from trainer.cloud import job_logs
from trainer.cloud import vertex_client
from trainer.errors import UserError
job_logs.OUTAGE_TIMEOUT_S = 0.5
try:
    job_logs.follow_job(vertex_client.parse_job_name(sys.argv[1]), 0.1)
except UserError as refused:
    print(refused)
"""
    down = Refusal(grpc.StatusCode.UNAVAILABLE, "down for now")
    with grpc_services.serving(simulator, HOSTS, methods([down], log_answer([]))) as server:
        _, out, error = outcome(code, NAME, env=simulator.environment())
    assert f"--follow_job={NAME}" in out, error
    assert "down for now" in out
    assert len(server.requests("GetCustomJob")) > 2


@pytest.fixture
def interruptible_children():
    """A process in the background ignores SIGINT, and so do its children: those of this test must not."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


def test_ctrl_c_stops_following_and_not_the_job(simulator, interruptible_children):
    running = methods([job_in_state("RUNNING")], log_answer([[]]))
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with (
        grpc_services.serving(simulator, HOSTS, running) as server,
        subprocess.Popen([sys.executable, *ARGUMENTS], cwd=ROOT, env=simulator.environment(), **pipes) as process,
    ):
        try:
            deadline = time.monotonic() + 60
            while len(server.requests("GetCustomJob")) < 2 and time.monotonic() < deadline:
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            out, error = process.communicate(timeout=120)
        finally:
            process.kill()
    assert (process.returncode, out) == (75, "")
    assert f"To follow it: python scripts/submit.py --follow_job={NAME}" in error

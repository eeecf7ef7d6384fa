"""Vertex AI's jobs and their log, as answers for fakes.grpc_services: states in order, and lines that arrive late."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from fakes.grpc_services import Method
from google.api.monitored_resource_pb2 import MonitoredResource
from google.cloud import aiplatform_v1
from google.cloud.logging_v2.types import ListLogEntriesRequest, ListLogEntriesResponse, LogEntry
from google.protobuf import json_format

NAME = "projects/p/locations/us-central1/customJobs/17"
CREATE = "/google.cloud.aiplatform.v1.JobService/CreateCustomJob"
GET = "/google.cloud.aiplatform.v1.JobService/GetCustomJob"
LIST_LOG_ENTRIES = "/google.logging.v2.LoggingServiceV2/ListLogEntries"
HOSTS = ["us-central1-aiplatform.googleapis.com", "logging.googleapis.com"]
START_TIME = datetime(2026, 11, 24, 1, 2, 3, tzinfo=UTC)


def parse_custom_job(job: dict) -> aiplatform_v1.CustomJob:
    """The service's message. A field or a value that it does not know fails."""
    message = aiplatform_v1.CustomJob()
    json_format.ParseDict(job, type(message).pb(message))
    return message


def job_in_state(state: str, error: str = "") -> aiplatform_v1.CustomJob:
    job = aiplatform_v1.CustomJob(name=NAME, state=aiplatform_v1.JobState[f"JOB_STATE_{state}"])
    job.error.message = error
    return job


def log_entry(seconds: float, text: str, **labels: str) -> LogEntry:
    """A line of the log, so many seconds after its start. Its text is its identity."""
    resource = MonitoredResource(type="ml_job", labels={"job_id": "17", **labels})
    payload = {"json_payload": {"message": text}} if labels else {"text_payload": text}
    timestamp = START_TIME + timedelta(seconds=seconds)
    return LogEntry(log_name="projects/p/logs/x", insert_id=text, timestamp=timestamp, resource=resource, **payload)


def log_answer(arrivals: list[list[LogEntry]]) -> Callable:
    """The answer to ListLogEntries: at poll n, what the filter selects of the first n arrivals, in pages of two."""
    polls = 0

    def answer(request: ListLogEntriesRequest) -> ListLogEntriesResponse:
        nonlocal polls
        polls += not request.page_token
        entries = [entry for arrived in arrivals[:polls] for entry in arrived]
        if "timestamp>=" in request.filter:
            since = datetime.fromisoformat(request.filter.rpartition('>="')[2].rstrip('"'))
            entries = [entry for entry in entries if entry.timestamp >= since]
        entries.sort(key=lambda entry: entry.timestamp)
        start = int(request.page_token or 0)
        next_page = str(start + 2) if len(entries) > start + 2 else ""
        return ListLogEntriesResponse(entries=entries[start : start + 2], next_page_token=next_page)

    return answer


def methods(states: list, list_answer: Callable) -> dict[str, Method]:
    """What following a job needs: its states in order, and the answer to ListLogEntries."""
    return {
        GET: Method(aiplatform_v1.GetCustomJobRequest, states),
        LIST_LOG_ENTRIES: Method(ListLogEntriesRequest, [list_answer]),
    }

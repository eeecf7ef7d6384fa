"""A job followed to its end: its states as they change, its log lines as they come.

The lines are Cloud Logging's entries of the resource ml_job, in the order of their timestamps. Entries come late and
out of order: each poll reads the last OVERLAP_S seconds once more, and a line is printed at the poll after the one that
read it, with whatever earlier line has come by then.
"""

import dataclasses
import datetime
import logging
import time
from typing import Any

from trainer.cloud import google_api, vertex_client
from trainer.cloud.vertex_client import JobName
from trainer.errors import EXIT_DONE, EXIT_FAILED, EXIT_STOPPED, Problem, UserError

_LOG = logging.getLogger(__name__)

# An entry may come so late and still be printed.
OVERLAP_S = 120.0
# Following ends with an error after so long without an answer.
OUTAGE_TIMEOUT_S = 300.0
# The service gives a failure's message about a minute after the state; it is waited for so long.
# https://cloud.google.com/vertex-ai/docs/training/understanding-training-service
ERROR_MESSAGE_TIMEOUT_S = 90.0
# Polls of the log after the job has ended: until two in a row are empty, but no more than these.
MAX_FINAL_POLLS = 10

# The states that a job ends in. After EXIT_STOPPED the same command resumes from the last checkpoint.
EXIT_CODES = {
    "JOB_STATE_SUCCEEDED": EXIT_DONE,
    "JOB_STATE_FAILED": EXIT_FAILED,
    "JOB_STATE_PARTIALLY_SUCCEEDED": EXIT_FAILED,
    "JOB_STATE_CANCELLED": EXIT_STOPPED,
    "JOB_STATE_EXPIRED": EXIT_STOPPED,
}


@dataclasses.dataclass
class LogReader:
    """What has been read of a job's log."""

    name: JobName
    client: Any  # None if this account may not read the log.
    seen: set[tuple[str, str, datetime.datetime]] = dataclasses.field(default_factory=set)
    unprinted: list[Any] = dataclasses.field(default_factory=list)
    newest: datetime.datetime | None = None


def follow_job(name: JobName, interval_s: float) -> int:
    """Print a job's log lines on standard output, and log its states, once in `interval_s` seconds, until it ends.

    Returns EXIT_DONE for a job that succeeded, EXIT_FAILED for one that failed, EXIT_STOPPED for one that was canceled
    or that reached its time limit, and for Ctrl-C, which leaves the job alone. Raises UserError if this account may not
    read the job, or if there was no answer for OUTAGE_TIMEOUT_S.
    """
    try:
        return _follow(name, interval_s)
    except KeyboardInterrupt:
        _LOG.info("No longer following. The job continues. %s", _follow_advice(name))
        return EXIT_STOPPED


def _follow_advice(name: JobName) -> str:
    return f"To follow it: python scripts/submit.py --follow_job={name.full}"


def _follow(name: JobName, interval_s: float) -> int:
    from google.cloud.logging_v2.services.logging_service_v2 import LoggingServiceV2Client

    client, reader = vertex_client.connect(name.region), LogReader(name, google_api.connect(LoggingServiceV2Client))
    state = ""
    while state not in EXIT_CODES:
        if state:
            _print_lines(reader, _read_new_entries(reader))
            time.sleep(interval_s)
        job = _get_job(name, client, interval_s)
        if job.state.name != state:
            state = job.state.name
            reason = ": Vertex AI waits for machines, or for quota" if state == "JOB_STATE_QUEUED" else ""
            _LOG.info("%s: %s%s", name.id, state.removeprefix("JOB_STATE_").lower(), reason)
    _print_remaining_lines(reader, interval_s)
    deadline = time.monotonic() + ERROR_MESSAGE_TIMEOUT_S
    while EXIT_CODES[state] == EXIT_FAILED and not job.error.message and time.monotonic() < deadline:
        time.sleep(interval_s)
        job = _get_job(name, client, interval_s)
    if job.error.message:
        _LOG.error("%s", job.error.message)
    if EXIT_CODES[state] == EXIT_STOPPED:
        resumes = name.collection == vertex_client.CUSTOM_JOBS
        _LOG.info(
            "The same command, with the same --name, resumes from the last checkpoint."
            if resumes
            else "A study cannot be resumed: submit it with another --name."
        )
    return EXIT_CODES[state]


def _get_job(name: JobName, client: Any, interval_s: float) -> Any:
    """The job as it is now. Transient failures are retried for OUTAGE_TIMEOUT_S."""
    from google.api_core import exceptions

    transient = (exceptions.ServerError, exceptions.TooManyRequests, exceptions.RetryError)
    deadline = time.monotonic() + OUTAGE_TIMEOUT_S
    while True:
        try:
            with google_api.translate_errors(f"reading {name.full}", transient):
                return vertex_client.get_job(name, client)
        except transient as error:
            if time.monotonic() > deadline:
                required, received = f"answer within {OUTAGE_TIMEOUT_S:.0f} s", google_api.describe_error(error)
                advice = f"The job may still be running. {_follow_advice(name)}"
                raise UserError(Problem("Vertex AI", required, received, advice)) from None
        time.sleep(interval_s)


def _read_new_entries(reader: LogReader) -> list[Any]:
    """Entries that were not read before. Empty while the log cannot be read; a refusal is reported once."""
    from google.api_core import exceptions

    if reader.client is None:
        return []
    log_filter = f'resource.type="ml_job" AND resource.labels.job_id="{reader.name.id}"'
    if reader.newest:
        log_filter += f' AND timestamp>="{(reader.newest - datetime.timedelta(seconds=OVERLAP_S)).isoformat()}"'
    request = {
        "resource_names": [f"projects/{reader.name.project}"],
        "filter": log_filter,
        "order_by": "timestamp asc",
        "page_size": 1000,
    }
    new_entries = []
    try:
        for entry in reader.client.list_log_entries(request=request, timeout=google_api.REQUEST_TIMEOUT_S, retry=None):
            key = (entry.log_name, entry.insert_id, entry.timestamp)
            if key not in reader.seen:
                reader.seen.add(key)
                new_entries.append(entry)
    except (exceptions.Forbidden, exceptions.NotFound) as error:
        reader.client = None
        _LOG.warning(
            "This account may not read the job's log (%s). Only states follow. roles/logging.viewer allows it.",
            error.message,
        )
    except exceptions.GoogleAPIError:
        pass  # The next poll reads the rest.
    return new_entries


def _print_lines(reader: LogReader, new_entries: list[Any]) -> None:
    """Print the entries of the poll before, with every new entry that is older. The newer ones wait for the next."""
    limit = max((entry.timestamp for entry in reader.unprinted), default=None)
    entries = sorted([*reader.unprinted, *new_entries], key=lambda entry: (entry.timestamp, entry.insert_id))
    reader.unprinted = [entry for entry in entries if limit is None or entry.timestamp > limit]
    for entry in entries[: len(entries) - len(reader.unprinted)]:
        print(format_entry(entry), flush=True)
    reader.newest = max((entry.timestamp for entry in entries), default=reader.newest)


def _print_remaining_lines(reader: LogReader, interval_s: float) -> None:
    empty_polls = 0
    for _ in range(MAX_FINAL_POLLS):
        new_entries = _read_new_entries(reader)
        _print_lines(reader, new_entries)
        empty_polls = 0 if new_entries else empty_polls + 1
        if empty_polls == 2:
            break
        time.sleep(interval_s)
    _print_lines(reader, [])


def format_entry(entry: Any) -> str:
    """An entry's time (UTC), replica and text."""
    payload = type(entry).pb(entry).WhichOneof("payload")
    if payload == "json_payload":
        text = str(entry.json_payload.get("message", dict(entry.json_payload)))
    else:
        text = entry.text_payload if payload == "text_payload" else str(entry.proto_payload)
    replica = dict(entry.resource.labels).get("task_name", "service")
    return f"{entry.timestamp:%H:%M:%S} {replica} {text.rstrip()}"

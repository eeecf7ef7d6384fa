"""A job followed to its end: its states as they change, its log lines as they come.

The lines are Cloud Logging's entries of the resource ml_job, in the order of their timestamps. Entries come late and
out of order: each look reads the last LATE seconds once more, and a line is printed at the look after the one that
found it, with whatever has come before it by then.
"""

import dataclasses
import datetime
import sys
import time
from typing import Any

from trainer.cloud import vertex_client
from trainer.errors import EXIT_DONE, EXIT_FAILED, EXIT_STOPPED

# Seconds by which an entry may come late and still be seen; and without an answer until following is given up.
LATE, PATIENCE = 120.0, 300.0
# Seconds after a failure within which the service says why: it takes about a minute.
# https://cloud.google.com/vertex-ai/docs/training/understanding-training-service, which also says what it restarts
WHY = 90.0
# Looks for lines after the job has ended, until two have found none.
LAST_LOOKS = 10

# The states that a job ends in. After STOPPED the same command goes on from the last checkpoint.
ENDS = {
    "JOB_STATE_SUCCEEDED": EXIT_DONE,
    "JOB_STATE_FAILED": EXIT_FAILED,
    "JOB_STATE_PARTIALLY_SUCCEEDED": EXIT_FAILED,
    "JOB_STATE_CANCELLED": EXIT_STOPPED,
    "JOB_STATE_EXPIRED": EXIT_STOPPED,
}
# Said beside the state.
MORE = {"JOB_STATE_QUEUED": ": Vertex AI waits for machines, or for quota"}


@dataclasses.dataclass
class Log:
    """What has been read of a job's log."""

    name: vertex_client.Name
    client: Any  # None: it may not be read
    seen: set[tuple[str, str, datetime.datetime]] = dataclasses.field(default_factory=set)
    held: list[Any] = dataclasses.field(default_factory=list)  # entries that are not printed yet
    newest: datetime.datetime | None = None


def follow(name: vertex_client.Name, every: float) -> int:
    """Print states on standard error and log lines on standard output, looking every `every` seconds.

    Returns DONE for a job that succeeded, FAILED for one that failed, STOPPED for one that was cancelled or ran out of
    its time, and for Ctrl-C, which leaves the job alone. Raises vertex.Refused if it may not be looked at, or if there
    was no answer for PATIENCE seconds.
    """
    try:
        return _follow(name, every)
    except KeyboardInterrupt:
        print(f"no longer following; the job goes on. {_again(name)}", file=sys.stderr)
        return EXIT_STOPPED


def _again(name: vertex_client.Name) -> str:
    return f"To follow it: python scripts/submit.py --follow_job={name.full}"


def _follow(name: vertex_client.Name, every: float) -> int:
    jobs, log = vertex_client.client(name.region), _open(name)
    state = ""
    while True:
        job = _look(name, jobs, every)
        if job.state.name != state:
            state = job.state.name
            word = state.removeprefix("JOB_STATE_").lower()
            print(f"{name.id}: {word}{MORE.get(state, '')}", file=sys.stderr, flush=True)
        if state in ENDS:
            break
        _print(log, _read(log))
        time.sleep(every)
    _print_rest(log, every)
    ended = time.monotonic()
    while ENDS[state] == EXIT_FAILED and not job.error.message and time.monotonic() - ended < WHY:
        time.sleep(every)
        job = _look(name, jobs, every)
    if job.error.message:
        print(f"error: {job.error.message}", file=sys.stderr)
    if ENDS[state] == EXIT_STOPPED and name.collection == "customJobs":
        print("The same command, with the same --name, goes on from the last checkpoint.", file=sys.stderr)
    elif ENDS[state] == EXIT_STOPPED:
        print("A study starts anew: submit it with another --name.", file=sys.stderr)
    return ENDS[state]


def _look(name: vertex_client.Name, jobs: Any, every: float) -> Any:
    """The job as it is now; failures that pass are waited out for PATIENCE seconds."""
    from google.api_core import exceptions

    passing = (exceptions.ServerError, exceptions.TooManyRequests, exceptions.RetryError)
    began = time.monotonic()
    while True:
        try:
            with vertex_client.said(f"a look at {name.full}", passing):
                return vertex_client.job(name, jobs)
        except passing as error:
            if time.monotonic() - began > PATIENCE:
                raise vertex_client.Refused(
                    f"Vertex AI must answer within {PATIENCE:.0f} s. Received: {error}. The job may go on. "
                    f"{_again(name)}"
                ) from None
        time.sleep(every)


def _open(name: vertex_client.Name) -> Log:
    with vertex_client.needed():
        from google.cloud.logging_v2.services.logging_service_v2 import LoggingServiceV2Client
    with vertex_client.said("a connection to Cloud Logging"):
        return Log(name, LoggingServiceV2Client())


def _read(log: Log) -> list[Any]:
    """Entries that were not seen before; none while the log cannot be read. That it may not be is said once."""
    from google.api_core import exceptions

    if log.client is None:
        return []
    wanted = f'resource.type="ml_job" AND resource.labels.job_id="{log.name.id}"'
    if log.newest:
        wanted += f' AND timestamp>="{(log.newest - datetime.timedelta(seconds=LATE)).isoformat()}"'
    request = {
        "resource_names": [f"projects/{log.name.project}"],
        "filter": wanted,
        "order_by": "timestamp asc",
        "page_size": 1000,
    }
    fresh = []
    try:
        for entry in log.client.list_log_entries(request=request, timeout=vertex_client.WITHIN, retry=None):
            key = (entry.log_name, entry.insert_id, entry.timestamp)
            if key not in log.seen:
                log.seen.add(key)
                fresh.append(entry)
    except (exceptions.Forbidden, exceptions.NotFound) as error:
        log.client = None
        print(
            f"note: the log may not be read ({error.message}); only states follow. roles/logging.viewer allows it.",
            file=sys.stderr,
        )
    except exceptions.GoogleAPIError:
        pass  # until the next look: what was read of it is kept
    return fresh


def _print(log: Log, fresh: list[Any]) -> None:
    """Print what was held, with whatever is fresh and older; hold the rest."""
    until = max((entry.timestamp for entry in log.held), default=None)
    entries = sorted([*log.held, *fresh], key=lambda entry: (entry.timestamp, entry.insert_id))
    log.held = [entry for entry in entries if until is None or entry.timestamp > until]
    for entry in entries[: len(entries) - len(log.held)]:
        print(line(entry), flush=True)
    log.newest = max((entry.timestamp for entry in entries), default=log.newest)


def _print_rest(log: Log, every: float) -> None:
    silent = 0
    for _ in range(LAST_LOOKS):
        fresh = _read(log)
        _print(log, fresh)
        silent = 0 if fresh else silent + 1
        if silent == 2:
            break
        time.sleep(every)
    _print(log, [])


def line(entry: Any) -> str:
    """Time (UTC), the machine, the words."""
    payload = type(entry).pb(entry).WhichOneof("payload")
    if payload == "json_payload":
        words = str(entry.json_payload.get("message", dict(entry.json_payload)))
    else:
        words = entry.text_payload if payload == "text_payload" else str(entry.proto_payload)
    where = dict(entry.resource.labels).get("task_name", "service")
    return f"{entry.timestamp:%H:%M:%S} {where} {words.rstrip()}"

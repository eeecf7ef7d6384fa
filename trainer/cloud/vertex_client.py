"""Vertex AI's jobs: a job is submitted once, and its state is read.

Nothing here waits without a bound: a request without a reply for google_api.REQUEST_TIMEOUT_S has failed.
"""

import contextlib
import dataclasses
import logging
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from trainer.cloud import google_api
from trainer.errors import Problem, UsageError, UserError

_LOG = logging.getLogger(__name__)

SUBMISSION_ATTEMPTS = 3
# After a lost reply the job is searched for, so often, and after so many seconds each time.
SEARCH_ATTEMPTS = 3
SEARCH_INTERVAL_S = 2.0
# Each submission gives its job this label with a value of its own, by which the job is found after a lost reply.
SUBMISSION_LABEL = "hubtune_submission"

# A resource's collection, and what the client's methods call one resource of it.
CUSTOM_JOBS, TUNING_JOBS = "customJobs", "hyperparameterTuningJobs"
_METHOD_NAMES = {CUSTOM_JOBS: "custom_job", TUNING_JOBS: "hyperparameter_tuning_job"}


@dataclasses.dataclass(frozen=True)
class JobName:
    """The parts of a job's resource name."""

    project: str
    region: str
    collection: str
    id: str

    @property
    def full(self) -> str:
        return f"projects/{self.project}/locations/{self.region}/{self.collection}/{self.id}"

    @property
    def console_url(self) -> str:
        """The page that google-cloud-aiplatform 2.7 links to."""
        return (
            f"https://console.cloud.google.com/agent-platform/locations/{self.region}/training/{self.id}"
            f"?project={self.project}"
        )


def parse_job_name(name: str) -> JobName:
    """The parts of a resource name. Raises UsageError if it is not a job's."""
    match name.strip().split("/"):
        case ["projects", project, "locations", region, collection, job_id] if (
            project and region and collection in _METHOD_NAMES and job_id
        ):
            return JobName(project, region, collection, job_id)
    required = "be projects/PROJECT/locations/REGION/customJobs/ID, as it was printed when the job was submitted"
    raise UsageError(Problem("--follow_job", required, name))


def connect(region: str) -> Any:
    """Google's client of the jobs in a region."""
    from google.cloud.aiplatform_v1.services.job_service import JobServiceClient

    return google_api.connect(JobServiceClient, region)


def submit_job(job: Mapping[str, Any], project: str, region: str, collection: str = CUSTOM_JOBS) -> JobName:
    """Submit a job, in the JSON mapping of its proto, exactly once. After a lost reply it is found by its label.

    Raises UserError with the flag to change.
    """
    from google.api_core import exceptions
    from google.cloud import aiplatform_v1
    from google.protobuf import json_format

    method_name, parent = _METHOD_NAMES[collection], f"projects/{project}/locations/{region}"
    submission_id = uuid.uuid4().hex
    message = getattr(aiplatform_v1, "".join(word.capitalize() for word in method_name.split("_")))()
    labeled = {**job, "labels": {**job.get("labels", {}), SUBMISSION_LABEL: submission_id}}
    try:
        json_format.ParseDict(labeled, type(message).pb(message))
    except json_format.ParseError as error:
        required = f"describe a {type(message).__name__} of Vertex AI"
        advice = "Change the flag that the message is about, such as --accelerator."
        raise UsageError(Problem("The flags", required, str(error), advice)) from None
    client = connect(region)
    create, list_jobs = getattr(client, f"create_{method_name}"), getattr(client, f"list_{method_name}s")
    # UNAVAILABLE, DEADLINE_EXCEEDED, INTERNAL and UNKNOWN: the job may exist all the same. UNIMPLEMENTED is an answer.
    reply_lost = (
        exceptions.ServiceUnavailable,
        exceptions.GatewayTimeout,
        exceptions.InternalServerError,
        exceptions.Unknown,
        exceptions.DataLoss,
        exceptions.RetryError,
    )
    for _ in range(SUBMISSION_ATTEMPTS):
        try:
            with google_api.translate_errors("the job", reply_lost):
                created = create(
                    parent=parent, **{method_name: message}, timeout=google_api.REQUEST_TIMEOUT_S, retry=None
                )
                return parse_job_name(created.name)
        except reply_lost as error:
            reason = google_api.describe_error(error)
            _LOG.warning("No reply to the submission: %s Searching for the job.", reason)
        answered, existing = _find_job(list_jobs, parent, submission_id)
        if existing:
            return parse_job_name(existing)
        if not answered:  # The job may exist: a second submission could make two of it.
            break
    advice = (
        f"It is not known whether the job exists: search for the label {SUBMISSION_LABEL}={submission_id} at "
        f"https://console.cloud.google.com/vertex-ai/training/custom-jobs?project={project} before you run the same "
        "command again. Check that --region is one that Vertex AI has."
    )
    raise UserError(Problem("Vertex AI", "answer to the submission", reason, advice))


def _find_job(list_jobs: Callable[..., Any], parent: str, submission_id: str) -> tuple[bool, str | None]:
    """(whether the service answered at all, the name of the job with this label)."""
    from google.api_core import exceptions

    answered = False
    for _ in range(SEARCH_ATTEMPTS):
        time.sleep(SEARCH_INTERVAL_S)
        with contextlib.suppress(exceptions.GoogleAPIError):
            request = {"parent": parent, "filter": f'labels.{SUBMISSION_LABEL}="{submission_id}"'}
            for job in list_jobs(request=request, timeout=google_api.REQUEST_TIMEOUT_S, retry=None):
                return True, str(job.name)
            answered = True
    return answered, None


def get_job(name: JobName, client: Any) -> Any:
    """The job as it is now. Raises google.api_core's errors."""
    method = getattr(client, f"get_{_METHOD_NAMES[name.collection]}")
    return method(name=name.full, timeout=google_api.REQUEST_TIMEOUT_S, retry=None)

"""Vertex AI's client: a job submitted once, and what it said of itself since.

Nothing here waits without a bound: a request that is silent for WITHIN seconds has failed.
"""

import contextlib
import dataclasses
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from trainer.errors import UsageError

# Seconds for one request.
WITHIN = 30.0
# A reply that is lost: looks for the job, the seconds before each, and how often it is sent in all.
LOOKS, PAUSE, SENT = 3, 2.0, 3
RENEW = "Renew them: gcloud auth application-default login."
# gRPC's words for credentials that could not be renewed: the request has not left this machine.
NOT_SENT = "metadata from plugin"
# On every job, so that a lost reply does not make two of it.
LABEL = "hubtune_submission"

# A resource's collection -> what the client's methods call one of it.
KINDS = {"customJobs": "custom_job", "hyperparameterTuningJobs": "hyperparameter_tuning_job"}


class Refused(ValueError):
    """What the service will not do, or did not answer: the message names the flag to change."""


@dataclasses.dataclass(frozen=True)
class Name:
    """A job's resource name, in parts."""

    project: str
    region: str
    collection: str
    id: str

    @property
    def full(self) -> str:
        return f"projects/{self.project}/locations/{self.region}/{self.collection}/{self.id}"

    @property
    def console(self) -> str:
        """The page that google-cloud-aiplatform 2.7 links to."""
        return (
            f"https://console.cloud.google.com/agent-platform/locations/{self.region}/training/{self.id}"
            f"?project={self.project}"
        )


def parsed(name: str) -> Name:
    """Raises UsageError for what is no job's name."""
    parts = name.strip().split("/")
    if len(parts) != 6 or parts[0] != "projects" or parts[2] != "locations" or parts[4] not in KINDS or "" in parts:
        raise UsageError(
            "A job's name must be projects/PROJECT/locations/REGION/customJobs/ID, as it was printed when the job was "
            f"submitted. Received: {name}."
        )
    return Name(parts[1], parts[3], parts[4], parts[5])


@contextlib.contextmanager
def needed() -> Iterator[None]:
    """Around the import of Google's clients: a plain message where they are not installed."""
    try:
        yield
    except ImportError as error:
        raise UsageError(
            "--target=vertex needs google-cloud-aiplatform and google-cloud-logging, hubtune's extra `cloud`. "
            f"Received: {error}. Install them: make environment."
        ) from None


def client(region: str) -> Any:
    """Google's client, with whatever credentials the environment gives it."""
    with needed():
        from google.cloud.aiplatform_v1.services.job_service import JobServiceClient
    with said(f"a connection to {region}"):
        return JobServiceClient(client_options={"api_endpoint": f"{region}-aiplatform.googleapis.com"})


@contextlib.contextmanager
def said(doing: str, but: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Turn what Google's client raises into Refused, with the flag to change; `but` for these."""
    from google.api_core import exceptions
    from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError

    advice = {
        exceptions.ResourceExhausted: "A quota is used up or none is there: change --machine, --replicas or --region, "
        "try --spot, or ask for more at https://console.cloud.google.com/iam-admin/quotas.",
        exceptions.PermissionDenied: "Change --project, or have roles/aiplatform.user given to the account that this "
        "runs as, act-as on --service_account, and the API aiplatform.googleapis.com enabled.",
        exceptions.NotFound: "Change --project, --region, or what --service_account, --network or --follow_job names.",
        exceptions.InvalidArgument: "Change the flag that the words above are of: --machine, --accelerator, --region, "
        "--image, --labels, --service_account or --network.",
        exceptions.FailedPrecondition: "Change --region, --service_account or --network, or what they refer to.",
        exceptions.Unauthenticated: RENEW,
    }
    try:
        yield
    except but:
        raise
    except DefaultCredentialsError:
        raise Refused(
            f"Vertex AI needs Google credentials for {doing}. Received: none. Run `gcloud auth application-default "
            "login`, or set GOOGLE_APPLICATION_CREDENTIALS to a service account's key file."
        ) from None
    except GoogleAuthError as error:
        raise Refused(f"Vertex AI needs credentials that are accepted. Received: {_short(error)} {RENEW}") from None
    except exceptions.GoogleAPICallError as error:
        status = error.grpc_status_code.name if error.grpc_status_code else str(error.code)
        more = next((words for kind, words in advice.items() if isinstance(error, kind)), "Run the same command again.")
        raise Refused(f"Vertex AI must allow {doing}. Received: {status}, {_short(error.message)} {more}") from None
    except exceptions.GoogleAPIError as error:
        raise Refused(f"Vertex AI did not answer to {doing}. Received: {_short(error)} Run it again.") from None


def _short(error: object) -> str:
    return " ".join(str(error).split())[:500].rstrip(".") + "."


def submit(job: Mapping[str, Any], project: str, region: str, collection: str = "customJobs") -> Name:
    """Submit a job, in the JSON mapping of its proto, once: where a reply is lost, it is looked for by its label.

    Raises Refused with the flag to change.
    """
    with needed():
        from google.api_core import exceptions
        from google.cloud import aiplatform_v1
        from google.protobuf import json_format

    kind, parent = KINDS[collection], f"projects/{project}/locations/{region}"
    mark = uuid.uuid4().hex
    message = getattr(aiplatform_v1, "".join(word.capitalize() for word in kind.split("_")))()
    labelled = {**job, "labels": {**job.get("labels", {}), LABEL: mark}}
    try:
        json_format.ParseDict(labelled, type(message).pb(message))
    except json_format.ParseError as error:
        raise ValueError(f"The job must be a {type(message).__name__} of Vertex AI. Received: {error}.") from None
    to = client(region)
    create, listing = getattr(to, f"create_{kind}"), getattr(to, f"list_{kind}s")
    lost = (exceptions.ServerError, exceptions.RetryError)  # UNAVAILABLE, DEADLINE_EXCEEDED, INTERNAL, UNKNOWN
    for _ in range(SENT):
        try:
            with said("the job", lost):
                return parsed(create(parent=parent, **{kind: message}, timeout=WITHIN, retry=None).name)
        except lost as error:
            why = _short(error)
            if NOT_SENT in why:
                raise Refused(f"Vertex AI needs credentials that are accepted. Received: {why} {RENEW}") from None
            print(f"no reply to the submission ({why[:200]}). Looking for the job.", file=sys.stderr)
        answered, found = _look(listing, parent, mark)
        if found:
            return parsed(found)
        if not answered:  # sent again, it could be there twice
            break
    raise Refused(
        f"Vertex AI must answer to the submission. Received: {why} Whether the job is there is not known: look for the "
        f"label {LABEL}={mark} at https://console.cloud.google.com/vertex-ai/training/custom-jobs?project={project} "
        "before you run the same command again."
    )


def _look(listing: Any, parent: str, mark: str) -> tuple[bool, str | None]:
    """Whether the service answered at all, and the name of the job with this label, of LOOKS looks."""
    from google.api_core import exceptions

    answered = False
    for _ in range(LOOKS):
        time.sleep(PAUSE)
        with contextlib.suppress(exceptions.GoogleAPIError):
            request = {"parent": parent, "filter": f'labels.{LABEL}="{mark}"'}
            for found in listing(request=request, timeout=WITHIN, retry=None):
                return True, str(found.name)
            answered = True
    return answered, None


def job(name: Name, to: Any) -> Any:
    """The job as it is now. Raises google.api_core's errors."""
    return getattr(to, f"get_{KINDS[name.collection]}")(name=name.full, timeout=WITHIN, retry=None)

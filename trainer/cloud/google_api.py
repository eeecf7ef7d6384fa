"""Google's clients, and the one translation of what they raise into messages for users.

Imports nothing of Google's at its top, so that --help answers at once.
"""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

from trainer.errors import Problem, UsageError, UserError
from trainer.runtime.versions import installed_version

# The longest that one request may take.
REQUEST_TIMEOUT_S = 30.0
# The distributions of the clients. All are in hubtune's extra `cloud`.
CLIENT_PACKAGES = ("google-cloud-aiplatform", "google-cloud-logging")
LOGIN_ADVICE = (
    "Run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS to the key file of a service "
    "account."
)
# What to do, by the error's reason where the service gives one, or else by its gRPC status. The reasons:
# https://github.com/googleapis/googleapis/blob/master/google/api/error_reason.proto
ADVICE = {
    "BILLING_DISABLED": "Link a billing account to --project: https://console.cloud.google.com/billing/linkedaccount.",
    "SERVICE_DISABLED": "Enable the services that docs/cloud.md lists, or change --project. If the message names "
    "another project, it is the credentials' own: gcloud auth application-default set-quota-project PROJECT.",
    "RESOURCE_EXHAUSTED": "A quota is used up, or there is none: change --machine, --replicas or --region, try --spot, "
    "or ask for more at https://console.cloud.google.com/iam-admin/quotas.",
    "PERMISSION_DENIED": "Change --project, or have its owner grant this account roles/aiplatform.user, and act-as on "
    "--service_account.",
    "NOT_FOUND": "Change --project, --region, or what --service_account, --network, --endpoint or --follow_job names.",
    "INVALID_ARGUMENT": "Change the flag that the message is about: --machine, --accelerator, --region, --image, "
    "--labels, --service_account or --network.",
    "FAILED_PRECONDITION": "Change --region, --service_account or --network, or what they refer to.",
    "UNIMPLEMENTED": "Change --region to one that Vertex AI has.",
    "UNAUTHENTICATED": LOGIN_ADVICE,
}


def check_installed() -> None:
    """Raises UsageError unless Google's clients are installed."""
    missing = [name for name in CLIENT_PACKAGES if installed_version(name) is None]
    if missing:
        advice = "Install them: make environment."
        received = f"an environment without {', '.join(missing)}"
        raise UsageError(Problem("This command", "run where hubtune's extra `cloud` is installed", received, advice))


@functools.cache
def load_credentials() -> Any:
    """The environment's credentials, with a fresh access token.

    Google's library finds and keeps them. They are renewed here, since gRPC would report a failure to do so as one of
    the connection. Raises UserError.
    """
    import google.auth
    from google.auth.transport.requests import Request

    with translate_errors("a connection"):
        credentials, _ = google.auth.default(scopes=["https://www.googleapis.com/auth/cloud-platform"])
        credentials.refresh(functools.partial(Request(), timeout=REQUEST_TIMEOUT_S))
    return credentials


def connect(client_class: Any, region: str = "") -> Any:
    """A client of this class with the environment's credentials. `region`: of Vertex AI's regional services.

    Raises UserError for credentials that are missing or refused.
    """
    options = {"api_endpoint": f"{region}-aiplatform.googleapis.com"} if region else {}
    return client_class(credentials=load_credentials(), client_options=options)


def describe_error(error: Any) -> str:
    """An error of Google's clients in one line: its status and its message."""
    status = getattr(error, "grpc_status_code", None)
    name = status.name if status else type(error).__name__
    message = " ".join(str(getattr(error, "message", None) or error).split())
    return f"{name}, {message[:500].rstrip('.')}."


@contextlib.contextmanager
def translate_errors(action: str, untranslated: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Turn what Google's clients raise, except `untranslated`, into UserError with the flag to change.

    `action` completes "The service must allow ...".
    """
    from google.api_core import exceptions
    from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError, TransportError

    try:
        yield
    except untranslated:
        raise
    except (exceptions.GoogleAPIError, GoogleAuthError) as error:
        status = getattr(error, "grpc_status_code", None)
        reason = getattr(error, "reason", None)
        if isinstance(error, GoogleAuthError) and not isinstance(error, TransportError):
            advice = LOGIN_ADVICE
        else:
            advice = ADVICE.get(reason or "") or ADVICE.get(
                status.name if status else "", "Run the same command again."
            )
        received = "no credentials" if isinstance(error, DefaultCredentialsError) else describe_error(error)
        raise UserError(Problem("The service", f"allow {action}", received, advice)) from None

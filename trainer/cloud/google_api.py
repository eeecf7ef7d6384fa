"""Requests to Google's services, each within a bound; what goes wrong is said with what to do about it.

Imports nothing of Google's at its top, so that --help answers at once.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

from trainer.errors import UsageError
from trainer.runtime.versions import installed_version

# Seconds for one try, for all tries of a request, and for one that must not be tried again.
TRY, WITHIN, ONCE = 4.0, 8.0, 30.0
# Seconds in which a service that was just enabled may go on saying that it is not: Google speaks of minutes.
FRESH = 300.0
# https://github.com/googleapis/googleapis/blob/master/google/api/error_reason.proto
DISABLED, BILLING = "SERVICE_DISABLED", "BILLING_DISABLED"
# gRPC's words for credentials that could not be renewed: the request has not left this machine.
NOT_SENT = "metadata from plugin"
# The distributions of the clients, all in hubtune's extra `cloud`.
CLIENTS = ("google-cloud-artifact-registry", "google-cloud-build", "google-cloud-service-usage")

Errors = tuple[type[Exception], ...]


class Refused(ValueError):
    """What a service will not do: the message says what was asked, what came, and what to change."""


class Unreached(Refused):
    """A service that did not answer; the same request may yet succeed."""


@functools.cache
def credentials() -> Any:
    """Whatever the environment gives; Google's library finds and keeps them, we never look inside."""
    import google.auth

    with said("any of this", "project"):
        return google.auth.default(scopes=["https://www.googleapis.com/auth/cloud-platform"])[0]


def check_installed() -> None:
    """Raises UsageError unless the clients are there."""
    missing = [name for name in CLIENTS if installed_version(name) is None]
    if missing:
        raise UsageError(
            f"hubtune's extra `cloud` is required. Received: no {', '.join(missing)}. Install it: make environment."
        )


def reason(error: Any) -> str:
    """The service's own word for a refusal, such as SERVICE_DISABLED; empty if it gave none."""
    return str(getattr(error, "reason", None) or "")


def asked(
    call: Callable[..., Any],
    request: Any,
    doing: str,
    project: str,
    *,
    but: Errors = (),
    fresh: bool = False,
    once: bool = False,
) -> Any:
    """The reply to a request; `doing` is for the message. Raises Refused, within WITHIN seconds, or one of `but`.

    `fresh`: the service was enabled a moment ago, and has FRESH seconds to notice. `once`: not to be sent again after
    a reply that was lost, since it would be done twice.
    """
    from google.api_core import exceptions, retry

    lost = (exceptions.ServiceUnavailable, exceptions.GatewayTimeout, exceptions.InternalServerError)

    def again(error: Exception) -> bool:
        unsure = isinstance(error, lost) and not _rejected(error)
        return (unsure and not once) or (fresh and reason(error) == DISABLED)

    tries = retry.Retry(again, initial=0.5, maximum=10.0, timeout=FRESH if fresh else WITHIN)
    with said(doing, project, but):
        return call(request=request, timeout=ONCE if once else TRY, retry=tries)


def finished(operation: Any, seconds: float, doing: str, project: str, but: Errors = ()) -> Any:
    """What a long-running operation ends with. Raises Refused, or one of `but`, if it fails or takes `seconds`."""
    with said(doing, project, but):
        try:
            return operation.result(timeout=seconds)
        except TimeoutError:
            raise Unreached(f"{doing} must end within {seconds:.0f} s. Received: nothing. Run it again.") from None


@contextlib.contextmanager
def said(doing: str, project: str, but: Errors = ()) -> Iterator[None]:
    """Turn what Google's clients raise into Refused, except `but`, which the caller makes something of."""
    import requests
    from google.api_core import exceptions
    from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError

    try:
        yield
    except but:
        raise
    except DefaultCredentialsError:
        raise Refused(
            f"Google credentials are required for {doing}. Received: none. Run `gcloud auth application-default "
            "login`, or set GOOGLE_APPLICATION_CREDENTIALS to a service account's key file."
        ) from None
    except (exceptions.GoogleAPIError, GoogleAuthError, requests.RequestException) as error:
        cause = getattr(error, "cause", None) or error
        kind = Unreached if _lost(cause) else Refused
        raise kind(f"{doing} must be allowed. Received: {_words(cause)} {_advice(cause, project)}") from None


def _lost(error: Any) -> bool:
    from google.api_core import exceptions

    return not isinstance(error, exceptions.ClientError) and not _rejected(error)


def _rejected(error: Any) -> bool:
    """Whether it is the credentials that are at fault."""
    from google.api_core import exceptions
    from google.auth.exceptions import GoogleAuthError, TransportError

    ours = isinstance(error, GoogleAuthError) and not isinstance(error, TransportError)
    return ours or isinstance(error, exceptions.Unauthorized) or NOT_SENT in str(error)


def _advice(error: Any, project: str) -> str:
    from google.api_core import exceptions

    if reason(error) == BILLING or "billing" in str(error).lower():
        return (
            "The project needs a billing account: link one at "
            f"https://console.cloud.google.com/billing/linkedaccount?project={project}, then run this again."
        )
    if reason(error) == DISABLED:
        service = (getattr(error, "metadata", None) or {}).get("service", "that it names")
        return (
            f"Enable the service: `gcloud services enable {service} --project={project}`, then run this again. If "
            "these words name another project, it is the credentials' own: `gcloud auth application-default "
            f"set-quota-project {project}`."
        )
    if _rejected(error):
        return "Renew the credentials: `gcloud auth application-default login`."
    if isinstance(error, exceptions.Forbidden):
        return (
            f"Check --project ({project}), or have its owner give the account that this runs as roles/editor and "
            "roles/serviceusage.serviceUsageAdmin."
        )
    if isinstance(error, exceptions.TooManyRequests):
        return f"Ask for more at https://console.cloud.google.com/iam-admin/quotas?project={project}, or wait."
    if isinstance(error, exceptions.ClientError):
        return "Change the flag that these words are about."
    return "Run the same command again: it goes on from what is done."


def _words(error: Any) -> str:
    """The status and the service's words, in one line."""
    status = getattr(error, "grpc_status_code", None)
    what = status.name if status is not None else str(getattr(error, "code", None) or type(error).__name__)
    words = " ".join(str(getattr(error, "message", None) or error).split())[:300].rstrip(".")
    return f"{what}, {words}."

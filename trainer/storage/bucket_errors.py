"""What a bucket's service answers, in words for users: its own reason, and the advice that fits that reason."""

import contextlib
import json
from collections.abc import Iterator

from trainer.errors import Problem
from trainer.storage import retries

# The variable from which Google's libraries take the project that pays for requests.
PAYING_PROJECT_VARIABLE = "GOOGLE_CLOUD_QUOTA_PROJECT"
MAX_REASON_LENGTH = 400
# Words of the service's reason -> what to do. https://cloud.google.com/storage/docs/json_api/v1/status-codes
_ADVICE = (
    # First: it names an account, whose name may have any of the words below.
    ("does not have storage.", "Grant the account that this runs as roles/storage.objectAdmin, or name another path."),
    ("vpcservicecontrols", "Give the identifier to who administers the organization's service perimeter."),
    ("requester pays", f"Set {PAYING_PROJECT_VARIABLE} to the project that pays for the requests."),
    ("serviceusage", f"Set {PAYING_PROJECT_VARIABLE} to a project that this account may use."),
    ("billing", "Enable the billing of the bucket's project, or name another bucket."),
    ("kms", "Enable the bucket's encryption key for the service, or name another bucket."),
    ("retention", "Files are replaced and deleted here: name a bucket without a retention policy."),
    (" hold and cannot", "Files are replaced and deleted here: name a bucket without holds."),
)
_CREDENTIALS_ADVICE = (
    "Run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS to a file of credentials."
)
_IMPERSONATION_ADVICE = "Grant the caller roles/iam.serviceAccountTokenCreator on the account that it impersonates."


class BucketError(OSError):
    """A bucket that cannot be used. The arguments are those of its `problem`, whose setting is the path."""

    def __init__(self, path: str, required: str, received: str, advice: str = "") -> None:
        self.problem = Problem(path, required, received, advice)
        super().__init__(str(self.problem))


def missing_bucket_error(path: str) -> BucketError:
    """The error for a path whose bucket does not exist."""
    bucket = "/".join(path.split("/")[:3])
    return BucketError(path, "be in a bucket that exists", f"no bucket {bucket}", "Make it, or name another path.")


@contextlib.contextmanager
def translate_errors(path: str, doing: str) -> Iterator[None]:
    """Turn what Google's client raises into FileNotFoundError, for a missing object, or BucketError.

    `doing` is what the bucket was asked for, such as "writing".
    """
    import requests
    from google.api_core import exceptions
    from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError, OAuthError, RefreshError
    from google.cloud.storage.exceptions import DataCorruption, InvalidResponse

    try:
        yield
    except exceptions.NotFound as error:
        reason = _find_reason(error)
        if reason.startswith("The specified bucket does not exist"):
            raise missing_bucket_error(path) from None
        raise FileNotFoundError(f"{path} does not exist ({doing}).") from None
    except exceptions.Unauthorized as error:
        raise _credentials_error(path, f"401, {_find_reason(error)}") from None
    except exceptions.GoogleAPICallError as error:
        reason = _find_reason(error)
        if error.code in (408, 429) or not 400 <= (error.code or 0) < 500:
            raise _unreachable_error(path, doing, f"{error.code}, {reason}") from None
        advice = next((advice for words, advice in _ADVICE if words in reason.lower()), "")
        raise BucketError(path, f"allow {doing}", f"{error.code}, {reason}", advice) from None
    except (DefaultCredentialsError, OAuthError, RefreshError) as error:
        received = _describe_refusal(error)
        if error.retryable:  # A service of tokens that is out of order.
            raise _unreachable_error(path, doing, received) from None
        raise _credentials_error(path, received) from None
    except (
        GoogleAuthError,
        DataCorruption,
        InvalidResponse,
        exceptions.GoogleAPIError,
        requests.RequestException,
    ) as error:
        cause = getattr(error, "cause", None) or error
        raise _unreachable_error(path, doing, _describe(cause)) from None


def _credentials_error(path: str, received: str) -> BucketError:
    if "Anonymous c" in received:  # Of the service, or of google-auth, which would renew them after a 401.
        received = "none"
    advice = _IMPERSONATION_ADVICE if "getAccessToken" in received else _CREDENTIALS_ADVICE
    return BucketError(path, "be used with Google credentials that the service accepts", received, advice)


def _unreachable_error(path: str, doing: str, received: str) -> BucketError:
    setting = f"{retries.RETRY_VARIABLE} ({retries.retry_seconds():.0f})"
    advice = f"Run the same command again. {setting} is how long a failure is retried, in seconds."
    if "CERTIFICATE_VERIFY_FAILED" in received:
        advice = "Set REQUESTS_CA_BUNDLE to a file with the certificates that this network's servers have."
    return BucketError(path, f"be reachable for {doing}", received, advice)


def _describe(error: Exception) -> str:
    response = getattr(error, "response", None)
    if response is not None and response.status_code >= 400:  # A corrupt download has one as well, and it is no reason.
        return f"{response.status_code}, {_find_reason(error)}"
    return f"{type(error).__name__}: {_first_line(error)}"


def _describe_refusal(error: Exception) -> str:
    """Why there is no token: google-auth's words, and those of the service where google-auth leaves them out."""
    words, body = (*error.args, "", "")[:2]
    reason = _find_message(body)
    return f"{_first_line(words)}: {reason}" if reason and reason not in str(words) else _first_line(words)


def _find_reason(error: Exception) -> str:
    """The service's own reason: its reply's error.message, or else the reply. Without the URL, which names no cause."""
    text = getattr(getattr(error, "response", None), "text", None) or ""
    text = _find_message(text) or text or getattr(error, "message", "") or str(error)
    return " ".join(str(text).split())[:MAX_REASON_LENGTH].rstrip(".")


def _find_message(body: object) -> str:
    """error.message of a reply in JSON; "" if it has none."""
    try:
        return " ".join(str(json.loads(str(body))["error"]["message"]).split())[:MAX_REASON_LENGTH].rstrip(".")
    except (ValueError, KeyError, TypeError):
        return ""


def _first_line(error: object) -> str:
    return str(error).partition("\n")[0][:MAX_REASON_LENGTH].rstrip(".")

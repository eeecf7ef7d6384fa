"""The translation of errors from Google's clients into messages."""

import pytest
from google.api import error_reason_pb2
from google.api_core import exceptions
from google.auth.exceptions import DefaultCredentialsError, RefreshError, TransportError
from google.rpc import error_details_pb2

from trainer.cloud import google_api
from trainer.errors import UsageError, UserError

DISABLED = error_details_pb2.ErrorInfo(reason="SERVICE_DISABLED", domain="googleapis.com")


@pytest.mark.parametrize(
    ("error", "received", "advice"),
    [
        (exceptions.ResourceExhausted("Quota."), "RESOURCE_EXHAUSTED, Quota.", "--machine"),
        (exceptions.InvalidArgument("a\nb"), "INVALID_ARGUMENT, a b.", "--accelerator"),
        (
            exceptions.Unauthenticated("No token."),
            "UNAUTHENTICATED, No token.",
            "gcloud auth application-default login",
        ),
        (RefreshError("invalid_grant"), "RefreshError, invalid_grant.", "gcloud auth application-default login"),
        (DefaultCredentialsError("None."), "no credentials", "gcloud auth application-default login"),
        (TransportError("No route."), "TransportError, No route.", "Run the same command again."),
        (exceptions.ServiceUnavailable("Closed."), "UNAVAILABLE, Closed.", "Run the same command again."),
        (exceptions.PermissionDenied("Off.", error_info=DISABLED), "PERMISSION_DENIED, Off.", "docs/cloud.md"),
    ],
)
def test_an_error_becomes_its_status_its_message_and_what_to_do(error, received, advice):
    with pytest.raises(UserError) as caught, google_api.translate_errors("the job"):
        raise error
    (problem,) = caught.value.problems
    assert problem.received == received
    assert advice in problem.advice


def test_the_reasons_are_google_s():
    statuses = {"RESOURCE_EXHAUSTED", "PERMISSION_DENIED", "NOT_FOUND", "INVALID_ARGUMENT", "FAILED_PRECONDITION"}
    reasons = set(google_api.ADVICE) - statuses - {"UNIMPLEMENTED", "UNAUTHENTICATED"}
    assert reasons <= set(error_reason_pb2.ErrorReason.keys())


def test_an_error_that_the_caller_handles_is_not_translated():
    with (
        pytest.raises(exceptions.NotFound),
        google_api.translate_errors("the job", (exceptions.NotFound,)),
    ):
        raise exceptions.NotFound("Not there.")


def test_a_client_that_is_not_installed_is_named(monkeypatch):
    google_api.check_installed()
    monkeypatch.setattr(google_api, "CLIENT_PACKAGES", ("google-cloud-logging", "google-cloud-no-such-thing"))
    with pytest.raises(UsageError, match=r"google-cloud-no-such-thing\. Install"):
        google_api.check_installed()

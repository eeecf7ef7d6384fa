"""What a user is told of an answer of Google's, by the answer."""

import pytest
from google.api import error_reason_pb2
from google.api_core import exceptions
from google.auth.exceptions import RefreshError, TransportError

from trainer.cloud import google_api
from trainer.cloud.google_api import Refused, Unreached, said
from trainer.errors import UsageError


@pytest.mark.parametrize(
    ("error", "kind", "status", "advice"),
    [
        (
            exceptions.ResourceExhausted("Quota."),
            Refused,
            "RESOURCE_EXHAUSTED, Quota.",
            "console.cloud.google.com/iam-admin/quotas",
        ),
        (exceptions.InvalidArgument("No location."), Refused, "INVALID_ARGUMENT, No location.", "Change the flag"),
        (exceptions.Unauthenticated("No token."), Refused, "UNAUTHENTICATED, No token.", "Renew the credentials"),
        (RefreshError("invalid_grant"), Refused, "RefreshError, invalid_grant.", "Renew the credentials"),
        (TransportError("No route."), Unreached, "TransportError, No route.", "Run the same command again"),
        (exceptions.ServiceUnavailable("Closed."), Unreached, "UNAVAILABLE, Closed.", "Run the same command again"),
        (
            exceptions.Forbidden("The billing account is closed."),
            Refused,
            "403, The billing",
            "billing/linkedaccount?project=p-1",
        ),
        (exceptions.RetryError("Timeout.", exceptions.Forbidden("No.")), Refused, "403, No.", "Check --project (p-1)"),
    ],
)
def test_a_message_has_the_status_the_words_and_what_to_do(error, kind, status, advice):
    with pytest.raises(Refused) as caught, said("a look", "p-1"):
        raise error
    assert type(caught.value) is kind
    assert str(caught.value).startswith(f"a look must be allowed. Received: {status}")
    assert advice in str(caught.value)


def test_the_reasons_are_google_s():
    assert {google_api.DISABLED, google_api.BILLING} <= set(error_reason_pb2.ErrorReason.keys())


def test_what_the_caller_makes_something_of_comes_through():
    with pytest.raises(exceptions.NotFound), said("a look", "p-1", (exceptions.NotFound,)):
        raise exceptions.NotFound("Not there.")


def test_a_client_that_is_not_installed_is_named(monkeypatch):
    google_api.check_installed()
    monkeypatch.setattr(google_api, "CLIENTS", ("google-cloud-build", "google-cloud-no-such-thing"))
    with pytest.raises(UsageError, match=r"Received: no google-cloud-no-such-thing\. Install it: make environment"):
        google_api.check_installed()

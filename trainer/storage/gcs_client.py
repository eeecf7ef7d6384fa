"""The one client of buckets that a process has, with its credentials and certificates."""

import functools
import os
from typing import Any


@functools.cache
def client() -> Any:
    """Google's client, with the credentials that it finds in the environment. They never pass through our code.

    Without any it is anonymous, which is enough to read a public bucket. Raises what google-auth raises for credentials
    that cannot be read.
    """
    # Outside Google Cloud no metadata server answers: two attempts of 3 s at most, for Google's three (12 s in all).
    os.environ.setdefault("GCE_METADATA_DETECT_RETRIES", "2")
    certificates = os.environ.get("SSL_CERT_FILE")
    if certificates and not any(map(os.environ.get, ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"))):  # What requests reads.
        os.environ["REQUESTS_CA_BUNDLE"] = certificates
    import google.auth
    from google.auth.exceptions import DefaultCredentialsError
    from google.cloud import storage

    try:
        # With scopes it would also look for a project, and for federated credentials wait two minutes for an answer.
        credentials = None if os.environ.get("STORAGE_EMULATOR_HOST") else google.auth.default()[0]
    except DefaultCredentialsError as error:
        if "credentials were not found" not in str(error):
            raise
        return storage.Client.create_anonymous_client()
    # A project owns buckets; objects are read and written without one.
    return storage.Client(project="none", credentials=credentials)

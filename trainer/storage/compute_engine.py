"""The Compute Engine machine that this process may run on."""

import http.client
import os
import urllib.request

# The metadata server's address: on other machines its name, metadata.google.internal, may take 20 s to fail to resolve.
# https://cloud.google.com/compute/docs/metadata/querying-metadata
METADATA_ADDRESS = "169.254.169.254"
REQUEST_TIMEOUT_S = 1.0


def find_region() -> str | None:
    """The machine's region, such as us-central1; None on any other machine, after a second at most."""
    if os.environ.get("NO_GCE_CHECK", "").lower() == "true":
        return None
    host = os.environ.get("GCE_METADATA_HOST", METADATA_ADDRESS)
    url, headers = f"http://{host}/computeMetadata/v1/instance/zone", {"Metadata-Flavor": "Google"}
    try:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(urllib.request.Request(url, headers=headers), timeout=REQUEST_TIMEOUT_S) as reply:
            zone = str(reply.read(200).decode()).rsplit("/", 1)[-1]
    except (OSError, ValueError, http.client.HTTPException):
        return None
    return zone.rsplit("-", 1)[0]

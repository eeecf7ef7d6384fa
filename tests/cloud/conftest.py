"""What the tests of the cloud share: job requests, objects in the simulated bucket, and a machine without a network."""

import os
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from types import MappingProxyType

import pytest
from fakes import gcs
from helpers import ROOT

from trainer.cloud import job_request
from trainer.cloud.job_request import JobOptions, JobRequest
from trainer.cloud.machine_types import SHORT_NAMES, MachineNames


@pytest.fixture(scope="session")
def build_request() -> Callable[..., JobRequest]:
    """A function of changed options -> the request of the smoke preset on one machine without GPUs."""

    def build(
        short_names: MachineNames = SHORT_NAMES, variables: Mapping[str, str] = MappingProxyType({}), **changes
    ) -> JobRequest:
        options = {"config": "configs/smoke.yaml", "project": "p", "region": "us-central1", "bucket": "b"}
        options |= {"name": "run_1", "machine": "cpu"}
        return job_request.build_job_request(JobOptions(**{**options, **changes}), "1.2.3", short_names, variables)

    return build


@pytest.fixture(scope="session")
def offline() -> dict[str, str]:
    """An environment with nothing of this user's, whose proxy does not exist: whatever uses the network fails."""
    proxy = "http://127.0.0.1:9"
    variables = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": "/nonexistent"}
    return {**variables, "https_proxy": proxy, "http_proxy": proxy}


@pytest.fixture
def write_object(simulator) -> Callable[[str, bytes], None]:
    """A function that writes an object of gs://bucket."""

    def write(name: str, content: bytes) -> None:
        query = urllib.parse.urlencode({"uploadType": "media", "name": name})
        address = f"http://127.0.0.1:{simulator.port}/upload/storage/v1/b/bucket/o?{query}"
        gcs.DIRECT.open(urllib.request.Request(address, content, method="POST"), timeout=10).close()

    return write

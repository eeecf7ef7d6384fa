"""The simulator from a test's side: start it, break it, ask what it was asked, and the environment of its clients."""

import contextlib
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Simulator:
    folder: Path
    port: int

    def ask(self, what: str, value: object = None):
        body = None if value is None else json.dumps(value).encode()
        with DIRECT.open(f"http://127.0.0.1:{self.port}/control/{what}", body, timeout=10) as reply:
            return json.loads(reply.read())

    def bucket(self, name: str, **values) -> str:
        """Make a bucket, or change one for an empty one; its address."""
        self.ask("buckets", {"name": name, **values})
        return f"gs://{name}"

    @contextlib.contextmanager
    def faults(self, *faults: dict) -> Iterator[None]:
        self.ask("faults", faults)
        try:
            yield
        finally:
            self.ask("faults", [])

    def log(self) -> list[dict]:
        return self.ask("log")

    def environment(self, **changes: str) -> dict[str, str]:
        """For a process whose clients are to find the simulator: no other variable of Google's or of a proxy.

        Nor TensorFlow's own settings, which importing trainer has put into this process.
        """
        theirs = ("GCS_", "GOOGLE_", "STORAGE_")
        ours = {
            name: value
            for name, value in os.environ.items()
            if not name.lower().endswith("_proxy") and not name.startswith(theirs)
        }
        proxy = f"http://127.0.0.1:{self.port}"
        return {
            **ours,
            "https_proxy": proxy,
            "HTTPS_PROXY": proxy,
            "CURL_CA_BUNDLE": str(self.folder / "ca.pem"),
            "REQUESTS_CA_BUNDLE": str(self.folder / "ca.pem"),
            "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": str(self.folder / "ca.pem"),
            "GOOGLE_APPLICATION_CREDENTIALS": str(self.folder / "credentials.json"),
            "NO_GCE_CHECK": "true",
            **changes,
        }


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Simulator]:
    """A simulator for as long as the block lasts."""
    command = [sys.executable, str(Path(__file__).with_name("gcs_simulator.py")), str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        try:
            yield Simulator(folder, json.loads(child.stdout.readline())["port"])
        finally:
            child.stdin.close()
            child.wait(10)

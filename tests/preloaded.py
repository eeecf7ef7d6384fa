"""Commands of the project in processes that begin with TensorFlow imported: forks of one that has imported it.

An import takes 4 s of a processor, and the tests run hundreds of commands. A fork differs from a process of its own in
this alone: PACKAGES are imported, and the project is not. What kills a process, or is about its imports, has to start a
real one. With the variable REAL_PROCESSES, all are.
"""

import contextlib
import dataclasses
import functools
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

PACKAGES = (
    *("tensorflow", "tensorflow_hub", "tensorflow_text", "tf_keras", "official.nlp.modeling.layers"),
    *("pyarrow", "scipy.optimize", "sklearn.feature_extraction.text", "sklearn.linear_model"),
)
# Variables that are read while these packages are imported.
READ_AT_IMPORT = ("TF_", "XLA_", "ONEDNN_", "OMP_", "CUDA_", "GRPC_", "LD_", "PYTHON")
NUMBER_BYTES = 8
OPTIONS = {"cwd", "env", "input", "text", "timeout", "capture_output"}


@dataclasses.dataclass
class Process:
    """A process that was started, as a subprocess.Popen without pipes."""

    command: list[str]
    pid: int
    connection: socket.socket  # The server's, which sends the exit code.
    returncode: int | None = None

    def wait(self, timeout: float | None = None) -> int:
        """The exit code. Raises subprocess.TimeoutExpired."""
        if self.returncode is None:
            self.connection.settimeout(timeout)
            try:
                self.returncode = _read_number(self.connection)
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired(self.command, timeout or 0) from None
            self.connection.close()
        return self.returncode

    def poll(self) -> int | None:
        """The exit code, None while the process runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.wait(0)
        return None

    def send_signal(self, number: int) -> None:
        """Send a signal, if the process still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


def can_run(command: list[str], options: Mapping[str, Any]) -> bool:
    """Whether `run` does what subprocess.run does with this command of Python's."""
    known = command[1:2] == ["-m"] or command[1:2][0].startswith("scripts/")

    def read_at_import(variables: Mapping[str, str]) -> dict[str, str]:
        names = (name for name in variables if name.startswith(READ_AT_IMPORT) and name != "TF_CONFIG")
        return {name: variables[name] for name in names}

    same = read_at_import(options.get("env") or os.environ) == read_at_import(os.environ)
    return "REAL_PROCESSES" not in os.environ and known and same and set(options) <= OPTIONS


def start(
    command: list[str], *, cwd: Path, stdin: IO[Any], stdout: IO[Any], stderr: IO[Any], env: Mapping[str, str] | None
) -> Process:
    """As subprocess.Popen."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(_server())
    request = {"arguments": command[1:], "cwd": str(cwd), "env": dict(os.environ if env is None else env)}
    body = json.dumps(request).encode()
    files = [file.fileno() for file in (stdin, stdout, stderr)]
    socket.send_fds(connection, [len(body).to_bytes(NUMBER_BYTES, "big")], files)
    connection.sendall(body)
    return Process(command, _read_number(connection), connection)


def run(command: list[str], *, cwd: Path, timeout: float, **options: Any) -> subprocess.CompletedProcess:
    """As subprocess.run with capture_output. Raises subprocess.TimeoutExpired, with the process killed."""
    with contextlib.ExitStack() as stack:
        given, out, error = (stack.enter_context(tempfile.TemporaryFile()) for _ in range(3))
        text = options.get("input") or b""
        given.write(text.encode() if isinstance(text, str) else text)
        given.seek(0)
        process = start(command, cwd=cwd, stdin=given, stdout=out, stderr=error, env=options.get("env"))
        try:
            code = process.wait(timeout)
        finally:
            process.kill()
        outputs = []
        for file in (out, error):
            file.seek(0)
            content = file.read()
            outputs.append(content.decode().replace("\r\n", "\n") if options.get("text") else content)
    return subprocess.CompletedProcess(command, code, *outputs)


def _read_number(connection: socket.socket) -> int:
    """The next one that _send_number sent."""
    content = b""
    while len(content) < NUMBER_BYTES:
        part = connection.recv(NUMBER_BYTES - len(content))
        assert part, "the process that is forked has ended"
        content += part
    return int.from_bytes(content, "big", signed=True)


def _send_number(connection: socket.socket, number: int) -> None:
    connection.sendall(number.to_bytes(NUMBER_BYTES, "big", signed=True))


@functools.cache
def _server() -> str:
    """The address of the process that is forked, which ends with this one."""
    address = f"{tempfile.mkdtemp()}/socket"
    server = subprocess.Popen(
        [sys.executable, __file__, address], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert server.stdout is not None
    assert server.stdout.readline() == b"ready\n"
    return address


def _serve(address: str) -> dict[str, Any]:
    """Fork for every request. Returns it, in the process that has to do it."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # Nobody waits for those that wait for the commands.
    print("ready", flush=True)
    while True:
        readable, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in readable:
            os._exit(0)  # The process that started this one has ended.
        connection, _ = listener.accept()
        if os.fork():
            connection.close()
            continue
        listener.close()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        size, files, _, _ = socket.recv_fds(connection, NUMBER_BYTES, 3)
        with connection.makefile("rb") as stream:
            request = json.loads(stream.read(int.from_bytes(size, "big")))
        if pid := os.fork():
            _send_number(connection, pid)
            _, status = os.waitpid(pid, 0)
            with contextlib.suppress(BrokenPipeError):  # Who asked has given up.
                _send_number(connection, os.waitstatus_to_exitcode(status))
            os._exit(0)
        connection.close()
        for number, file in enumerate(files):
            os.dup2(file, number)
            os.close(file)
        return request


def _become(request: dict[str, Any]) -> None:
    """Do what Python does with these arguments, in this environment."""
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    first, *rest = request["arguments"]
    if first == "-m":
        sys.argv = rest
        sys.path[0] = os.getcwd()
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = [first, *rest]
        sys.path[0] = os.path.dirname(os.path.abspath(first))
        runpy.run_path(first, run_name="__main__")


if __name__ == "__main__":
    # conftest.py has imported the project, and with it set TensorFlow's variables for all processes.
    for package in PACKAGES:
        importlib.import_module(package)
    gc.freeze()  # No collection of a fork walks through what is imported, which would copy its pages.
    _become(_serve(sys.argv[1]))

"""Google Cloud Storage on the loopback, with faults, as a process.

  python tests/fakes/gcs_simulator.py FOLDER [FAULTS.json]

It is a proxy (https_proxy) that terminates TLS for the service's hosts, with a certificate made at the start, and
rejects every other host: nothing leaves 127.0.0.1. It writes FOLDER/ca.pem and FOLDER/credentials.json, the key of a
service account that does not exist, prints {"port": N} and ends when its standard input is closed.

Faults are a list of JSON objects. The first one that matches a request is applied to it:
  do       status      reply with the number `status` (default 503) and the reason `message` instead
           reset       reset the connection before anything is done
           lose reply  handle the request, then reset the connection
           hang        send nothing for `seconds`, then reset the connection
           slow        wait `seconds`, then reply
           truncate    declare the complete body, send half of it, reset the connection
           short       send the first `bytes` of the body (default: half) as if they were all
           flip        invert one byte in the middle of the body
           deny        remove the permission `permission`, from this request on and for good
  match    a regular expression, searched for in "METHOD host/path?query"; default: everything
  after    how many matching requests pass first (default 0)
  times    to how many it is then applied (default 1; -1: all)
  seed, rate   instead of `after`: it is applied to request n if a generator seeded with (seed, n) draws below `rate`;
               `do` may then be a list, from which it draws. The same requests in the same order get the same faults.
`short`, `flip` and `truncate` match only requests with a body to corrupt: reads of an object's bytes.

Control, in plain HTTP to the same port: POST /control/faults (a list, which replaces the one before), GET /control/log
([{"seconds", "request", "range", "agent", "outcome", and for a completed upload "wrote"}]; no token is kept),
POST /control/buckets (the values of gcs_objects.Bucket; "remove": true removes it), POST /control/tunnels ({host:
port}: a connection to the host is forwarded unchanged to the local port), POST /control/wipe.
"""

import contextlib
import json
import os
import random
import re
import socket
import ssl
import sys
import threading
import time
import traceback
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

sys.path.insert(0, str(Path(__file__).parents[1]))  # It is run as a script.

from fakes import gcs_certificate, gcs_objects, gcs_requests

SERVICES = ("www", "storage", "oauth2", "sts", "iamcredentials", "cloudresourcemanager")
HOSTS = tuple(f"{name}.googleapis.com" for name in SERVICES)
NAMES = (*HOSTS, "*.googleapis.com")  # Those of the certificate, which servers behind a tunnel use as well.
CORRUPTING = ("truncate", "short", "flip")


@dataclass
class Fault:
    do: str | list[str]
    match: str = ""
    status: int = 503
    message: str = "injected"
    seconds: float = 0.0
    bytes: int | None = None
    permission: str = ""
    after: int = 0
    times: int = 1
    seed: int | None = None
    rate: float = 0.0
    matched: int = 0  # How many requests have matched.
    applied: int = 0  # To how many of them it has been applied.

    def choose(self, request: str, reads: bool) -> str | None:
        """What to do to a request, in the form that `match` documents; None for nothing. Counts it if it matches."""
        if not re.search(self.match, request) or (isinstance(self.do, str) and self.do in CORRUPTING and not reads):
            return None
        self.matched += 1
        if self.seed is not None:
            rng = random.Random(f"{self.seed} {self.matched}")
            chosen = rng.choice([self.do] if isinstance(self.do, str) else self.do)
            applies = rng.random() < self.rate and (reads or chosen not in CORRUPTING)
            return chosen if applies else None
        if self.matched <= self.after or 0 <= self.times <= self.applied:
            return None
        self.applied += 1
        return str(self.do)


@dataclass
class State:
    service: gcs_objects.Service = field(default_factory=gcs_objects.Service)
    faults: list[Fault] = field(default_factory=list)
    denied: list[str] = field(default_factory=list)
    log: list[dict] = field(default_factory=list)
    tunnels: dict[str, int] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    state: State
    context: ssl.SSLContext
    host = ""  # The one that the client addresses; empty for a control request.

    def log_message(self, *_) -> None:
        pass

    def do_CONNECT(self) -> None:
        self.host = self.path.rsplit(":", 1)[0]
        if self.host in self.state.tunnels:
            self.send_response(200)
            self.end_headers()
            forward(self.connection, self.state.tunnels[self.host])
            self.close_connection = True
            return
        if self.host not in HOSTS:
            self.send_error(403, "The simulator reaches no other host.")
            return
        self.send_response(200)
        self.end_headers()
        try:
            self.connection = self.context.wrap_socket(self.connection, server_side=True)
        except OSError:  # The client does not trust the certificate, or has gone.
            self.close_connection = True
            return
        self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb", 1 << 16)
        self.close_connection = False

    def reset(self) -> None:
        """End the connection with a reset, as a server that crashes does."""
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            os.close(self.connection.detach())

    def send(self, reply: gcs_objects.Reply, keep: int | None = None) -> None:
        """Send the reply, or its headers and the first `keep` bytes of its body."""
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            if name == "Location":
                value = f"https://{self.host}{value}"
            self.send_header(name, value)
        if reply.status != 204:
            self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        self.wfile.write(reply.body if keep is None else reply.body[:keep])
        self.wfile.flush()

    def serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path.startswith("/control/"):
            self.send(control(self.state, self.path, body))
            return
        address = urlsplit(self.path)
        request = gcs_objects.Request(
            self.command, address.path, parse_qs(address.query, keep_blank_values=True), self.headers, body
        )
        described = f"{self.command} {self.host}{self.path}"
        reads = self.command == "GET" and "alt=media" in address.query
        with self.state.lock:
            choices = ((fault, fault.choose(described, reads)) for fault in self.state.faults)
            fault, action = next((pair for pair in choices if pair[1]), (Fault(""), None))
            if action == "deny":
                self.state.denied.append(fault.permission)
            entry = {"seconds": round(time.time(), 3), "request": described, "range": self.headers.get("Range")}
            entry["agent"] = self.headers.get("User-Agent")
            self.state.log.append(entry)
        self.apply(fault, action, request, entry)

    def apply(self, fault: Fault, action: str | None, request: gcs_objects.Request, entry: dict) -> None:
        entry["outcome"] = action
        if action in ("hang", "slow"):
            time.sleep(fault.seconds)
        if action in ("hang", "reset"):
            self.reset()
            return
        if action == "status":
            entry["outcome"] = fault.status
            self.send(gcs_objects.Reply(fault.status, error_body(fault.status, fault.message), {}))
            return
        with self.state.lock:
            reply = handle(self.state.service, replace(request, denied=tuple(self.state.denied)))
        entry["outcome"] = f"{reply.status} {action}" if action else reply.status
        if request.path.startswith("/upload/") and reply.status == 200 and reply.body:
            entry["wrote"] = json.loads(reply.body)["name"]
        middle = len(reply.body) // 2
        if action == "lose reply":
            self.reset()
        elif action == "truncate":
            self.send(reply, middle)
            self.reset()
        elif action == "short":
            self.send(replace(reply, body=reply.body[: middle if fault.bytes is None else fault.bytes]))
        elif action == "flip" and reply.body:
            flipped = bytes([reply.body[middle] ^ 0xFF])
            self.send(replace(reply, body=reply.body[:middle] + flipped + reply.body[middle + 1 :]))
        else:
            self.send(reply)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = serve  # noqa: N815


def forward(client: socket.socket, port: int) -> None:
    """Forward bytes between a client and a local port, both ways, until both are done."""

    def pump(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)) as server:
        back = threading.Thread(target=pump, args=(server, client), daemon=True)
        back.start()
        pump(client, server)
        back.join()


def error_body(status: int, message: str) -> bytes:
    return json.dumps({"error": {"code": status, "message": message, "errors": [{"message": message}]}}).encode()


def handle(service: gcs_objects.Service, request: gcs_objects.Request) -> gcs_objects.Reply:
    try:
        return gcs_requests.handle(service, request)
    except gcs_objects.ServiceError as error:
        return gcs_objects.Reply(error.status, error_body(error.status, error.message))
    except Exception:  # The simulator lacks something: a status that no client retries.
        return gcs_objects.Reply(501, error_body(501, traceback.format_exc()))


def control(state: State, path: str, body: bytes) -> gcs_objects.Reply:
    """Handle a request of a test, as the module's docstring describes."""
    value = json.loads(body) if body else None
    with state.lock:
        if path == "/control/faults":
            state.faults, state.denied = [Fault(**fault) for fault in value], []
        elif path == "/control/buckets" and value.pop("remove", False):
            state.service.buckets.pop(value["name"], None)
        elif path == "/control/buckets":
            state.service.buckets[value["name"]] = gcs_objects.Bucket(**value)
        elif path == "/control/tunnels":
            state.tunnels = value
        elif path == "/control/wipe":
            state.service, state.faults, state.denied, state.log = gcs_objects.Service(), [], [], []
            state.tunnels = {}
        return gcs_objects.Reply(200, json.dumps(state.log if path == "/control/log" else None).encode())


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_) -> None:
        """Ignore a client that has gone; report a defect of the simulator."""
        if not isinstance(sys.exc_info()[1], OSError | ValueError):
            super().handle_error(*_)


def main(folder: Path, faults: Path | None) -> None:
    state = State(faults=[Fault(**fault) for fault in json.loads(faults.read_text())] if faults else [])
    Handler.state, Handler.context = state, gcs_certificate.create_context(folder, NAMES)
    gcs_certificate.write_credentials(folder / "credentials.json")
    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(json.dumps({"port": server.server_address[1]}), flush=True)
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)

"""A server that plays the Hub's part and Kaggle's for their real clients, and misbehaves on demand.

The Hub's client is given its address. Kaggle's client asks http://localhost (KAGGLE_API_ENVIRONMENT=LOCALHOST) through
the server as its proxy. Both get `files` as a model; with fault "redirect" from an address elsewhere, as in reality.
"""

import contextlib
import dataclasses
import http.server
import io
import json
import tarfile
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path

BINARY = "application/octet-stream"
PAGE = b"<!doctype html><title>Sign in</title>"
DRIP_PARTS, DRIP_INTERVAL_S = 8, 0.1


@dataclasses.dataclass
class ModelServer:
    address: str  # http://127.0.0.1:PORT
    files: dict[str, bytes]
    fault: str = ""  # A status such as "403", or redirect, html, truncated, drip or hang.
    archive: bool = False  # Whether Kaggle's answer is that there are many files: its client asks for an archive then.
    requests: list[str] = dataclasses.field(default_factory=list)  # Their paths.
    credentials: set[str] = dataclasses.field(default_factory=set)  # Their Authorization headers.


def read_files(folder: Path) -> dict[str, bytes]:
    """Path in the folder -> content."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def pack(files: dict[str, bytes]) -> bytes:
    """The files as a .tar.gz, with an entry for each folder."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for folder in sorted({str(parent) for name in files for parent in Path(name).parents} - {"."}):
            member = tarfile.TarInfo(folder)
            member.type, member.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(member)
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


@contextlib.contextmanager
def serving(files: dict[str, bytes]) -> Iterator[ModelServer]:
    state = ModelServer("", files)
    closing = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

        def do_GET(self) -> None:
            name = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query).get("file")
            self.handle_request(lambda: state.files[name[0]] if name else pack(state.files))

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path.endswith("/ListModelInstanceVersionFiles"):
                token = "more" if state.archive else ""
                names = [] if state.archive else [{"name": name} for name in state.files]
                listing = json.dumps({"files": names, "nextPageToken": token}).encode()
                self.handle_request(lambda: listing, "application/json")
            else:
                name = request.get("path")
                query = urllib.parse.urlencode({"file": name} if name else {})
                self.handle_request(lambda: state.files[name] if name else pack(state.files), query=query)

        def handle_request(self, make: Callable[[], bytes], kind: str = BINARY, query: str = "") -> None:
            state.requests.append(self.path)
            state.credentials |= {self.headers["Authorization"] or ""}
            if state.fault.isdecimal():
                self.answer(int(state.fault), b'{"message": "no"}', "text/plain")
            elif state.fault == "hang":
                closing.wait(30)
            elif state.fault == "html":
                self.answer(200, PAGE, "text/html")
            elif state.fault == "redirect" and kind == BINARY and "/elsewhere" not in self.path:
                self.answer(302, b"", kind, Location=f"{state.address}/elsewhere?{query}")
            else:
                self.answer(200, make(), kind)

        def answer(self, status: int, body: bytes, kind: str, **headers: str) -> None:
            self.send_response(status)
            for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if state.fault == "truncated":
                body = body[: len(body) // 2]
            size = len(body) // DRIP_PARTS + 1 if state.fault == "drip" else len(body) + 1
            for start in range(0, len(body), size):
                self.wfile.write(body[start : start + size])
                time.sleep(DRIP_INTERVAL_S * (state.fault == "drip"))

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        state.address = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield state
        finally:
            closing.set()
            server.shutdown()

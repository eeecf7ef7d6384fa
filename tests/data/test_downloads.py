import gzip
import hashlib
import http.server
import random
import threading
import time
import zipfile

import pytest

from trainer.data import downloads
from trainer.data.downloads import Package

CONTENT = random.Random(0).randbytes(5 << 20)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server():
    """An HTTP server of CONTENT with Range support, whose faults a test sets; `ranges` are the requests it had."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked = self.headers.get("Range")
            listening.ranges.append(asked)
            if listening.status:
                return self.send_error(listening.status)
            if listening.silent:
                return time.sleep(listening.silent)
            content = listening.content
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and listening.resumes else 0
            if start and start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                return self.end_headers()
            self.send_response(206 if start else 200)
            body = content[start:]
            if listening.compresses and "gzip" in self.headers.get("Accept-Encoding", ""):
                body = gzip.compress(body)
                self.send_header("Content-Encoding", "gzip")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: listening.cut])
            return None

        def log_message(self, *_):
            pass

    listening = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listening.content, listening.ranges = CONTENT, []
    listening.status = listening.silent = listening.cut = None
    listening.resumes, listening.compresses = True, False
    listening.url = f"http://127.0.0.1:{listening.server_port}/data/archive.tar.gz?version=1"
    threading.Thread(target=listening.serve_forever, args=[0.01], daemon=True).start()
    yield listening
    listening.shutdown()
    listening.server_close()


def test_a_download_is_kept_under_its_name_and_not_fetched_again(server, tmp_path):
    folder = tmp_path / "made" / "here"
    for _ in range(2):
        path = downloads.download_file(server.url, folder, SHA256)
        assert path == folder / "archive.tar.gz"
        assert path.read_bytes() == CONTENT
    assert server.ranges == [None]
    assert [p.name for p in folder.iterdir()] == ["archive.tar.gz"]


@pytest.mark.parametrize("path", ["", "/", "/..", "/a/.."])
def test_a_url_that_names_no_file_is_refused(tmp_path, path):
    with pytest.raises(ValueError, match=r"--source must be a URL that ends in a file's name\. Received: http"):
        downloads.download_file(f"http://127.0.0.1:1{path}", tmp_path / "in", None)
    assert not list(tmp_path.iterdir())


def test_a_cut_download_goes_on(server, tmp_path):
    server.cut = 3 << 20
    for _ in range(2):
        with pytest.raises(ValueError, match=r"Run the same command again"):
            downloads.download_file(server.url, tmp_path, SHA256)
        assert not (tmp_path / "archive.tar.gz").exists()
        server.cut = 1 << 20
    server.cut = None
    assert downloads.download_file(server.url, tmp_path, SHA256).read_bytes() == CONTENT
    starts = [int(asked[len("bytes=") : -1]) for asked in server.ranges[1:]]
    assert 2 << 20 <= starts[0] <= 3 << 20  # what had come was kept, but for the last block
    assert starts[1] >= starts[0]


def test_a_server_that_cannot_resume_sends_all_of_it(server, tmp_path):
    (tmp_path / "archive.tar.gz.part").write_bytes(CONTENT[:1000])
    server.resumes = False
    assert downloads.download_file(server.url, tmp_path, SHA256).read_bytes() == CONTENT


def test_a_download_cut_after_its_last_byte_is_complete(server, tmp_path):
    (tmp_path / "archive.tar.gz.part").write_bytes(CONTENT)
    assert downloads.download_file(server.url, tmp_path, SHA256).read_bytes() == CONTENT
    assert server.ranges == [f"bytes={len(CONTENT)}-"]


def test_what_is_longer_than_the_servers_file_is_not_taken_for_it(server, tmp_path):
    (tmp_path / "archive.tar.gz.part").write_bytes(CONTENT + b"of an older file")
    try:
        received = downloads.download_file(server.url, tmp_path, None).read_bytes()
    except ValueError:
        received = downloads.download_file(server.url, tmp_path, None).read_bytes()
    assert received == CONTENT


def test_a_server_that_compresses_is_no_cut_download(server, tmp_path):
    server.content, server.compresses = b"text,label\ngood,1\n" * 1000, True
    assert downloads.download_file(server.url, tmp_path, None).read_bytes() == server.content


def test_another_hash_is_refused_and_the_next_download_starts_afresh(server, tmp_path):
    server.content = CONTENT[:-1] + b"\0"
    with pytest.raises(ValueError, match=r"must have the SHA-256") as caught:
        downloads.download_file(server.url, tmp_path, SHA256)
    received = hashlib.sha256(server.content).hexdigest()
    assert f"must have the SHA-256 {SHA256}. Received: {received}." in str(caught.value)
    assert "give --sha256 of the file you mean" in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    server.content = CONTENT
    assert downloads.download_file(server.url, tmp_path, SHA256).read_bytes() == CONTENT


def test_a_file_already_there_is_held_against_the_hash(server, tmp_path):
    (tmp_path / "archive.tar.gz").write_bytes(b"another")
    with pytest.raises(ValueError, match=rf"archive\.tar\.gz must have the SHA-256 {SHA256}\. Received: "):
        downloads.download_file(server.url, tmp_path, SHA256)
    assert server.ranges == []


@pytest.mark.parametrize("status", [404, 500, 503])
def test_a_servers_error_is_told(server, tmp_path, status):
    server.status = status
    with pytest.raises(ValueError, match=rf"could not be downloaded \({status} .*give --source=FILE"):
        downloads.download_file(server.url, tmp_path, SHA256)
    assert list(tmp_path.iterdir()) == []


def test_a_servers_error_loses_nothing_of_what_had_come(server, tmp_path):
    (tmp_path / "archive.tar.gz.part").write_bytes(CONTENT[:1000])
    server.status = 503
    with pytest.raises(ValueError, match=r"could not be downloaded"):
        downloads.download_file(server.url, tmp_path, SHA256)
    server.status = None
    assert downloads.download_file(server.url, tmp_path, SHA256).read_bytes() == CONTENT
    assert server.ranges == ["bytes=1000-"] * 2


def test_a_silent_server_is_given_up(server, tmp_path):
    server.silent = 3
    started = time.monotonic()
    with pytest.raises(ValueError, match=r"could not be downloaded .*timed out"):
        downloads.download_file(server.url, tmp_path, SHA256, timeout=0.3)
    assert time.monotonic() - started < 2


def test_no_server_is_told(server, tmp_path):
    server.shutdown()
    server.server_close()
    with pytest.raises(ValueError, match=r"could not be downloaded .*refused"):
        downloads.download_file(server.url, tmp_path, SHA256)


# --- Packages -------------------------------------------------------------------------------------


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """A folder of wheels that pip takes for its registry; returns the SHA-256 of the one in it, hubtune-sheep 1.0."""
    folder = tmp_path / "registry"
    folder.mkdir()
    wheel = folder / "hubtune_sheep-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("sheep.txt", "one, two, three")
        archive.writestr(
            "hubtune_sheep-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: hubtune-sheep\nVersion: 1.0\n"
        )
        archive.writestr(
            "hubtune_sheep-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("hubtune_sheep-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return hashlib.sha256(wheel.read_bytes()).hexdigest()


def test_a_package_is_fetched_whole(registry, tmp_path):
    path = downloads.fetch_package(Package("hubtune-sheep", "1.0", registry, wheel=True), tmp_path)
    assert zipfile.ZipFile(path).read("sheep.txt") == b"one, two, three"


@pytest.mark.parametrize(
    ("version", "sha256", "word"), [("1.0", "0" * 64, "Expected sha256 0000"), ("2.0", None, "2.0")]
)
def test_a_package_that_is_another_or_not_there_is_refused_in_pips_words(registry, tmp_path, version, sha256, word):
    package = Package("hubtune-sheep", version, sha256 or registry, wheel=True)
    message = f"pip could not download hubtune-sheep {version} with the pinned SHA-256. It said: "
    with pytest.raises(ValueError, match=r"pip could not download") as caught:
        downloads.fetch_package(package, tmp_path)
    assert message in str(caught.value)
    assert word in str(caught.value)


def test_a_registry_out_of_reach_is_given_up(registry, tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "REQUEST_TIMEOUT_S", 0.01)
    with pytest.raises(
        ValueError, match=r"could not download hubtune-sheep 1\.0 within 0\.01 s\. Is the package registry"
    ):
        downloads.fetch_package(Package("hubtune-sheep", "1.0", registry, wheel=True), tmp_path)

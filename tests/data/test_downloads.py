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
from trainer.errors import UserError

CONTENT = random.Random(0).randbytes(5 << 20)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server():
    """An HTTP server of CONTENT with Range support and faults that a test sets. `ranges` are those requested."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            requested = self.headers.get("Range")
            listening.ranges.append(requested)
            if listening.status:
                return self.send_error(listening.status)
            if listening.silent:
                return time.sleep(listening.silent)
            content = listening.content
            same = listening.ignores_if_range or self.headers.get("If-Range") in (None, listening.tag)
            resumes = listening.resumes and same
            start = int(requested.removeprefix("bytes=").rstrip("-")) if requested and resumes else 0
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
            if listening.tag:
                self.send_header("ETag", listening.tag)
            self.end_headers()
            self.wfile.write(body[: listening.sent_bytes])
            return None

        def log_message(self, *_):
            pass

    listening = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listening.content, listening.ranges = CONTENT, []
    listening.status = listening.silent = listening.sent_bytes = None
    listening.resumes, listening.compresses, listening.tag, listening.ignores_if_range = True, False, None, False
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
    assert [p for p in folder.rglob("*") if p.is_file()] == [path]


def test_files_of_one_name_from_two_addresses_are_not_confused(server, tmp_path):
    first = downloads.download_file(server.url, tmp_path, None)
    server.content = b"another"
    second = downloads.download_file(server.url.replace("/data/", "/other/"), tmp_path, None)
    assert first.name == second.name
    assert (first.read_bytes(), second.read_bytes()) == (CONTENT, b"another")


def test_a_part_of_another_version_is_not_continued(server, tmp_path):
    server.tag, server.sent_bytes, server.ignores_if_range = '"1"', 3 << 20, True
    with pytest.raises(UserError, match=r"Run the same command again, which resumes"):
        downloads.download_file(server.url, tmp_path, None)
    server.tag, server.sent_bytes, server.content = '"2"', None, CONTENT[::-1]
    with pytest.raises(UserError, match=r"Received: another file\. Run the same command again"):
        downloads.download_file(server.url, tmp_path, None)
    assert downloads.download_file(server.url, tmp_path, None).read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize("path", ["", "/", "/..", "/a/.."])
def test_a_url_that_names_no_file_is_refused(tmp_path, path):
    with pytest.raises(UserError, match=r"--source must be a URL that ends in a file's name\. Received: http"):
        downloads.download_file(f"http://127.0.0.1:1{path}", tmp_path / "in", None)
    assert not list(tmp_path.iterdir())


def test_an_interrupted_download_is_resumed(server, tmp_path):
    server.sent_bytes = 3 << 20
    for _ in range(2):
        with pytest.raises(UserError, match=r"Run the same command again, which resumes"):
            downloads.download_file(server.url, tmp_path, SHA256)
        assert not (tmp_path / "archive.tar.gz").exists()
        server.sent_bytes = 1 << 20
    server.sent_bytes = None
    assert downloads.download_file(server.url, tmp_path, SHA256).read_bytes() == CONTENT
    starts = [int(requested[len("bytes=") : -1]) for requested in server.ranges[1:]]
    assert 2 << 20 <= starts[0] <= 3 << 20  # All but the last block was kept.
    assert starts[1] >= starts[0]


@pytest.mark.parametrize(("tags", "resumed"), [(('"1"', '"1"'), True), (('"1"', '"2"'), False), ((None, None), False)])
def test_without_a_hash_only_the_same_version_is_resumed(server, tmp_path, tags, resumed):
    server.tag, server.sent_bytes = tags[0], 3 << 20
    with pytest.raises(UserError, match=r"Run the same command again, which resumes"):
        downloads.download_file(server.url, tmp_path, None)
    server.tag, server.sent_bytes = tags[1], None
    server.content = CONTENT if resumed else CONTENT[::-1]
    path = downloads.download_file(server.url, tmp_path, None)
    assert path.read_bytes() == server.content
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    assert (server.ranges[1] is None) is (tags == (None, None))


def test_a_server_that_cannot_resume_sends_all_of_it(server, tmp_path):
    (tmp_path / "archive.tar.gz.part").write_bytes(CONTENT[:1000])
    server.resumes = False
    assert downloads.download_file(server.url, tmp_path, SHA256).read_bytes() == CONTENT


def test_a_download_interrupted_after_its_last_byte_is_complete(server, tmp_path):
    (tmp_path / "archive.tar.gz.part").write_bytes(CONTENT)
    assert downloads.download_file(server.url, tmp_path, SHA256).read_bytes() == CONTENT
    assert server.ranges == [f"bytes={len(CONTENT)}-"]


def test_a_partial_file_longer_than_the_servers_is_discarded(server, tmp_path):
    (tmp_path / "archive.tar.gz.part").write_bytes(CONTENT + b"of an older file")
    with pytest.raises(UserError, match="another file"):
        downloads.download_file(server.url, tmp_path, SHA256)
    assert downloads.download_file(server.url, tmp_path, SHA256).read_bytes() == CONTENT


def test_a_server_that_could_compress_sends_all_bytes(server, tmp_path):
    server.content, server.compresses = b"text,label\ngood,1\n" * 1000, True
    assert downloads.download_file(server.url, tmp_path, None).read_bytes() == server.content


def test_after_another_hash_the_next_download_starts_anew(server, tmp_path):
    server.content = CONTENT[:-1] + b"\0"
    with pytest.raises(UserError, match=r"must have the SHA-256 .*--sha256") as caught:
        downloads.download_file(server.url, tmp_path, SHA256)
    (problem,) = caught.value.problems
    assert SHA256 in problem.required
    assert problem.received == hashlib.sha256(server.content).hexdigest()
    assert list(tmp_path.iterdir()) == []
    server.content = CONTENT
    assert downloads.download_file(server.url, tmp_path, SHA256).read_bytes() == CONTENT


def test_the_hash_of_an_existing_file_is_verified(server, tmp_path):
    (tmp_path / "archive.tar.gz").write_bytes(b"another")
    with pytest.raises(UserError, match=rf"archive\.tar\.gz .*{SHA256}"):
        downloads.download_file(server.url, tmp_path, SHA256)
    assert server.ranges == []


@pytest.mark.parametrize("status", [404, 500, 503])
def test_a_servers_error_is_reported(server, tmp_path, status):
    server.status = status
    with pytest.raises(UserError, match=rf"must be downloadable\. Received: {status} .*--source"):
        downloads.download_file(server.url, tmp_path, SHA256)
    assert list(tmp_path.iterdir()) == []


def test_a_servers_error_keeps_the_partial_file(server, tmp_path):
    (tmp_path / "archive.tar.gz.part").write_bytes(CONTENT[:1000])
    server.status = 503
    with pytest.raises(UserError, match="503"):
        downloads.download_file(server.url, tmp_path, SHA256)
    server.status = None
    assert downloads.download_file(server.url, tmp_path, SHA256).read_bytes() == CONTENT
    assert server.ranges == ["bytes=1000-"] * 2


def test_a_silent_server_times_out(server, tmp_path):
    server.silent = 3
    started = time.monotonic()
    with pytest.raises(UserError, match=r"timed out"):
        downloads.download_file(server.url, tmp_path, SHA256, timeout_s=0.3)
    assert time.monotonic() - started < 2


def test_an_unreachable_server_is_reported(server, tmp_path):
    server.shutdown()
    server.server_close()
    with pytest.raises(UserError, match=r"refused"):
        downloads.download_file(server.url, tmp_path, SHA256)


# --- Packages -------------------------------------------------------------------------------------


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """Have pip use a folder as its registry; returns the SHA-256 of the wheel in it, hubtune-sheep 1.0."""
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


def test_a_package_is_downloaded(registry, tmp_path):
    path = downloads.fetch_package(Package("hubtune-sheep", "1.0", registry, wheel=True), tmp_path)
    assert zipfile.ZipFile(path).read("sheep.txt") == b"one, two, three"


@pytest.mark.parametrize(
    ("version", "sha256", "word"), [("1.0", "0" * 64, "Expected sha256 0000"), ("2.0", None, "2.0")]
)
def test_a_package_with_another_hash_or_missing_is_refused(registry, tmp_path, version, sha256, word):
    package = Package("hubtune-sheep", version, sha256 or registry, wheel=True)
    with pytest.raises(UserError, match=r"must be downloaded by pip with the pinned SHA-256") as caught:
        downloads.fetch_package(package, tmp_path)
    (problem,) = caught.value.problems
    assert problem.setting == f"The package hubtune-sheep {version}"
    assert word in problem.received


def test_an_unreachable_registry_times_out(registry, tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "PIP_TIMEOUT_S", 0.01)
    with pytest.raises(UserError, match=r"hubtune-sheep 1\.0 must be downloaded by pip within 0\.01 s"):
        downloads.fetch_package(Package("hubtune-sheep", "1.0", registry, wheel=True), tmp_path)

import contextlib
import http.server
import io
import os
import shutil
import socket
import tarfile
import threading
import time
from pathlib import Path

import pytest
from tensorflow_hub import resolver

from trainer.encoders import hub_cache
from trainer.errors import UserError

URL = "https://tfhub.dev/tensorflow/small_bert/bert_en_uncased_L-4_H-512_A-8/1"


def test_the_cache_folder_is_that_of_tensorflow_hub(monkeypatch, tmp_path):
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path))
    assert hub_cache.cache_folder(URL) == str(tmp_path / "89e0d78326196f7e9dd113bd0eecf4c9fb022f37")
    monkeypatch.delenv("TFHUB_CACHE_DIR")
    monkeypatch.delenv("TMPDIR", raising=False)
    assert hub_cache.cache_folder(URL).rpartition("/")[0] == resolver.tfhub_cache_dir(use_temp=True)


# --- Downloads --------------------------------------------------------------------------------------


@contextlib.contextmanager
def serving(names: dict[str, bytes | tarfile.TarInfo]):
    """The URL of a server that sends an archive with these files, or members."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in names.items():
            member = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            if isinstance(content, bytes):
                member.size = len(content)
            archive.addfile(member, io.BytesIO(content) if isinstance(content, bytes) else None)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(packed.getvalue())

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/google/bert/1"
        server.shutdown()


def test_a_silent_server_is_left_after_the_timeout_which_is_then_reset(cache, monkeypatch):
    monkeypatch.setattr(hub_cache, "NETWORK_TIMEOUT_S", 0.5)
    started = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        connections = []
        threading.Thread(target=lambda: connections.append(silent.accept()), daemon=True).start()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/google/bert/1"
        with pytest.raises(UserError, match=r"timed out"):
            hub_cache.download(url, "--encoder")
    assert time.monotonic() - started < 5
    assert socket.getdefaulttimeout() is None


@pytest.mark.parametrize("name", ["../out", "a/../../out", "link"])
def test_an_archive_with_paths_outside_its_folder_is_rejected(cache, tmp_path, name):
    member = tarfile.TarInfo(name)
    if name == "link":
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
    with serving({name: member}) as url, pytest.raises(UserError, match=r"(is invalid|Unexpected object)"):
        hub_cache.download(url, "--encoder")
    assert not list(tmp_path.glob("**/out"))


# --- Locks of other downloads ---------------------------------------------------------------------


@pytest.fixture
def lock(cache, monkeypatch) -> Path:
    """The lock of another download of URL, as tensorflow-hub writes it, and short times to wait for it."""
    monkeypatch.setattr(hub_cache, "LOCK_TIMEOUT_S", 0.4)
    monkeypatch.setattr(hub_cache, "LOCK_POLL_S", 0.05)
    cache.mkdir()
    path = Path(resolver._lock_filename(hub_cache.cache_folder(URL)))
    path.write_text("machine.example.org.4321.0123abcd")
    return path


def test_a_lock_left_behind_is_named_after_a_bounded_wait(lock, caplog):
    caplog.set_level("INFO", "trainer")
    os.utime(lock, (time.time() - 7200, time.time() - 7200))
    started = time.monotonic()
    with pytest.raises(UserError) as caught:
        hub_cache.download(URL, "--encoder")
    assert 0.4 < time.monotonic() - started < 5
    (problem,) = caught.value.problems
    assert problem.setting == "--encoder"
    for value in (URL, str(lock), "process 4321", "host machine.example.org", "7200 s ago"):
        assert value in problem.received
    assert f"rm {lock}" in problem.advice
    (note,) = [record.getMessage() for record in caplog.records if record.name == "trainer.encoders.hub_cache"]
    assert str(lock) in note
    assert lock.exists()


@pytest.mark.parametrize("content", ["", "no dots"])
def test_a_lock_of_another_form_is_named(lock, content):
    lock.write_text(content)
    with pytest.raises(UserError, match="process unknown on host unknown"):
        hub_cache.download(URL, "--encoder")


def test_a_download_that_makes_progress_is_waited_for(lock, saved_model):
    folder = Path(hub_cache.cache_folder(URL))
    partial = Path(resolver._temp_download_dir(str(folder), "0123abcd"))
    partial.mkdir()

    def download():
        shutil.copytree(saved_model, partial, dirs_exist_ok=True)
        for size in range(8):  # twice as long as a silence may be
            (partial / "notes").write_bytes(b"x" * size)
            time.sleep(0.1)
        partial.rename(folder)
        lock.unlink()

    other = threading.Thread(target=download)
    other.start()
    assert hub_cache.download(URL, "--encoder") == str(folder)
    assert not lock.exists()
    other.join()


def test_a_lock_beside_a_complete_model_does_not_matter(lock, saved_model):
    folder = Path(hub_cache.cache_folder(URL))
    shutil.copytree(saved_model, folder)
    assert hub_cache.download(URL, "--encoder") == str(folder)

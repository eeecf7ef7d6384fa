"""The Hub's cache, without its servers."""

import hashlib
import shutil
import socket

import pytest


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of the Hub, without a connection to its servers."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, address)
        monkeypatch.setenv(name.upper(), address)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def copy_to_cache(cache):
    """A function that puts a SavedModel into the cache as the Hub's library does for a handle, and returns its path."""

    def copy(handle: str, folder) -> str:
        return str(shutil.copytree(folder, cache / hashlib.sha1(handle.encode()).hexdigest()))

    return copy

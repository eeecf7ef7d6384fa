"""The Hub's cache, without its servers, and a small SavedModel."""

import hashlib
import shutil
import socket
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def saved_model(tmp_path_factory) -> Path:
    """The folder of a small SavedModel, which is no encoder."""
    import tensorflow as tf
    from fakes.encoders import save_callable

    folder = tmp_path_factory.mktemp("saved") / "model"
    save_callable(folder, tf.TensorSpec([None], tf.int32), lambda table, ids: tf.gather(table, ids))
    return folder


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

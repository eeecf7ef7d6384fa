"""The cache's paths. tests/encoders/test_fetching.py has the downloads."""

import functools
from pathlib import Path

import requests

from trainer.encoders import kaggle_cache
from trainer.encoders.handles import parse_handle

HANDLE = parse_handle("tensorflow/bert/tensorFlow2/en-uncased-l-12-h-768-a-12/3", "--encoder")


def test_the_cache_folder_is_that_of_kagglehub(monkeypatch, tmp_path):
    from kagglehub import cache, handle

    # kagglehub reads HOME when it is imported, which another test may have changed.
    monkeypatch.setattr("kagglehub.config.DEFAULT_CACHE_FOLDER", str(Path.home() / ".cache" / "kagglehub"))
    parsed = handle.parse_model_handle(HANDLE.path)
    for folder in (str(tmp_path), None):
        if folder:
            monkeypatch.setenv("KAGGLEHUB_CACHE", folder)
        else:
            monkeypatch.delenv("KAGGLEHUB_CACHE")
        assert kaggle_cache.cache_folder(HANDLE) == cache.get_cached_path(parsed)
        assert f"{kaggle_cache.cache_folder(HANDLE)}.complete" == cache._get_completion_marker_filepath(parsed)


def test_the_limit_of_a_silence_ends_with_the_download():
    send = requests.Session.send
    with kaggle_cache._network_timeout():
        assert isinstance(requests.Session.__dict__["send"], functools.partialmethod)
    assert requests.Session.send is send


def test_folders_made_for_a_download_go_with_it(monkeypatch, tmp_path):
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path))
    neighbor = tmp_path / "models" / "tensorflow" / "other"
    neighbor.mkdir(parents=True)
    with kaggle_cache._new_folder(kaggle_cache.cache_folder(HANDLE)) as folder:
        assert folder.startswith(kaggle_cache.cache_folder(HANDLE))
    assert [path.name for path in tmp_path.rglob("*")] == ["models", "tensorflow", "other"]

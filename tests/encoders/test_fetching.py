"""Downloads by the real clients of the Hub and of Kaggle, from a server that plays both."""

import os
import socket
import time
from pathlib import Path

import pytest
from fakes import model_hub

from trainer.encoders import fetching, hub_cache, kaggle_cache
from trainer.encoders.handles import parse_handle
from trainer.encoders.saved_model_files import find_broken_file
from trainer.errors import UserError

KAGGLE = "tensorflow/bert/tensorFlow2/bert-en-uncased-l-4-h-512-a-8/1"
SITES = ("hub", "kaggle")


@pytest.fixture
def server(saved_model, tmp_path, monkeypatch):
    """A server with that model, empty caches in tmp_path/caches, nobody's credentials, and short times to wait."""
    with model_hub.serving(model_hub.read_files(saved_model)) as state:
        for name in ("http_proxy", "HTTP_PROXY"):
            monkeypatch.setenv(name, state.address)
        for name in ("no_proxy", "NO_PROXY", "KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_TOKEN", "KAGGLE_CONFIG_DIR"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "LOCALHOST")
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        monkeypatch.setattr("kagglehub.config.DEFAULT_KAGGLE_CREDENTIALS_FOLDER", str(tmp_path / "home/.kaggle"))
        monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path / "caches" / "hub"))
        monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "caches" / "kaggle"))
        for module in (hub_cache, kaggle_cache):
            monkeypatch.setattr(module, "NETWORK_TIMEOUT_S", 0.5)
        yield state


def fetch(server, site: str) -> str:
    text = KAGGLE if site == "kaggle" else f"{server.address}/google/bert/1"
    return fetching.fetch_model(parse_handle(text, "--encoder"), text, "--encoder")


def find_problem(server, site: str):
    with pytest.raises(UserError) as caught:
        fetch(server, site)
    (problem,) = caught.value.problems
    assert problem.setting == "--encoder"
    return problem


def cached_files(tmp_path) -> list[str]:
    root = tmp_path / "caches"
    return [str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()]


# --- Downloads that succeed -----------------------------------------------------------------------


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("fault", ["", "redirect", "drip"])
def test_a_model_is_downloaded_once_and_then_cached(server, saved_model, site, fault):
    server.fault = fault
    folder = fetch(server, site)
    assert {**model_hub.read_files(Path(folder))} == model_hub.read_files(saved_model)
    asked = len(server.requests)
    assert any("/elsewhere" in path for path in server.requests) is (fault == "redirect")
    assert fetch(server, site) == folder
    assert len(server.requests) == asked > 0


def test_kaggle_sends_an_archive_of_many_files(server, saved_model, tmp_path):
    server.archive = True
    folder = fetch(server, "kaggle")
    assert folder == str(tmp_path / "caches" / "kaggle" / "models" / KAGGLE)
    assert model_hub.read_files(Path(folder)) == model_hub.read_files(saved_model)
    assert os.path.exists(f"{folder}.complete")
    assert not [name for name in cached_files(tmp_path) if "tmp" in name or name.endswith(".archive")]


@pytest.mark.parametrize("site", SITES)
def test_a_model_in_a_folder_of_its_archive_is_found(server, tmp_path, site):
    server.files, server.archive = {f"model/{name}": data for name, data in server.files.items()}, True
    folder = fetch(server, site)
    assert folder.endswith("/model")
    assert not find_broken_file(folder)
    assert fetch(server, site) == folder


@pytest.mark.parametrize("spelling", ["TensorFlow2", "tensorflow2", "tensorFlow2"])
def test_what_kagglehub_has_cached_is_found(server, tmp_path, saved_model, spelling):
    kagglehub = pytest.importorskip("kagglehub")
    folder = kagglehub.model_download(KAGGLE.replace("tensorFlow2", spelling))
    asked = len(server.requests)
    assert fetch(server, "kaggle") == folder
    assert len(server.requests) == asked


@pytest.mark.parametrize("given", ["environment", "file"])
def test_kaggle_gets_the_users_credentials(server, tmp_path, monkeypatch, given):
    if given == "environment":
        monkeypatch.setenv("KAGGLE_USERNAME", "user")
        monkeypatch.setenv("KAGGLE_KEY", "secret")
    else:
        (tmp_path / "home/.kaggle").mkdir(parents=True)
        (tmp_path / "home/.kaggle/kaggle.json").write_text('{"username": "user", "key": "secret"}')
    fetch(server, "kaggle")
    assert server.credentials == {"Basic dXNlcjpzZWNyZXQ="}


# --- Downloads that fail --------------------------------------------------------------------------


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize(
    ("fault", "advice"),
    [
        ("404", "Compare the name and the version"),
        ("429", "Wait some minutes"),
        ("500", "Run the same command again later"),
        ("html", "see what a browser shows"),
        ("truncated", "see what a browser shows"),
        ("hang", "--encoders.mirror=MIRROR"),
    ],
)
def test_a_failed_download_says_what_to_do_and_leaves_nothing(server, tmp_path, site, fault, advice):
    server.fault = fault
    started = time.monotonic()
    problem = find_problem(server, site)
    assert time.monotonic() - started < 60  # The client alone would try for ten minutes.
    assert advice in problem.advice
    assert not cached_files(tmp_path)
    server.fault = ""
    assert not find_broken_file(fetch(server, site))


@pytest.mark.parametrize("site", SITES)
def test_a_model_that_is_refused_says_what_may_be_missing(server, tmp_path, monkeypatch, site):
    server.fault = "403"
    advice = find_problem(server, site).advice
    assert ("No credentials" in advice) is (site == "kaggle")
    assert "terms" in advice
    monkeypatch.setenv("KAGGLE_USERNAME", "user")
    monkeypatch.setenv("KAGGLE_KEY", "secret")
    advice = find_problem(server, site).advice
    assert ("account of your credentials" in advice) is (site == "kaggle")
    assert not cached_files(tmp_path)


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("file", ["saved_model.pb", "variables/variables.index", "variables/variables.data-"])
def test_a_model_that_lacks_a_file_or_has_a_page_for_it_is_not_kept(server, tmp_path, site, file):
    complete = server.files
    (name,) = (each for each in complete if each.startswith(file))
    for files in ({k: v for k, v in complete.items() if k != name}, {**complete, name: model_hub.PAGE}):
        server.files = files
        problem = find_problem(server, site)
        assert file in problem.received
        assert not cached_files(tmp_path)
    server.files = complete
    assert not find_broken_file(fetch(server, site))


@pytest.mark.parametrize("site", SITES)
def test_without_a_network_the_mirror_is_advised(server, tmp_path, monkeypatch, site):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, address)
    advice = find_problem(server, site).advice
    assert "--source=hub:" in advice
    assert "--encoders.mirror=MIRROR" in advice


@pytest.mark.parametrize("site", SITES)
def test_a_cache_that_cannot_be_written_is_named(server, tmp_path, monkeypatch, site):
    (tmp_path / "file").touch()
    variable = {"hub": "TFHUB_CACHE_DIR", "kaggle": "KAGGLEHUB_CACHE"}[site]
    monkeypatch.setenv(variable, str(tmp_path / "file" / "cache"))
    problem = find_problem(server, site)
    assert str(tmp_path / "file" / "cache") in problem.received
    assert variable in problem.advice


def test_a_damaged_file_of_credentials_is_named(server, tmp_path):
    (tmp_path / "home/.kaggle").mkdir(parents=True)
    (tmp_path / "home/.kaggle/kaggle.json").write_text("{")
    assert str(tmp_path / "home/.kaggle/kaggle.json") in find_problem(server, "kaggle").received


# --- Caches -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("file", ["saved_model.pb", "variables/variables.index", "variables/variables.data-"])
def test_an_incomplete_folder_of_a_cache_is_refused_until_it_is_removed(server, site, file):
    folder = fetch(server, site)
    (path,) = Path(folder).glob(file + "*")
    path.unlink()
    asked = len(server.requests)
    problem = find_problem(server, site)
    assert file in problem.received
    assert len(server.requests) == asked
    command = problem.advice.rpartition("rm -r ")[2]
    assert folder in command.split()
    assert os.system(f"rm -r {command}") == 0
    assert not find_broken_file(fetch(server, site))


def test_a_model_that_the_hub_s_client_cached_in_another_spelling_is_found(server, saved_model, copy_to_cache):
    url = f"https://www.kaggle.com/models/{KAGGLE}".replace("tensorFlow2", "TensorFlow2")
    folder = copy_to_cache(url, saved_model)
    assert fetching.fetch_model(parse_handle(url, "--encoder"), url, "--encoder") == folder
    assert not server.requests

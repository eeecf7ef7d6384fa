import urllib.error

import pytest
import requests

from trainer.encoders import download_problems

URL = "https://tfhub.dev/google/bert/1"


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "who asks"),
        (403, "terms"),
        (404, "name and the version"),
        (429, "Wait some minutes"),
        (500, "server fails"),
        (503, "server fails"),
        (418, "something else than a SavedModel"),
        (None, "something else than a SavedModel"),
    ],
)
def test_each_answer_has_its_advice(status, words):
    assert words in download_problems.advise("--encoder", URL, ValueError("no archive"), status)


@pytest.mark.parametrize(
    "error", [urllib.error.URLError("no name"), TimeoutError(), requests.ConnectionError(), requests.ReadTimeout()]
)
def test_without_an_answer_a_mirror_or_a_folder_is_advised(error):
    advice = download_problems.advise("--preprocess", URL, error, None)
    for words in (f"--source=hub:{URL} --output=MIRROR", "--encoders.mirror=MIRROR", "set --preprocess to the folder"):
        assert words in advice


def test_the_command_that_removes_a_folder_is_one_for_a_shell():
    problem = download_problems.describe_incomplete("--encoder", URL, "/a b/c", "saved_model.pb", ["/a b/c", "/a b/d"])
    assert problem.advice.endswith("rm -r '/a b/c' '/a b/d'")
    assert "/a b/c lacks saved_model.pb" in problem.received

"""Requests to a child process, and its answers."""

import sys

import pytest

from trainer import errors
from trainer.tpu_check import child_requests

# A child that doubles numbers.
CHILD = """
from trainer.tpu_check import child_requests

def answer(request):
    if request["number"] < 0:
        raise ValueError("negative")
    return {"doubled": 2 * request["number"]}

child_requests.answer_requests(answer)
"""


def test_a_child_answers_requests_in_turn(tmp_path):
    with child_requests.start_child("Doubler", [sys.executable, "-c", CHILD], tmp_path / "log.txt") as child:
        assert child_requests.send_request(child, {"number": 2}) == {"doubled": 4}
        with pytest.raises(errors.UserError, match="negative"):
            child_requests.send_request(child, {"number": -1})
        assert child_requests.send_request(child, {"number": 3}) == {"doubled": 6}


def test_the_standard_error_of_a_child_that_dies_is_reported(tmp_path):
    code = "import sys; sys.stdin.readline(); sys.exit('the cause')"
    with (
        child_requests.start_child("Doubler", [sys.executable, "-c", code], tmp_path / "log.txt") as child,
        pytest.raises(RuntimeError, match=r"ended with 1 on .*\nthe cause"),
    ):
        child_requests.send_request(child, {})


def test_a_child_that_has_ended_before_its_request_is_reported(tmp_path):
    with child_requests.start_child("Doubler", [sys.executable, "-c", "exit('the cause')"], tmp_path / "log") as child:
        child.process.wait()
        with pytest.raises(RuntimeError, match=r"ended with 1 on .*\nthe cause"):
            child_requests.send_request(child, {})


def test_a_child_that_crashes_after_warnings_is_reported_with_its_signal(tmp_path):
    code = "import os, sys; sys.stdin.readline(); print('warning\\n' * 2000, file=sys.stderr, flush=True); os.abort()"
    with (
        child_requests.start_child("Doubler", [sys.executable, "-c", code], tmp_path / "log.txt") as child,
        pytest.raises(errors.UserError) as caught,
    ):
        child_requests.send_request(child, {})
    (problem,) = caught.value.problems
    assert problem.setting == "Doubler"
    assert problem.received.startswith("SIGABRT, after: warning")
    assert "Fatal Python error: Aborted" in problem.received

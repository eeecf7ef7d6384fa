"""The one place where a message to a user is put together."""

import pytest
from helpers import outcome

from trainer.errors import Problem, UsageError, UserError, advise_nearest, find_nearest


def test_a_problem_says_required_received_and_advice():
    problem = Problem("--replicas", "be at least 1", "0", "Raise --replicas.")
    assert str(problem) == "--replicas must be at least 1. Received: 0. Raise --replicas."
    assert str(Problem("--name", "be short", "a.")) == "--name must be short. Received: a."


def test_an_error_shows_each_of_its_problems_once():
    first, second = Problem("a", "be b", "c"), Problem("d", "be e", "f")
    error = UsageError(first, second, first)
    assert str(error).splitlines() == [str(first), str(second)]
    assert error.problems == (first, second, first)


def test_a_usage_error_is_a_user_error_and_a_value_error():
    assert issubclass(UsageError, UserError)
    assert issubclass(UserError, ValueError)


def test_the_right_name_in_another_section_is_nearer_than_a_similar_one():
    known = ["data.batch_size", "training.steps", "training.epochs"]
    assert find_nearest("training.batch_size", known) == "data.batch_size"
    assert find_nearest("training.epoch", known) == "training.epochs"
    assert find_nearest("something_else", known) is None
    assert advise_nearest("training.epoch", known) == "The nearest is training.epochs."
    assert advise_nearest("something_else", known) == ""


@pytest.mark.parametrize(("value", "code"), [(None, 75), ("134", 134), ("soon", 75)])
def test_a_service_may_choose_the_code_of_a_stopped_run(monkeypatch, value, code):
    monkeypatch.delenv("STOPPED_CODE", raising=False)
    if value is not None:
        monkeypatch.setenv("STOPPED_CODE", value)
    assert outcome("from trainer import errors; print(errors.EXIT_STOPPED)")[1] == f"{code}\n"

"""How long a failure is retried."""

import pytest
from fakes.gcs import RETRY_S

from trainer.storage import retries


@pytest.mark.parametrize("value", ["", "soon", "1", "inf", "nan"])
def test_a_value_that_is_no_number_of_seconds_is_a_problem(monkeypatch, value):
    monkeypatch.setenv(retries.RETRY_VARIABLE, value)
    problem = retries.find_retry_problem()
    assert (problem.setting, problem.received) == ("STORAGE_RETRY_SECONDS", repr(value))
    assert retries.retry_seconds() == 60


def test_a_number_of_seconds_is_no_problem(monkeypatch):
    monkeypatch.setenv(retries.RETRY_VARIABLE, "2")
    assert retries.find_retry_problem() is None
    assert retries.retry_seconds() == 2


TIMED = """
started = time.monotonic()
try:
    fs.size(folder)
except OSError as error:
    print(time.monotonic() - started, type(error).__name__)
"""
FAULTS = [{"do": "status", "status": 503}, {"do": "hang", "seconds": 100}, {"do": "reset"}]


@pytest.mark.parametrize("fault", FAULTS[:2])
def test_an_operation_fails_within_the_setting(simulator, fault):
    with simulator.faults({**fault, "match": "GET .*/o/", "times": -1}):
        seconds, error = simulator.storage_python(TIMED)[0].split()
    assert error == "BucketError"
    assert float(seconds) < float(RETRY_S) + 1


@pytest.mark.chaos
@pytest.mark.parametrize("fault", FAULTS)
def test_an_operation_fails_within_the_default_setting(simulator, fault):
    with simulator.faults({**fault, "match": "GET .*/o/", "times": -1}):
        default = str(retries.DEFAULT_RETRY_S)
        seconds, error = simulator.storage_python(TIMED, seconds=100, retry_s=default)[0].split()
    assert error == "BucketError"
    assert float(seconds) < retries.DEFAULT_RETRY_S

"""How long a failure is retried: one setting, for TensorFlow's client and for Google's."""

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
    READ(folder)
except (OSError, tf.errors.OpError) as error:
    print(time.monotonic() - started, type(error).__name__)
"""
FAULTS = [{"do": "status", "status": 503}, {"do": "hang", "seconds": 100}, {"do": "reset"}]


@pytest.mark.parametrize("fault", FAULTS[:2])
def test_an_operation_fails_within_the_setting(simulator, fault):
    with simulator.faults({**fault, "match": "GET .*/o/", "times": -1}):
        ours, _ = simulator.storage_python(TIMED.replace("READ", "fs.size"))
        tensorflows, _ = simulator.storage_python(TIMED.replace("READ", "tf.io.gfile.stat"))
    assert ours.split()[1] == "BucketError"
    assert float(ours.split()[0]) < float(RETRY_S) + 1
    assert tensorflows.split()[1] == "AbortedError"
    # TensorFlow needs up to two seconds more for each attempt that hangs, and waits up to one more, at random.
    assert float(tensorflows.split()[0]) < float(RETRY_S) + 3 * (retries.TENSORFLOW_RETRIES + 1)


@pytest.mark.chaos
@pytest.mark.parametrize("fault", FAULTS)
def test_an_operation_fails_within_the_default_setting(simulator, fault, capsys):
    with simulator.faults({**fault, "match": "GET .*/o/", "times": -1}):
        default = str(retries.DEFAULT_RETRY_S)
        failures = [
            simulator.storage_python(TIMED.replace("READ", function), seconds=100, retry_s=default)[0].split()
            for function in ("fs.size", "tf.io.gfile.stat")
        ]
    with capsys.disabled():
        print(f"\n{fault}: {', '.join(f'{name} after {float(seconds):.0f} s' for seconds, name in failures)}")
    assert [name for _, name in failures] == ["BucketError", "AbortedError"]
    assert max(float(seconds) for seconds, _ in failures) < retries.DEFAULT_RETRY_S


def test_a_file_is_read_in_blocks_of_the_size_that_is_set(simulator):
    code = """
fs.write_bytes("gs://bucket/big", b"1" * 20_000_000)
print(len(tf.io.gfile.GFile("gs://bucket/big", "rb").read(100)))
"""
    simulator.storage_python(code)
    ranges = [line["range"] for line in simulator.log() if line["range"]]
    assert ranges
    assert {int(r.split("-")[1]) - int(r.split("=")[1].split("-")[0]) + 1 for r in ranges} == {
        retries.READ_BLOCK_MB << 20
    }

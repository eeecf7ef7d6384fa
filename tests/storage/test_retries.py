"""The one setting of how long storage is tried again, kept by TensorFlow's client and by Google's."""

import pytest
from test_gcs import RETRY, python

from trainer.storage import retries


@pytest.mark.parametrize("value", ["", "soon", "1", "inf", "nan"])
def test_a_setting_that_is_no_number_of_seconds_is_refused(monkeypatch, value):
    monkeypatch.setenv(retries.RETRY_VARIABLE, value)
    assert (
        retries.find_problem() == f"STORAGE_RETRY_SECONDS must be a number of seconds, at least 2. Received: {value!r}."
    )
    assert retries.retry_seconds() == 60


TIMED = """
began = time.monotonic()
try:
    ASK(folder)
except (OSError, tf.errors.OpError) as error:
    print(time.monotonic() - began, type(error).__name__)
"""
GIVING_UP = [{"do": "status", "status": 503}, {"do": "hang", "seconds": 100}, {"do": "reset"}]


@pytest.mark.parametrize("fault", GIVING_UP[:2])
def test_giving_up_takes_no_longer_than_the_setting(simulator, fault):
    with simulator.faults({**fault, "match": "GET .*/o/", "times": -1}):
        ours, _ = python(simulator, TIMED.replace("ASK", "fs.size"))
        tensorflows, _ = python(simulator, TIMED.replace("ASK", "tf.io.gfile.stat"))
    assert ours.split()[1] == "BucketError"
    assert float(ours.split()[0]) < float(RETRY) + 1
    assert tensorflows.split()[1] == "AbortedError"
    # TensorFlow's second is two for each try that hangs, and it waits up to one more, at random, before the next.
    assert float(tensorflows.split()[0]) < float(RETRY) + 3 * (retries.TENSORFLOW_RETRIES + 1)


@pytest.mark.chaos
@pytest.mark.parametrize("fault", GIVING_UP)
def test_giving_up_takes_no_longer_than_the_default_setting(simulator, fault, capsys):
    with simulator.faults({**fault, "match": "GET .*/o/", "times": -1}):
        said = [
            python(simulator, TIMED.replace("ASK", ask), seconds=100, setting=str(retries.DEFAULT_RETRY_S))[0].split()
            for ask in ("fs.size", "tf.io.gfile.stat")
        ]
    with capsys.disabled():
        print(f"\n{fault}: {', '.join(f'{name} after {float(took):.0f} s' for took, name in said)}")
    assert [name for _, name in said] == ["BucketError", "AbortedError"]
    assert max(float(took) for took, _ in said) < retries.DEFAULT_RETRY_S


def test_shards_that_stream_take_blocks_of_the_size_that_is_set(simulator):
    code = """
fs.write_bytes("gs://bucket/big", b"1" * 20_000_000)
print(len(tf.io.gfile.GFile("gs://bucket/big", "rb").read(100)))
"""
    python(simulator, code)
    ranges = [line["range"] for line in simulator.log() if line["range"]]
    assert ranges
    assert {int(r.split("-")[1]) - int(r.split("=")[1].split("-")[0]) + 1 for r in ranges} == {
        retries.READ_BLOCK_MB << 20
    }

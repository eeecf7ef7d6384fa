"""A model_dir in a bucket has one holder at a time, whatever fails: the holder, its machine or the storage."""

import os
import signal
import time
from pathlib import Path

import pytest
from helpers import start

from trainer.storage import lease, retries

RETRY_S = "4"
LEASE_S = 2 * float(RETRY_S)
HOLD = """
import sys, time
from trainer.runtime import logs
from trainer.storage import fs
logs.configure()
try:
    with fs.exclusive_lock("gs://bucket/run"):
        print("held", flush=True)
        time.sleep(float(sys.argv[1]))
    print("released", flush=True)
except ValueError as error:
    print(error, flush=True)
"""


def hold(simulator, seconds):
    return start(HOLD, seconds, env=simulator.environment(STORAGE_RETRY_SECONDS=RETRY_S))


def test_a_lease_is_longer_than_failures_are_retried():
    assert lease.lease_seconds() * 2 / 3 > retries.retry_seconds()


def test_a_live_holder_is_named_and_releases_its_folder(simulator):
    first = hold(simulator, 4)
    assert first.stdout.readline() == "held\n"
    out, error = hold(simulator, 0).communicate(timeout=120)
    assert "--model_dir must be used by one run at a time. Received: gs://bucket/run, held by" in out
    assert f'"pid": "{first.pid}"' in out
    assert f'"pid": "{first.pid}"' in error  # While it waits.
    assert first.communicate(timeout=120)[0] == "released\n"
    assert hold(simulator, 0).communicate(timeout=120)[0] == "held\nreleased\n"


def test_the_heartbeat_of_a_killed_holder_releases_the_folder(simulator):
    first = hold(simulator, 60)
    assert first.stdout.readline() == "held\n"
    first.send_signal(signal.SIGKILL)
    first.communicate()
    started = time.monotonic()
    assert hold(simulator, 0).communicate(timeout=120)[0] == "held\nreleased\n"
    assert time.monotonic() - started < LEASE_S


def test_a_holder_whose_machine_is_gone_is_replaced_after_a_lease(simulator):
    code = 'lock_objects.write_lock(f"{folder}/.lock", {"host": "gone", "pid": "1", "token": "old"}, 0)'
    simulator.storage_python(code)
    started = time.monotonic()
    out, error = hold(simulator, 0).communicate(timeout=120)
    assert out == "held\nreleased\n"
    assert "warning: " in error
    assert '"host": "gone"' in error
    assert LEASE_S < time.monotonic() - started < 3 * float(RETRY_S) + 5


def test_a_holder_that_has_lost_the_folder_is_killed(simulator):
    first = hold(simulator, 60)
    assert first.stdout.readline() == "held\n"
    code = """
path = f"{folder}/.lock"
other = {"host": "other", "pid": "1", "token": "new"}
while lock_objects.write_lock(path, other, lock_objects.read_lock(path)[0]) is None:
    pass
"""
    simulator.storage_python(code)
    assert first.wait(30) == -signal.SIGKILL
    error = first.communicate()[1]
    assert "the run has lost its --model_dir" in error
    assert '"host": "other"' in error


@pytest.mark.parametrize("fault", [{"do": "reset"}, {"do": "hang", "seconds": 30}])
def test_a_holder_without_storage_ends_before_another_replaces_it(simulator, fault):
    first = hold(simulator, 60)
    assert first.stdout.readline() == "held\n"
    started = time.monotonic()
    with simulator.faults({**fault, "match": "lock|ifGenerationMatch", "times": -1}):
        assert first.wait(60) == -signal.SIGKILL
    assert time.monotonic() - started < LEASE_S
    assert "could not be written for 5 s" in first.communicate()[1]


def test_a_lost_reply_does_not_look_like_another_holder(simulator):
    with simulator.faults({"do": "lose reply", "match": "POST .*upload.*ifGenerationMatch"}):
        assert hold(simulator, 0).communicate(timeout=120)[0] == "held\nreleased\n"
    assert [line for line in simulator.log() if "412" in str(line["outcome"])]


def test_a_heartbeat_survives_lost_replies(simulator):
    holder = hold(simulator, 5)
    assert holder.stdout.readline() == "held\n"  # The holder renews it once itself, and gives up after RETRY_S.
    with simulator.faults({"do": "lose reply", "match": "POST .*ifGenerationMatch=[1-9]", "times": 3}):
        assert holder.communicate(timeout=120)[0] == "released\n"
    assert len([line for line in simulator.log() if "lose reply" in str(line["outcome"])]) == 3


def test_a_holder_without_its_heartbeat_stops(simulator):
    first = hold(simulator, 60)
    assert first.stdout.readline() == "held\n"
    (heartbeat,) = (int(pid) for pid in Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text().split())
    os.kill(heartbeat, signal.SIGKILL)
    assert first.wait(30) == 75
    assert "gs://bucket/run/.lock" in first.communicate()[1]


def test_a_bucket_whose_objects_cannot_be_replaced_is_refused(simulator):
    simulator.bucket("bucket", retained=True)
    process = hold(simulator, 60)
    out, error = process.communicate(timeout=120)
    assert "held" not in out
    assert "gs://bucket/run/.lock must allow writing. Received: 403, Object 'bucket/run/.lock' is subject to" in error

"""A model_dir in a bucket: one holder at a time, whatever becomes of it, of its machine and of the storage."""

import os
import signal
import time
from pathlib import Path

import pytest
from helpers import start
from test_gcs import python

RETRY = "4"  # seconds: of a lease, 8
HOLD = """
import sys, time
from trainer.storage import fs
try:
    with fs.exclusive_lock("gs://bucket/run"):
        print("held", flush=True)
        time.sleep(float(sys.argv[1]))
    print("given back", flush=True)
except ValueError as error:
    print(error, flush=True)
"""


def hold(simulator, seconds):
    return start(HOLD, seconds, env=simulator.environment(STORAGE_RETRY_SECONDS=RETRY))


def test_a_live_holder_is_named_and_its_folder_given_back(simulator):
    first = hold(simulator, 4)
    assert first.stdout.readline() == "held\n"
    out, error = hold(simulator, 0).communicate(timeout=60)
    assert "--model_dir must be used by one run at a time. Received: gs://bucket/run, held by" in out
    assert f'"pid": "{first.pid}"' in out
    assert "watching whether it is alive" in error
    assert first.communicate(timeout=60)[0] == "given back\n"
    assert hold(simulator, 0).communicate(timeout=60)[0] == "held\ngiven back\n"


def test_a_holder_that_is_killed_gives_the_folder_back_at_once(simulator):
    first = hold(simulator, 60)
    assert first.stdout.readline() == "held\n"
    first.send_signal(signal.SIGKILL)
    first.communicate()
    began = time.monotonic()
    assert hold(simulator, 0).communicate(timeout=60)[0] == "held\ngiven back\n"
    assert time.monotonic() - began < 2 * float(RETRY)


def test_a_holder_whose_machine_is_gone_is_taken_over_after_a_lease(simulator):
    code = 'gcs.write_lock_object(f"{folder}/.lock", {"host": "gone", "pid": "1", "token": "old"}, 0)'
    python(simulator, code)
    began = time.monotonic()
    out, error = hold(simulator, 0).communicate(timeout=60)
    assert out == "held\ngiven back\n"
    assert '"host": "gone"' in error
    assert f"has been silent for {2 * float(RETRY):.0f} s: taking over" in error
    assert 2 * float(RETRY) < time.monotonic() - began < 3 * float(RETRY) + 5


def test_a_holder_that_has_lost_the_folder_is_ended(simulator):
    first = hold(simulator, 60)
    assert first.stdout.readline() == "held\n"
    code = """
path = f"{folder}/.lock"
while gcs.write_lock_object(path, {"host": "other", "pid": "1", "token": "new"}, gcs.read_lock_object(path)[0]) is None:
    pass
"""
    python(simulator, code)
    assert first.wait(30) == -signal.SIGKILL
    error = first.communicate()[1]
    assert "the run no longer holds its --model_dir" in error
    assert '"host": "other"' in error


@pytest.mark.parametrize("fault", [{"do": "reset"}, {"do": "hang", "seconds": 30}])
def test_a_holder_out_of_reach_ends_before_another_takes_its_place(simulator, fault):
    first = hold(simulator, 60)
    assert first.stdout.readline() == "held\n"
    began = time.monotonic()
    with simulator.faults({**fault, "match": "lock|ifGenerationMatch", "times": -1}):
        assert first.wait(60) == -signal.SIGKILL
    assert time.monotonic() - began < 2 * float(RETRY)
    assert "could not be written for 5 s" in first.communicate()[1]


def test_a_lost_reply_is_not_taken_for_another_holder(simulator):
    with simulator.faults({"do": "lose reply", "match": "POST .*upload.*ifGenerationMatch"}):
        assert hold(simulator, 0).communicate(timeout=60)[0] == "held\ngiven back\n"
    assert [line for line in simulator.log() if "412" in str(line["outcome"])]


def test_a_heartbeat_outlives_lost_replies(simulator):
    with simulator.faults({"do": "lose reply", "match": "POST .*ifGenerationMatch=[1-9]", "times": 3}):
        assert hold(simulator, 5).communicate(timeout=60)[0] == "held\ngiven back\n"
    assert len([line for line in simulator.log() if "lose reply" in str(line["outcome"])]) == 3


def test_a_holder_whose_keeper_is_gone_ends(simulator):
    first = hold(simulator, 60)
    assert first.stdout.readline() == "held\n"
    (keeper,) = (int(pid) for pid in Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text().split())
    os.kill(keeper, signal.SIGKILL)
    assert first.wait(30) == 75
    assert "stopped: the process that holds gs://bucket/run/.lock is gone." in first.communicate()[1]

"""A run and the process that renews its lease: neither outlives the other by much."""

import os
import signal
import time

from helpers import start

HOLD = """
import sys, time
from trainer.runtime import logs
from trainer.storage import heartbeat
logs.configure()
with heartbeat.running(*sys.argv[1:]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_run_stops_if_the_process_ends_before_it():
    run = start(HOLD, "this", "the lease")  # A module of Python's own, which prints something and ends.
    out, error = run.communicate(timeout=60)
    assert run.returncode == 75
    assert "held" in out
    assert "The process that renews the lease ended with code 0" in error


def test_the_process_ends_with_a_run_that_is_killed():
    run = start(HOLD, "json.tool", "-")  # It reads its standard input to the end.
    assert run.stdout.readline() == "held\n"
    with open(f"/proc/{run.pid}/task/{run.pid}/children") as file:
        (process,) = map(int, file.read().split())
    run.send_signal(signal.SIGKILL)
    run.wait(60)
    deadline = time.monotonic() + 60
    while os.path.exists(f"/proc/{process}/fd/0"):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_run_that_has_ended_already_is_not_killed():
    kill = "heartbeat.kill_run(os.getpid(), 'It was lost.')"  # Of another number than this process's parent.
    run = start(f"import os; from trainer.storage import heartbeat; {kill}; print('alive')")
    out, error = run.communicate(timeout=120)
    assert (run.returncode, out) == (0, "alive\n")
    assert "the run has lost its --model_dir" in error
    assert "It was lost." in error

"""Processes whose waits end, do not end, and are suspended."""

import signal
import time

from helpers import outcome, start

from trainer import errors

WAIT = """
import sys, time
from trainer.runtime import logs, watchdog
logs.configure()
watchdog.MAX_WAIT_S, watchdog.POLL_INTERVAL_S = float(sys.argv[1]), 0.1
def wait_for_the_device():
    for _ in range(int(sys.argv[2])):
        time.sleep(0.1)
with watchdog.stop_if_stuck("an earlier step"):
    pass
print("waiting", flush=True)
try:
    with watchdog.stop_if_stuck("a training step"):
        wait_for_the_device()
finally:
    print("ended", flush=True)
"""


def test_a_wait_without_end_stops_the_process_and_tells_where_it_was():
    code, output, error = outcome(WAIT, 1, 36000)
    assert code == errors.EXIT_STOPPED
    assert output == "waiting\n"  # What would end the block may wait, too.
    assert "in wait_for_the_device" in error
    assert "stopped: a training step did not end within 0 minutes. Run the same command again to resume" in error


def test_a_wait_that_ends_stops_nothing():
    assert outcome(WAIT, 60, 5)[:2] == (0, "waiting\nended\n")


def test_a_suspended_process_has_not_waited():
    process = start(WAIT, 3, 20)
    try:
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(signal.SIGSTOP)
        time.sleep(4)
        process.send_signal(signal.SIGCONT)
        output, error = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, output) == (0, "ended\n"), error

import os
import signal
import time

import pytest
from helpers import start

from trainer.runtime import signals

TWO_SIGNALS = """
import time
from trainer.runtime import signals
with signals.watch_signals() as request:
    print("watching", flush=True)
    while not request.name:
        time.sleep(0.01)
    print(request.name, flush=True)
    time.sleep(30)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_kept_until_the_loop_asks(number):
    with signals.watch_signals() as request:
        request.stop_if(bool(request.name))
        os.kill(os.getpid(), number)
        time.sleep(0.01)  # the loop goes on
        assert request.name == number.name
        with pytest.raises(signals.Stopped, match=f"stopped by {number.name}"):
            request.stop_if(bool(request.name))


def test_a_signal_of_its_own_waits_until_all_workers_know():
    request = signals.StopRequest("SIGTERM")
    request.stop_if(False)
    assert request.name == "SIGTERM"
    with pytest.raises(signals.Stopped, match=r"^stopped by SIGTERM$"):
        request.stop_if(True)


def test_a_worker_that_no_signal_came_to_says_that_another_was_asked():
    with signals.watch_signals() as request:
        request.stop_if(False)
        assert request.name is None
        with pytest.raises(signals.Stopped, match=r"^stopped by a signal to another worker$"):
            request.stop_if(True)
    assert request.name == "a signal to another worker"


def test_the_handlers_are_put_back_whether_or_not_a_signal_came():
    def before():
        return signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)

    found = before()
    with signals.watch_signals():
        os.kill(os.getpid(), signal.SIGTERM)
    assert before() == found
    with signals.watch_signals():
        assert before() != found
    assert before() == found


@pytest.mark.parametrize(
    ("first", "second"),
    [(signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGINT), (signal.SIGINT, signal.SIGTERM)],
)
def test_a_second_signal_ends_the_process_at_once(first, second):
    process = start(TWO_SIGNALS)
    try:
        assert process.stdout.readline() == "watching\n"
        process.send_signal(first)
        assert process.stdout.readline() == f"{first.name}\n"
        process.send_signal(second)
        assert process.wait(timeout=5) == -second
    finally:
        process.kill()
        process.communicate()

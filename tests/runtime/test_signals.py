"""SIGTERM and SIGINT as a request, and what a second one does."""

import os
import signal
import threading
import time

import pytest
from helpers import start

from trainer.runtime import signals

TWO_SIGNALS = """
import time
from trainer.runtime import signals
with signals.watch_signals() as request:
    print("watching", flush=True)
    while not request.reason:
        time.sleep(0.01)
    print(request.reason, flush=True)
    time.sleep(30)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_kept_until_the_loop_reads_it(number):
    with signals.watch_signals() as request:
        signals.raise_if_requested(request, bool(request.reason))
        os.kill(os.getpid(), number)
        time.sleep(0.01)  # The loop continues.
        assert request.reason == number.name
        with pytest.raises(signals.Stopped, match=f"stopped by {number.name}"):
            signals.raise_if_requested(request, bool(request.reason))


def test_a_signal_waits_until_all_workers_know_of_it():
    request = signals.StopRequest("SIGTERM")
    signals.raise_if_requested(request, False)
    assert request.reason == "SIGTERM"
    with pytest.raises(signals.Stopped, match=r"^stopped by SIGTERM$"):
        signals.raise_if_requested(request, True)


def test_a_worker_without_a_signal_stops_with_the_one_that_has_it():
    with signals.watch_signals() as request:
        signals.raise_if_requested(request, False)
        assert request.reason is None
        with pytest.raises(signals.Stopped, match=r"^stopped by a signal to another worker$"):
            signals.raise_if_requested(request, True)
    assert request.reason == "a signal to another worker"


def test_the_handlers_are_restored_with_and_without_a_signal():
    def handlers():
        return signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)

    before = handlers()
    with signals.watch_signals():
        os.kill(os.getpid(), signal.SIGTERM)
    assert handlers() == before
    with signals.watch_signals():
        assert handlers() != before
    assert handlers() == before


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


TWICE = """
import signal
from trainer.runtime import signals

signal.signal(signal.SIGINT, signal.default_int_handler)  # A shell's job in the background ignores it.
with signals.watch_signals(at_once=False) as request:
    try:
        print("watching", flush=True)
        while not request.reason:
            pass
        print(request.reason, flush=True)
        while True:
            pass
    except KeyboardInterrupt:
        print("interrupted", flush=True)
print("goes on", flush=True)
"""


def test_a_second_signal_may_do_what_it_did_before():
    process = start(TWICE)
    try:
        assert process.stdout.readline() == "watching\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "SIGINT\n"
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60)[0] == "interrupted\ngoes on\n"
        assert process.returncode == 0
    finally:
        process.kill()
        process.communicate()


def test_a_thread_that_gets_no_signals_leaves_the_handlers_alone():
    def watch() -> None:
        with signals.watch_signals() as request:
            seen.append((request.reason, signal.getsignal(signal.SIGINT)))

    seen: list = []
    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=watch)
    thread.start()
    thread.join()
    assert seen == [(None, before)]

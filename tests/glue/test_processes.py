import os
import signal
import sys
import threading

import pytest

from trainer.errors import UsageError, UserError
from trainer.glue import processes
from trainer.runtime.signals import Stopped, StopRequest, watch_signals


def run(code, request=None, stdin=None):
    return processes.run("The run in runs/x", [sys.executable, "-c", code], request or StopRequest(), stdin)


def test_what_it_is_given_and_prints_is_passed():
    text = "é" * 200_000  # More than a pipe holds, to a process that takes its time.
    code = "import sys, time; time.sleep(0.5); print(sys.stdin.read().upper())"
    assert run(code, stdin=text) == text.upper() + "\n"


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        ("raise SystemExit(1)", UserError, "The run in runs/x must end without an error. Received: code 1. "),
        ("raise SystemExit(2)", UsageError, "Received: code 2."),
        ("import os; os.kill(os.getpid(), 9)", UserError, "Received: SIGKILL, after: "),
    ],
)
def test_a_process_that_fails_is_named(code, kind, words):
    with pytest.raises(UserError) as caught:
        run(code)
    assert type(caught.value) is kind
    assert words in str(caught.value)


def test_a_run_that_was_stopped_stops_the_others():
    with pytest.raises(Stopped, match=r"The run in runs/x was stopped by a signal\. Run the same command again"):
        run("raise SystemExit(75)")
    with pytest.raises(Stopped, match=r"stopped by SIGTERM\. Run"):
        run("raise AssertionError", StopRequest("SIGTERM"))


def test_a_process_that_does_not_stop_is_killed(monkeypatch):
    monkeypatch.setattr(processes, "STOP_GRACE_S", 0.5)
    request = StopRequest()
    timer = threading.Timer(1.0, lambda: setattr(request, "reason", "SIGTERM"))
    timer.start()
    with pytest.raises(Stopped, match="stopped by SIGTERM"):
        run("import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)", request)
    timer.join()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_passed_on_as_the_one_that_runs_expect(number):
    code = "import signal, sys; signal.signal(15, lambda *_: sys.exit(75)); print(1); signal.pause()"
    with watch_signals() as request:
        timer = threading.Timer(1.0, os.kill, (os.getpid(), number))
        timer.start()
        with pytest.raises(Stopped, match=f"stopped by {signal.Signals(number).name}"):
            run(code, request, stdin="")
        timer.join()

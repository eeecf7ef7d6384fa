import os
import signal
import sys
import threading
import time

import pytest

from trainer.runtime.signals import Stopped, StopRequest
from trainer.sweeps import job_runs
from trainer.sweeps.job_runs import JobRun


def job(tmp_path, name, code):
    return JobRun(name, [sys.executable, "-c", code], str(tmp_path / "logs" / f"{name}.log"))


WAIT = "import time; print('started', flush=True); time.sleep(60)"
STOP_WITH_75 = f"import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(75)); {WAIT}"


def wait_for(path):
    deadline = time.monotonic() + 60
    while not path.exists() or not path.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_failure_does_not_end_the_others_and_has_its_last_line(tmp_path):
    jobs = [
        job(tmp_path, "good", "print('fine')"),
        job(tmp_path, "bad", "import sys; print('first'); sys.exit('error: the last line')"),
        job(tmp_path, "killed", "import os; print('so far', flush=True); os.kill(os.getpid(), 9)"),
    ]
    seen = []
    ended = job_runs.run_jobs(jobs, StopRequest(), on_end=seen.append)
    assert [(each.job.name, each.exit_code) for each in ended] == [("good", 0), ("bad", 1), ("killed", -9)]
    assert [each.message for each in ended] == ["", "error: the last line", "ended by SIGKILL, after: so far"]
    assert seen == ended
    assert (tmp_path / "logs/good.log").read_text() == "fine\n"


def test_a_message_is_of_this_process_and_not_of_an_earlier_one(tmp_path):
    job_runs.run_jobs([job(tmp_path, "same", "raise SystemExit('earlier')")], StopRequest())
    (ended,) = job_runs.run_jobs([job(tmp_path, "same", "raise SystemExit(1)")], StopRequest())
    assert ended.message == "no output"
    assert (tmp_path / "logs/same.log").read_text() == "earlier\n"


def test_as_many_run_at_a_time_as_there_are_slots_with_their_variables(tmp_path):
    code = (
        "import os, pathlib, time; here = pathlib.Path(os.environ['HERE']); slot = here / os.environ['SLOT'];"
        "slot.touch(exist_ok=False); print(len(list(here.glob('slot*')))); time.sleep(0.3); slot.unlink()"
    )
    slots = [{"SLOT": f"slot{number}", "HERE": str(tmp_path)} for number in range(2)]
    jobs = [job(tmp_path, f"job{number}", code) for number in range(4)]
    ended = job_runs.run_jobs(jobs, StopRequest(), slots=slots)
    assert [each.exit_code for each in ended] == [0] * 4  # A slot is free before it is used again.


def test_a_signal_is_passed_on_and_nothing_more_is_started(tmp_path):
    request = StopRequest()
    jobs = [job(tmp_path, name, STOP_WITH_75) for name in ("first", "second", "third")]
    seen = []

    def slots_are_full():
        return all((tmp_path / f"logs/{name}.log").exists() for name in ("first", "second"))

    def ask():
        while not slots_are_full():
            time.sleep(0.02)
        for name in ("first", "second"):
            wait_for(tmp_path / f"logs/{name}.log")
        request.reason = "SIGTERM"

    asking = threading.Thread(target=ask)
    asking.start()
    with pytest.raises(Stopped, match="SIGTERM"):
        job_runs.run_jobs(jobs, request, slots=[{}, {}], on_end=seen.append)
    asking.join()
    assert [each.exit_code for each in seen] == [75, 75]
    assert not (tmp_path / "logs/third.log").exists()


def test_what_takes_too_long_is_stopped_and_then_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(job_runs, "STOP_GRACE_S", 0.5)
    deaf = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {WAIT}"
    started = time.monotonic()
    slow, ignoring = job_runs.run_jobs(
        [job(tmp_path, "slow", WAIT), job(tmp_path, "deaf", deaf)], StopRequest(), slots=[{}, {}], timeout_s=2
    )
    assert (slow.exit_code, ignoring.exit_code) == (-signal.SIGTERM, -signal.SIGKILL)
    assert time.monotonic() - started < 30


def test_no_process_outlives_a_failure_of_this_one(tmp_path):
    def fail(ended):
        raise RuntimeError("ours")

    wait_for_other = "import pathlib, sys, time\nwhile not pathlib.Path(sys.argv[1]).read_text(): time.sleep(0.02)"
    long = job(tmp_path, "long", f"import os; print(os.getpid(), flush=True); {WAIT}")
    short = job(tmp_path, "short", wait_for_other)
    jobs = [long, JobRun("short", [*short.command, long.log], short.log)]
    with pytest.raises(RuntimeError, match="ours"):
        job_runs.run_jobs(jobs, StopRequest(), slots=[{}, {}], on_end=fail)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "logs/long.log").read_text().split()[0]), 0)

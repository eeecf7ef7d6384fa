import os
import signal
import subprocess
import sys

import pytest

from trainer import child_process


def test_a_module_is_found_from_any_folder(tmp_path):
    (tmp_path / "trainer").mkdir()  # Python searches the current folder first, and this is no package of ours.
    done = subprocess.run(
        child_process.command("trainer.distributed.tpu_probe_process", "local"),
        env=child_process.environment(CUDA_VISIBLE_DEVICES=""),
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "TPU devices: 0\n")


def test_the_environment_is_this_process_s_with_the_changes(monkeypatch):
    monkeypatch.setenv("KEPT", "1")
    monkeypatch.setenv("CHANGED", "1")
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    environment = child_process.environment(CHANGED="2")
    assert (environment["KEPT"], environment["CHANGED"]) == ("1", "2")
    assert environment["PYTHONPATH"].endswith(":/elsewhere")


@pytest.mark.parametrize("code", [0, 1, 2, 75])
def test_a_process_that_ends_by_itself_is_no_problem(code):
    assert child_process.find_signal_problem("The check", code, "its output") is None


@pytest.mark.parametrize(("code", "name"), [(-6, "SIGABRT"), (-40, "signal 40"), (1, "code 1")])
def test_an_exit_code_has_a_name(code, name):
    assert child_process.describe_exit(code) == name


def test_a_session_is_killed_with_what_it_started():
    code = "import os, time; os.fork(); os.write(1, b'%d\\n' % os.getpid()); time.sleep(60)"
    process = child_process.start_session([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout
    pids = [int(process.stdout.readline()) for _ in range(2)]
    assert {os.getsid(pid) for pid in pids} == {process.pid}
    child_process.kill_session(process)
    assert process.returncode == -signal.SIGKILL
    assert process.stdout.read() == b""  # Nobody holds the pipe open any more.


def run_to_its_death(code: str) -> subprocess.CompletedProcess:
    environment = child_process.environment()
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)


def test_a_crash_is_reported_with_its_output_and_what_to_do():
    done = run_to_its_death("import os; os.abort()")
    problem = child_process.find_signal_problem("The check", done.returncode, done.stderr)
    assert problem.received.startswith("SIGABRT, after: Fatal Python error: Aborted")
    assert "docs/limits.md#crashes" in problem.advice


def test_a_process_that_was_killed_is_not_called_a_crash():
    done = run_to_its_death("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    problem = child_process.find_signal_problem("The check", done.returncode, done.stderr)
    assert problem.received == "SIGKILL, after: no output"
    assert "memory" in problem.advice

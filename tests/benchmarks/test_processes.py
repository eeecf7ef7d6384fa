import sys
import time
from pathlib import Path

import pytest

from trainer.benchmarks import processes
from trainer.errors import UserError
from trainer.runtime.signals import Stopped, StopRequest


def run(code: str, tmp_path: Path, **options) -> processes.Measured:
    request = options.pop("request", StopRequest())
    return processes.run_process("The test", [sys.executable, "-c", code], tmp_path / "log", request, **options)


def test_time_memory_and_output_are_those_of_the_process(tmp_path):
    small = run("print('done')", tmp_path)
    large = run("import time; kept = bytearray(200 << 20); time.sleep(0.5); print('done')", tmp_path)
    assert small.output == "done\n"
    assert large.seconds > 0.5
    assert 1 < small.peak_mb < 100
    assert 150 < large.peak_mb - small.peak_mb < 250


def test_a_process_is_measured_until_a_file_has_content(tmp_path):
    path = tmp_path / "file"
    code = f"import time; f = open({str(path)!r}, 'w'); time.sleep(0.5); print(1, file=f, flush=True); time.sleep(60)"
    assert 0.5 < run(code, tmp_path, until=path).seconds < 20


def test_what_a_process_has_started_ends_with_it(tmp_path):
    path = tmp_path / "pid"
    child = "import time; time.sleep(60)"
    code = (
        f"import subprocess, sys, time; p = subprocess.Popen([sys.executable, '-c', {child!r}]); "
        f"print(p.pid, file=open({str(path)!r}, 'w'), flush=True); time.sleep(60)"
    )
    run(code, tmp_path, until=path)
    status = Path(f"/proc/{path.read_text().strip()}/status")
    for _ in range(100):  # A process that nobody waits for may stay as a zombie.
        if not status.exists() or "\nState:\tZ" in status.read_text():
            return
        time.sleep(0.05)
    pytest.fail("it still runs")


def test_a_failure_quotes_what_was_written(tmp_path):
    with pytest.raises(UserError, match="no such thing"):
        run("raise SystemExit('no such thing')", tmp_path)


def test_another_exit_code_may_be_expected(tmp_path):
    assert run("raise SystemExit(75)", tmp_path, exit_code=75).seconds > 0
    with pytest.raises(UserError):
        run("pass", tmp_path, exit_code=75)


def test_nothing_is_started_after_a_signal(tmp_path):
    with pytest.raises(Stopped):
        run("print(1)", tmp_path, request=StopRequest("SIGTERM"))
    assert not (tmp_path / "log").exists()


def test_a_process_knows_when_it_was_started(tmp_path):
    code = f"import os, time; print(time.time() - float(os.environ['{processes.STARTED_VARIABLE}']))"
    assert 0 < float(run(code, tmp_path).output) < 20


def test_figures_are_the_last_object(tmp_path):
    code = (
        "from trainer.benchmarks import processes; print('before'); processes.print_figures({'a': 1.5}); print('after')"
    )
    assert processes.read_printed(run(code, tmp_path).output) == {"a": 1.5}

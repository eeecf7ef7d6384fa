import os

import pytest

from trainer.errors import UserError
from trainer.export import fresh_processes

MODULE = "trainer.export.predict"


def test_what_it_prints_is_read(tmp_path):
    with fresh_processes.fresh_process("timeit", "-n1", "-r1", "-s", "print(input())") as process:
        assert fresh_processes.read_output(process, "given").startswith("given\n")


def test_a_process_that_fails_is_reported_with_the_end_of_its_errors(tmp_path):
    with (
        fresh_processes.fresh_process(MODULE, str(tmp_path)) as process,
        pytest.raises(UserError, match=r"must load in a fresh process\. Received: [\s\S]*has no saved_model\.pb"),
    ):
        fresh_processes.read_output(process, '[["a text"]]')


def test_a_process_that_does_not_answer_is_ended(monkeypatch):
    monkeypatch.setattr(fresh_processes, "TIMEOUT_S", 0.2)
    with (
        pytest.raises(UserError, match=r"must load and compute within 0\.2 s in a fresh process\. Received: no answer"),
        fresh_processes.fresh_process("timeit", "-s", "import time; time.sleep(60)") as process,
    ):
        fresh_processes.read_output(process)
    assert process.returncode is not None


def test_a_ctrl_c_of_the_terminal_does_not_reach_it():
    with fresh_processes.fresh_process("timeit", "-n1", "-r1", "-s", "input()") as process:
        assert os.getsid(process.pid) == process.pid


def test_a_process_that_is_killed_names_the_signal():
    with (
        fresh_processes.fresh_process("timeit", "-s", "import os; os.kill(os.getpid(), 11)") as process,
        pytest.raises(UserError, match=r"The export's check .*SIGSEGV"),
    ):
        fresh_processes.read_output(process)

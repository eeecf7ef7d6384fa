"""Preloaded commands against real processes."""

import subprocess
import sys
import time

import preloaded
import pytest
from helpers import ROOT

PRINTER = """
import os, sys
print(sys.argv[1:], os.getcwd(), os.environ.get("GIVEN"), sys.stdin.read(), "tensorflow" in sys.modules, flush=True)
print("an error", file=sys.stderr)
if sys.argv[1:] == ["raise"]:
    raise ValueError("raised")
if sys.argv[1:] == ["abort"]:
    os.abort()
sys.exit(3)
"""


@pytest.fixture
def command(tmp_path):
    """A function of the last argument -> a command that prints what it was given, and how it is to be run."""
    folder = tmp_path / "scripts"
    folder.mkdir()
    (folder / "printer.py").write_text(PRINTER)
    options = {"cwd": tmp_path, "env": {"GIVEN": "here"}, "input": "a line", "text": True, "timeout": 60}
    return lambda argument: ([sys.executable, "scripts/printer.py", argument], options)


@pytest.mark.parametrize("argument", ["exit", "raise", "abort"])
def test_a_command_ends_as_in_a_real_process(command, argument):
    arguments, options = command(argument)
    ours, real = preloaded.run(arguments, **options), subprocess.run(arguments, capture_output=True, **options)
    assert ours.returncode == real.returncode
    printed = f"['{argument}'] {options['cwd']} here a line"
    assert (real.stdout, ours.stdout) == (f"{printed} False\n", f"{printed} True\n")
    assert ours.stderr.splitlines()[0] == real.stderr.splitlines()[0] == "an error"
    assert ("ValueError: raised" in ours.stderr) == ("ValueError: raised" in real.stderr) == (argument == "raise")


def test_a_command_is_killed_after_its_time(tmp_path):
    (tmp_path / "sleeper.py").write_text("import os, time; print(os.getpid(), flush=True); time.sleep(60)")
    started = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired):
        preloaded.run([sys.executable, str(tmp_path / "sleeper.py")], cwd=tmp_path, timeout=1)
    assert time.monotonic() - started < 20


def test_what_depends_on_imports_is_a_real_process():
    def can_run(*arguments: str, **options) -> bool:
        return preloaded.can_run([sys.executable, *arguments], {"cwd": ROOT, **options})

    assert can_run("-m", "trainer.task")
    assert can_run("scripts/predict.py", "--help", env=None)
    assert not can_run("-X", "importtime", "-m", "trainer.task")
    assert not can_run("-c", "print()")
    assert not can_run("-m", "trainer.task", env={"TF_CONFIG": "{}"})
    assert not can_run("-m", "trainer.task", stdin=subprocess.DEVNULL)

import os
import subprocess
import sys

import pytest
from helpers import ROOT, outcome, start

from trainer import errors

COMMAND = """
import atexit
import os
import time
from absl import flags
from trainer import errors
from trainer.runtime import app, signals

flags.DEFINE_string("end", "", "how to end")

def main(argv):
    app.reject_arguments(argv)
    how = flags.FLAGS.end
    if how == "value":
        raise ValueError("the file is empty")
    if how == "usage":
        raise errors.UsageError(errors.Problem("--data_dir", "be given", "none"))
    if how == "os":
        open("no such file")
    if how == "pipe":
        print("line\\n" * 100_000)
    if how == "other pipe":
        read, write = os.pipe()
        os.close(read)
        os.write(write, b"a")
    if how in ("lost", "skipped", "done"):
        atexit.register(time.sleep, 600)
        app.skip_exit_handlers()
    if how == "lost":
        raise signals.Stopped("stopped: another worker is gone")
    if how == "skipped":
        raise ValueError("a shard is gone")
    if how == "defect":
        raise RuntimeError("a defect of ours")
    return errors.EXIT_STOPPED if how == "stopped" else None

app.run(main, "Counts sheep.")
"""


def test_importing_any_module_that_answers_help_loads_no_tensorflow():
    modules = [
        "runtime.app",
        "config.loading",
        "storage.fs",
        "runtime.signals",
        "data.tasks",
        "data.sources",
        "encoders.registry",
    ]
    imports = "".join(f"import trainer.{module}; " for module in modules)
    assert outcome(f"{imports}import sys; print('tensorflow' in sys.modules)")[1] == "False\n"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], errors.EXIT_DONE, ""),
        (["--end=stopped"], errors.EXIT_STOPPED, ""),
        (["--end=lost"], errors.EXIT_STOPPED, "stopped: another worker is gone\n"),  # Without exit handlers.
        (["--end=skipped"], errors.EXIT_FAILED, "error: a shard is gone\n"),
        (["--end=done"], errors.EXIT_DONE, ""),
        (["--end=value"], errors.EXIT_FAILED, "error: the file is empty\n"),
        (["--end=usage"], errors.EXIT_BAD_USAGE, "error: --data_dir must be given. Received: none.\n"),
        (["--end=os"], errors.EXIT_FAILED, "error: [Errno 2] No such file or directory: 'no such file'\n"),
        (
            ["--ende=value"],
            errors.EXIT_BAD_USAGE,
            "error: --ende must be a flag of this command. Received: --ende=value. The nearest is --end.\n",
        ),
        (["value"], errors.EXIT_BAD_USAGE, "error: Every argument must be a flag, --name=value. Received: value.\n"),
    ],
)
def test_a_command_ends_with_its_code_and_one_message(arguments, code, message):
    received, out, error = outcome(COMMAND, *arguments)
    assert (received, out) == (code, "")
    assert error == message or (message and error == message + "Try --help.\n")


@pytest.mark.parametrize(("variable", "code"), [("", 75), ("134", 134)])
def test_a_service_may_have_a_code_of_its_own_for_a_run_that_was_stopped(variable, code):
    assert outcome(COMMAND, "--end=stopped", env={**os.environ, "STOPPED_CODE": variable})[0] == code


def test_a_defect_of_ours_keeps_its_traceback():
    code, _, error = outcome(COMMAND, "--end=defect")
    assert code == 1
    assert "Traceback" in error
    assert "a defect of ours" in error


def test_help_tells_the_usage_and_ends_well():
    code, out, _ = outcome(COMMAND, "--help")
    assert "Counts sheep." in out
    assert code == errors.EXIT_DONE


def test_wrong_values_and_unknown_flags_are_told_at_once():
    arguments = ("--mode=trian", "--steps=x", "--baseline=maybe", "--strategy", "-1", "--data.seq_lenght=1", "--split")
    done = subprocess.run([sys.executable, "-m", "trainer.task", *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == errors.EXIT_BAD_USAGE
    assert done.stderr.splitlines() == [
        "error: --mode must be one of train, evaluate, report, export, inspect_batches. Received: trian. "
        "The nearest is train.",
        "--steps must be an integer. Received: x.",
        "--baseline must be true or false. Received: maybe.",
        "--data.seq_lenght must be a flag of this command. Received: --data.seq_lenght=1. "
        "The nearest is --data.seq_length.",
        "--split must be one of train, validation, test. Received: nothing.",
        "Try --help.",
    ]


def test_a_script_without_its_required_flag_is_bad_usage():
    done = subprocess.run([sys.executable, "scripts/import_encoder.py"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == errors.EXIT_BAD_USAGE
    assert [line.split(" Received: ")[0] for line in done.stderr.splitlines()] == [
        "error: --source must be given.",
        "--output must be given.",
        "Try --help.",
    ]


TEXTS_COMMAND = """
from trainer.runtime import app

def main(argv):
    app.reject_arguments(argv, texts=True)
    print(app.text_arguments(argv))

app.run(main, "Counts sheep.")
"""


@pytest.mark.parametrize(
    ("arguments", "texts"),
    [
        (["a text", "--verbosity=-1", "another"], ["a text", "another"]),
        (["--", "- a dash", "--nothing=1", "--"], ["- a dash", "--nothing=1", "--"]),
        (["a text", "--", "-5 stars"], ["a text", "-5 stars"]),
        (["--"], []),
    ],
)
def test_flags_may_follow_texts_and_what_follows_two_dashes_is_text(arguments, texts):
    assert outcome(TEXTS_COMMAND, *arguments) == (errors.EXIT_DONE, f"{texts}\n", "")


def test_a_text_that_begins_with_a_dash_is_told_where_to_stand():
    code, out, error = outcome(TEXTS_COMMAND, "- a dash")
    assert (code, out) == (errors.EXIT_BAD_USAGE, "")
    assert error == (
        "error: -- a dash must be a flag of this command. Received: - a dash. Try --help. "
        "If it is a text, write -- before it.\n"
    )


def test_a_reader_that_has_enough_ends_a_command_quietly():
    process = start(COMMAND, "--end=pipe")
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(timeout=60) == errors.EXIT_DONE


def test_nobody_has_to_read_the_help():
    process = start(COMMAND, "--help")
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(timeout=60) == errors.EXIT_DONE


def test_a_pipe_that_is_not_the_output_is_a_failure():
    code, _, error = outcome(COMMAND, "--end=other pipe")
    assert code == errors.EXIT_FAILED
    assert "Broken pipe" in error

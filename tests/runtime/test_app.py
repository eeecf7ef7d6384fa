import os
import subprocess
import sys

import pytest
from helpers import ROOT, outcome

from trainer import errors
from trainer.errors import UsageError
from trainer.runtime import versions

COMMAND = """
from absl import flags
from trainer import errors
from trainer.runtime import app

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
    if how == "defect":
        raise RuntimeError("a defect of ours")
    return errors.EXIT_STOPPED if how == "stopped" else None

app.run(main, "Counts sheep.")
"""


def test_the_installed_set_is_the_required_one():
    assert versions.find_problems() == []
    versions.check_installation()


def test_tensorflow_imported_after_trainer_is_no_problem():
    code = "import trainer, tensorflow; from trainer.runtime import versions; print(versions.find_problems())"
    assert outcome(code)[1] == "[]\n"


def test_every_wrong_or_missing_package_is_named_in_one_message(monkeypatch):
    monkeypatch.setitem(versions.REQUIRED_VERSIONS, "tensorflow-hub", "0.99")
    monkeypatch.setitem(versions.REQUIRED_VERSIONS, "tensorflow-no-such-thing", "2.20")
    with pytest.raises(ValueError, match="make environment") as caught:
        versions.check_installation()
    assert {problem.setting: problem.required for problem in caught.value.problems} == {
        "tensorflow-hub": "be of version 0.99",
        "tensorflow-no-such-thing": "be of version 2.20",
    }
    assert not isinstance(caught.value, UsageError)


def test_a_version_line_is_compared_by_its_numbers_not_its_letters(monkeypatch):
    monkeypatch.setitem(versions.REQUIRED_VERSIONS, "tensorflow", "2.2")
    assert len(versions.find_problems()) == 1


@pytest.mark.parametrize(("version", "line"), [("2.20.0", []), ("2.19.1", ["2.20"]), (None, ["2.20"])])
def test_tensorflow_for_tpus_stands_in_for_tensorflow(monkeypatch, version, line):
    others = versions.installed_version
    found = {"tensorflow": None, "tensorflow-tpu": version}
    monkeypatch.setattr(versions, "installed_version", lambda name: found[name] if name in found else others(name))
    problems = versions.find_problems()
    assert [problem.required for problem in problems] == [f"be of version {x}" for x in line]
    assert all(problem.received == (version or "none installed") for problem in problems)


@pytest.mark.parametrize("value", ["0", None])
def test_keras_3_asked_for_is_named(monkeypatch, value):
    if value is None:
        monkeypatch.delenv("TF_USE_LEGACY_KERAS")
    else:
        monkeypatch.setenv("TF_USE_LEGACY_KERAS", value)
    (problem,) = versions.find_problems()
    assert (problem.setting, problem.received) == ("TF_USE_LEGACY_KERAS", repr(value))


def test_keras_3_loaded_before_trainer_is_named():
    code = "import tensorflow; tensorflow.keras.layers; from trainer.runtime import versions"
    code += "; print(versions.find_problems())"
    without = {key: value for key, value in os.environ.items() if key != "TF_USE_LEGACY_KERAS"}
    _, out, _ = outcome(code, env=without)
    assert "Import trainer before TensorFlow" in out


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


@pytest.mark.parametrize("value", ["soon", "0", "256"])
def test_such_a_code_that_is_none_is_refused(monkeypatch, value):
    monkeypatch.setenv("STOPPED_CODE", value)
    assert [(problem.setting, problem.received) for problem in versions.find_problems()] == [
        ("STOPPED_CODE", repr(value))
    ]


def test_a_defect_of_ours_keeps_its_traceback():
    code, _, error = outcome(COMMAND, "--end=defect")
    assert code == 1
    assert "Traceback" in error
    assert "a defect of ours" in error


def test_help_tells_the_usage_and_ends_well():
    code, out, _ = outcome(COMMAND, "--help")
    assert "Counts sheep." in out
    assert code == errors.EXIT_DONE


def test_a_script_without_its_required_flag_is_bad_usage():
    done = subprocess.run([sys.executable, "scripts/import_encoder.py"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == errors.EXIT_BAD_USAGE
    assert "--source" in done.stderr

import os

import pytest
from helpers import outcome

from trainer.errors import UsageError
from trainer.runtime import versions


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


@pytest.mark.parametrize("value", ["soon", "0", "256"])
def test_a_stopped_code_outside_1_to_255_is_refused(monkeypatch, value):
    monkeypatch.setenv("STOPPED_CODE", value)
    assert [(problem.setting, problem.received) for problem in versions.find_problems()] == [
        ("STOPPED_CODE", repr(value))
    ]

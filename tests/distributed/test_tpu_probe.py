"""How the probe for a TPU ends on hosts without one."""

import importlib.util
import os
import sys
import time

import pytest
from helpers import free_addresses, python

from trainer.distributed import tpu_probe

VARIABLES = ("TPU_NAME", "PJRT_DEVICE", "NEXT_PLUGGABLE_DEVICE_USE_C_API", "TF_PLUGGABLE_DEVICE_LIBRARY_PATH")
REMOTE_VARIABLE = "TPU_LOAD_LIBRARY"


@pytest.fixture(autouse=True)
def no_tpu_variables(monkeypatch):
    """An environment without a TPU's variables, restored at the end, and no cached result of an earlier probe."""
    for name in (*VARIABLES, REMOTE_VARIABLE):
        monkeypatch.setenv(name, "")  # So that monkeypatch restores it, whatever the test does.
        monkeypatch.delenv(name)
    tpu_probe.find_tpu_problem.cache_clear()
    yield
    tpu_probe.find_tpu_problem.cache_clear()


@pytest.mark.parametrize(
    ("flag", "variable", "expected"),
    [
        (None, None, None),
        ("", "", None),
        ("local", None, "local"),
        (None, "mine", "mine"),
        ("", "mine", "mine"),
        ("grpc://10.0.0.2:8470", "mine", "grpc://10.0.0.2:8470"),
    ],
)
def test_the_flag_takes_precedence_over_the_variable(monkeypatch, flag, variable, expected):
    if variable is not None:
        monkeypatch.setenv("TPU_NAME", variable)
    assert tpu_probe.requested_tpu(flag) == expected


def test_the_variables_of_a_v5e_host_are_set():
    tpu_probe.set_tpu_environment("local")
    assert os.environ["TPU_NAME"] == "local"
    assert os.environ["PJRT_DEVICE"] == "TPU"
    assert os.environ["NEXT_PLUGGABLE_DEVICE_USE_C_API"] == "true"
    if importlib.util.find_spec("libtpu") is None:
        assert "TF_PLUGGABLE_DEVICE_LIBRARY_PATH" not in os.environ


def test_a_tpu_of_other_hosts_is_not_loaded_here():
    tpu_probe.set_tpu_environment("grpc://10.0.0.2:8470")
    assert os.environ[REMOTE_VARIABLE] == "0"
    assert "PJRT_DEVICE" not in os.environ


def test_variables_that_are_set_already_are_kept(monkeypatch):
    for name in VARIABLES:
        monkeypatch.setenv(name, "mine")
    tpu_probe.set_tpu_environment("local")
    assert [os.environ[name] for name in VARIABLES] == ["mine"] * 4


def test_an_installed_libtpu_is_named(monkeypatch, tmp_path):
    (tmp_path / "libtpu").mkdir()
    (tmp_path / "libtpu/__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    tpu_probe.set_tpu_environment("local")
    assert os.environ["TF_PLUGGABLE_DEVICE_LIBRARY_PATH"] == str(tmp_path / "libtpu/libtpu.so")


def test_the_variables_are_set_without_importing_tensorflow():
    code = "from trainer.distributed import tpu_probe; tpu_probe.set_tpu_environment('local')"
    code += "; import sys; print('tensorflow' in sys.modules)"
    assert python("-c", code, check=True).stdout == "False\n"


def test_a_tpu_that_is_named_after_the_import_of_tensorflow_is_a_problem(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    problem = tpu_probe.find_import_problem("local")
    assert (problem.setting, problem.received) == ("--tpu", "local")
    tpu_probe.set_tpu_environment("local")  # What an earlier call has set, TensorFlow has read.
    assert tpu_probe.find_import_problem("local") is None
    monkeypatch.delitem(sys.modules, "tensorflow")
    assert tpu_probe.find_import_problem("grpc://10.0.0.2:8470") is None


def test_a_host_without_a_tpu_is_recognized_in_time():
    started = time.monotonic()
    reason = tpu_probe.find_tpu_problem("local")
    assert time.monotonic() - started < 30
    assert reason == "TensorFlow lists none"


def test_an_address_that_refuses_connections_is_no_tpu():
    started = time.monotonic()
    (address,) = free_addresses(1)
    reason = tpu_probe.find_tpu_problem(f"grpc://{address}")
    assert time.monotonic() - started < 30
    assert reason is not None
    assert "refused" in reason
    assert address in reason
    assert "\n" not in reason


@pytest.fixture
def replace_probe(monkeypatch, tmp_path):
    """A function that replaces the code of the probe process."""

    def replace(code: str) -> None:
        (tmp_path / "replaced_probe.py").write_text(code)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        monkeypatch.setattr(tpu_probe, "PROBE_MODULE", "replaced_probe")

    return replace


def test_a_probe_that_hangs_is_ended(monkeypatch, replace_probe):
    monkeypatch.setattr(tpu_probe, "PROBE_TIMEOUT_S", 1)
    replace_probe("import time; time.sleep(60)")
    started = time.monotonic()
    assert tpu_probe.find_tpu_problem("local") == "no answer within 1 s"
    assert time.monotonic() - started < 3


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import os; os.abort()", "TensorFlow lists none"),
        ("import os, sys; print('libtpu: no device', file=sys.stderr, flush=True); os.abort()", "libtpu: no device"),
        ("raise RuntimeError('x' * 1000)", ("RuntimeError: " + "x" * 1000)[:200]),
        ("print('TPU devices: 0')", "TensorFlow lists none"),
        ("print('a note of TensorFlow'); print('TPU devices: 8')", None),
        ("", "TensorFlow lists none"),
    ],
    ids=["aborts", "prints-and-aborts", "raises", "none", "eight", "prints-nothing"],
)
def test_however_a_probe_ends_its_result_is_a_tpu_or_one_line(replace_probe, code, reason):
    replace_probe(code)
    assert tpu_probe.find_tpu_problem("local") == reason

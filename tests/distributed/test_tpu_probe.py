"""How a TPU is looked for on machines without one."""

import importlib.util
import os
import time

import pytest
from helpers import free_addresses, python

from trainer.distributed import tpu_probe

SETTINGS = ("TPU_NAME", "PJRT_DEVICE", "NEXT_PLUGGABLE_DEVICE_USE_C_API", "TF_PLUGGABLE_DEVICE_LIBRARY_PATH")


@pytest.fixture(autouse=True)
def no_tpu_is_known(monkeypatch):
    """An environment without a TPU's settings, put back at the end; nothing remembered of an earlier look."""
    for name in SETTINGS:
        monkeypatch.setenv(name, "")  # so that it is put back whatever is done to it
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
def test_the_flag_names_the_tpu_or_else_the_environment(monkeypatch, flag, variable, expected):
    if variable is not None:
        monkeypatch.setenv("TPU_NAME", variable)
    assert tpu_probe.requested_tpu(flag) == expected


def test_the_settings_of_a_v5e_host_are_set():
    tpu_probe.set_tpu_environment("local")
    assert os.environ["TPU_NAME"] == "local"
    assert os.environ["PJRT_DEVICE"] == "TPU"
    assert os.environ["NEXT_PLUGGABLE_DEVICE_USE_C_API"] == "true"
    if importlib.util.find_spec("libtpu") is None:
        assert "TF_PLUGGABLE_DEVICE_LIBRARY_PATH" not in os.environ


def test_what_is_set_already_is_kept(monkeypatch):
    for name in SETTINGS:
        monkeypatch.setenv(name, "mine")
    tpu_probe.set_tpu_environment("local")
    assert [os.environ[name] for name in SETTINGS] == ["mine"] * 4


def test_the_library_of_an_installed_libtpu_is_named(monkeypatch, tmp_path):
    (tmp_path / "libtpu").mkdir()
    (tmp_path / "libtpu/__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    tpu_probe.set_tpu_environment("local")
    assert os.environ["TF_PLUGGABLE_DEVICE_LIBRARY_PATH"] == str(tmp_path / "libtpu/libtpu.so")


def test_settings_are_made_without_tensorflow():
    code = "from trainer.distributed import tpu_probe; tpu_probe.set_tpu_environment('local')"
    code += "; import sys; print('tensorflow' in sys.modules)"
    assert python("-c", code, check=True).stdout == "False\n"


def test_a_machine_without_a_tpu_says_so_in_time():
    began = time.monotonic()
    reason = tpu_probe.find_tpu_problem("local")
    assert time.monotonic() - began < 30
    assert reason == "TensorFlow lists none"


def test_an_address_where_nobody_listens_is_no_tpu():
    began = time.monotonic()
    (address,) = free_addresses(1)
    reason = tpu_probe.find_tpu_problem(f"grpc://{address}")
    assert time.monotonic() - began < 30
    assert reason is not None
    assert "refused" in reason
    assert "\n" not in reason


def test_a_look_that_hangs_is_cut(monkeypatch):
    monkeypatch.setattr(tpu_probe, "PROBE_TIMEOUT_S", 1)
    monkeypatch.setattr(tpu_probe, "_LOOK", "import time; time.sleep(60)")
    began = time.monotonic()
    assert tpu_probe.find_tpu_problem("local") == "no answer within 1 s"
    assert time.monotonic() - began < 3


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import os; os.abort()", "TensorFlow lists none"),
        ("import os, sys; print('libtpu: no device', file=sys.stderr, flush=True); os.abort()", "libtpu: no device"),
        ("raise RuntimeError('x' * 1000)", ("RuntimeError: " + "x" * 1000)[:200]),
        ("print('found 0')", "TensorFlow lists none"),
        ("print('a note of TensorFlow'); print('found 8')", None),
        ("", "TensorFlow lists none"),
    ],
    ids=["aborts", "says-why-and-aborts", "raises", "none", "eight", "says-nothing"],
)
def test_however_a_look_ends_it_is_one_line_or_a_tpu(monkeypatch, code, reason):
    monkeypatch.setattr(tpu_probe, "_LOOK", code)
    assert tpu_probe.find_tpu_problem("local") == reason

"""The machine that a run computes on."""

import tensorflow as tf

from trainer.train import machine


def test_a_cpu_is_one_device_whatever_runs_on_it():
    described = machine.describe_machine(tf.distribute.OneDeviceStrategy("/cpu:0"))
    assert (described["device_type"], described["devices"]) == ("CPU", 1)
    assert described["device_name"]
    assert described["cores"] >= 1


def test_the_peak_memory_is_in_bytes_and_never_falls():
    before = machine.peak_memory_bytes()
    block = bytearray(200_000_000)
    block[::4096] = b"x" * len(block[::4096])
    during = machine.peak_memory_bytes()
    del block
    assert 1e7 < before <= during
    assert machine.peak_memory_bytes() >= during

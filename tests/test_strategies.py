"""The strategies without an accelerator; in processes of their own, since TensorFlow sets up its devices once."""

import json
import os

import pytest
import tensorflow as tf
from conftest import python

from trainer import strategies
from trainer.environment import UsageError

CODE = """
import json, sys
from trainer import strategies
names, devices = sys.argv[1].split(","), int(sys.argv[2]) or None
found = {}
for name in names:
    try:
        chosen = strategies.build(name, strategies.Machine(virtual_devices=devices))
        found[name] = [chosen.strategy.num_replicas_in_sync, chosen.description]
    except ValueError as error:
        found[name] = [type(error).__name__, str(error)]
    devices = None
print(json.dumps(found))
"""


def on_cpu(names: str, devices: int) -> dict[str, list]:
    done = python("-c", CODE, names, str(devices), env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_one_cpu_is_one_replica_and_cannot_mirror():
    found = on_cpu("cpu,one_device,auto,mirrored", 0)
    assert found["cpu"] == [1, "the CPU"]
    assert found["one_device"] == [1, "the CPU (there is no GPU)"]
    assert found["auto"] == [1, "the CPU (there is no GPU), chosen by --strategy=auto"]
    kind, message = found["mirrored"]
    assert kind == "UsageError"
    for words in (
        "--strategy=mirrored needs GPUs",
        "Received: a machine without one",
        "--strategy=cpu",
        "--virtual_devices=2",
    ):
        assert words in message


def test_virtual_devices_are_replicas():
    found = on_cpu("mirrored,auto", 3)
    assert found["mirrored"] == [3, "3 replicas on CPU:0, CPU:1, CPU:2"]
    assert found["auto"] == [3, "3 replicas on CPU:0, CPU:1, CPU:2, chosen by --strategy=auto"]


def test_an_unknown_name_is_told_the_valid_ones():
    with pytest.raises(
        UsageError, match=r"--strategy must be one of auto, cpu, one_device, mirrored.*Received: horovod"
    ):
        strategies.build("horovod", strategies.Machine())


@pytest.mark.parametrize("number", [0, -2])
def test_fewer_than_one_virtual_device_is_refused(number):
    with pytest.raises(UsageError, match=rf"--virtual_devices must be at least 1\. Received: {number}\."):
        strategies.build("cpu", strategies.Machine(virtual_devices=number))


def test_a_processor_without_bfloat16_units_is_not_said_to_have_them(monkeypatch):
    strategy = tf.distribute.OneDeviceStrategy("/cpu:0")
    for flags, expected in (
        ({"avx512f"}, False),
        ({"avx512_bf16"}, True),
        ({"amx_bf16", "avx2"}, True),
        (set(), False),
    ):
        monkeypatch.setattr(strategies, "_cpu_flags", lambda flags=flags: flags)
        assert strategies.has_bfloat16(strategy) is expected

"""The strategies without an accelerator; in processes of their own, since TensorFlow sets up its devices once."""

import json
import os
import signal

import pytest
import tensorflow as tf
from helpers import free_addresses, python, start

from trainer.distributed import strategies
from trainer.distributed.rendezvous import Cluster
from trainer.errors import UsageError

CODE = """
import json, sys
from trainer.distributed import strategies
names, devices = sys.argv[1].split(","), int(sys.argv[2]) or None
found = {}
for name in names:
    try:
        chosen = strategies.build_strategy(name, strategies.DeviceRequest(virtual_devices=devices))
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
    why = "no TPU is named and there is no second device"
    assert found["auto"] == [1, f"the CPU (there is no GPU); chosen by --strategy=auto: {why}"]
    kind, message = found["mirrored"]
    assert kind == "UsageError"
    for words in (
        "--strategy=mirrored needs GPUs",
        "Received: a machine on which TensorFlow finds none",
        "--strategy=cpu",
        "--virtual_devices=2",
    ):
        assert words in message


def test_virtual_devices_are_replicas():
    found = on_cpu("mirrored,auto", 3)
    assert found["mirrored"] == [3, "3 replicas on CPU:0, CPU:1, CPU:2"]
    assert found["auto"] == [3, "3 replicas on CPU:0, CPU:1, CPU:2; chosen by --strategy=auto: all that there are"]


def test_an_unknown_name_is_told_the_valid_ones():
    with pytest.raises(
        UsageError, match=r"--strategy must be one of auto, cpu, one_device, mirrored.*Received: horovod"
    ):
        strategies.build_strategy("horovod", strategies.DeviceRequest())


@pytest.mark.parametrize("number", [0, -2])
def test_fewer_than_one_virtual_device_is_refused(number):
    with pytest.raises(UsageError, match=rf"--virtual_devices must be at least 1\. Received: {number}\."):
        strategies.build_strategy("cpu", strategies.DeviceRequest(virtual_devices=number))


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


# --- check: flags that do not go together ---------------------------------------------------------

ONE_HOST = Cluster(("a:1", "a:2"), 0)
TWO_HOSTS = Cluster(("a:1", "b:1"), 0)


def test_every_error_of_the_flags_is_told_at_once():
    machine = strategies.DeviceRequest(virtual_devices=0, tpu="local", cluster=TWO_HOSTS)
    unknown, devices = strategies.find_flag_problems("horovod", machine, "runs/mine")
    assert unknown == (
        "--strategy must be one of auto, cpu, one_device, mirrored, multi_worker, tpu. Received: horovod."
    )
    assert devices == "--virtual_devices must be at least 1. Received: 0."
    devices, folder = strategies.find_flag_problems("auto", machine, "runs/mine")
    assert devices.startswith("--virtual_devices must be at least 1")
    assert folder.startswith("--model_dir must be on shared storage")


def test_build_raises_all_of_them():
    with pytest.raises(UsageError, match=r"(?s)--strategy must be one of .*\n--virtual_devices must be at least 1"):
        strategies.build_strategy("horovod", strategies.DeviceRequest(virtual_devices=-1))


@pytest.mark.parametrize(
    ("name", "machine", "why"),
    [
        ("tpu", strategies.DeviceRequest(tpu="local"), "with a TPU"),
        ("auto", strategies.DeviceRequest(tpu="mine"), "with a TPU"),
        ("auto", strategies.DeviceRequest(tpu="mine", cluster=TWO_HOSTS), "with a TPU"),
        ("multi_worker", strategies.DeviceRequest(cluster=TWO_HOSTS), "on 2 hosts"),
        ("auto", strategies.DeviceRequest(cluster=TWO_HOSTS), "on 2 hosts"),
    ],
)
@pytest.mark.parametrize("folder", ["runs/mine", "/tmp/run", "./gcs/run", "/gcsmine/run"])
def test_what_others_have_to_read_is_on_shared_storage(name, machine, why, folder):
    assert strategies.find_flag_problems(name, machine, folder) == [
        f"--model_dir must be on shared storage, gs://..., for a run {why}. Received: {folder}, a local path."
    ]
    assert strategies.find_flag_problems(name, machine, "gs://bucket/run") == []
    assert strategies.find_flag_problems(name, machine, None) == []


@pytest.mark.parametrize(
    ("name", "machine"),
    [
        ("multi_worker", strategies.DeviceRequest(cluster=ONE_HOST)),
        ("auto", strategies.DeviceRequest(cluster=ONE_HOST)),
        ("auto", strategies.DeviceRequest()),
        ("cpu", strategies.DeviceRequest(tpu="local", cluster=TWO_HOSTS)),
        ("mirrored", strategies.DeviceRequest(tpu="local", virtual_devices=2)),
        ("multi_worker", strategies.DeviceRequest(tpu="local", cluster=ONE_HOST)),
    ],
)
def test_workers_on_one_host_may_use_its_disk(name, machine):
    assert strategies.find_flag_problems(name, machine, "runs/mine") == []


# --- What is not there ----------------------------------------------------------------------------


def test_without_addresses_or_a_tpu_the_strategies_that_would_work_are_listed():
    found = on_cpu("multi_worker,tpu", 0)
    assert found["multi_worker"] == [
        "UsageError",
        "--strategy=multi_worker needs the workers' addresses in TF_CONFIG or CLUSTER_SPEC. Received: neither. "
        "Here --strategy=cpu, one_device would work.",
    ]
    kind, message = found["tpu"]
    assert kind == "UsageError"
    assert message.startswith("--strategy=tpu needs the TPU that --tpu names, `local` for this host's own. Received: ")
    assert "Received: neither that flag nor the variable TPU_NAME. Here --strategy=cpu, one_device would wo" in message


def test_a_tpu_that_is_named_but_not_there_is_refused_with_the_reason():
    with pytest.raises(UsageError, match=r"Received: --tpu=local, but TensorFlow lists none\. Here --strategy=cpu, "):
        strategies.build_strategy("auto", strategies.DeviceRequest(tpu="local"))


# --- A worker among others ------------------------------------------------------------------------


@pytest.mark.parametrize("machine", [strategies.DeviceRequest(), strategies.DeviceRequest(cluster=TWO_HOSTS)])
def test_one_process_without_a_cluster_is_the_chief_and_agrees_with_itself(machine):
    strategy = strategies.build_strategy("cpu", machine).strategy
    assert strategies.worker_index_and_count(strategy) == (0, 1)
    agree = strategies.build_all_reduce_max(strategy)
    assert agree([3, -1.5]) == [3, -1.5]
    assert agree([]) == []
    assert not strategies.has_accelerator(strategy)


WORKER = """
import json, os, signal, sys
from trainer.distributed import strategies
from trainer.distributed.rendezvous import Cluster
name, index, addresses = sys.argv[1], int(sys.argv[2]), tuple(sys.argv[3].split(","))
chosen = strategies.build_strategy(name, strategies.DeviceRequest(cluster=Cluster(addresses, index)))
agree = strategies.build_all_reduce_max(chosen.strategy)
said = [
    agree([index == 1]),
    agree([False]),
    agree([index, -index, 10.0 + 0.1 * index]),
    agree([-1 if index else 1 << 53]),
]
accelerator = strategies.has_accelerator(chosen.strategy)
place = strategies.worker_index_and_count(chosen.strategy)
print(json.dumps([chosen.description, place, said, accelerator]), flush=True)
os.kill(os.getpid(), signal.SIGTERM)
"""


def workers(name: str, count: int) -> list[list]:
    """What each of so many processes prints, which then end by SIGTERM: TensorFlow is not to keep that from them."""
    addresses = ",".join(free_addresses(count))
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}
    processes = [start(WORKER, name, index, addresses, env=hidden) for index in range(count)]
    try:
        ended = [process.communicate(timeout=60) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert [process.returncode for process in processes] == [-signal.SIGTERM] * count, ended
    return [json.loads(out.splitlines()[-1]) for out, _ in ended]


def test_two_workers_agree_on_the_largest_of_what_they_say():
    auto = "; chosen by --strategy=auto: named by TF_CONFIG or CLUSTER_SPEC"
    for index, (description, place, said, accelerator) in enumerate(workers("auto", 2)):
        assert description == f"worker {index} of 2, 2 replicas in all{auto}"
        assert place == [index, 2]
        assert said == [[1], [0], [1, 0, 10.1], [1 << 53]]
        assert accelerator is False


def test_a_cluster_of_one_worker_trains_alone():
    ((description, place, said, _),) = workers("multi_worker", 1)
    assert description == "worker 0 of 1, 1 replicas in all"
    assert place == [0, 1]
    assert said[2] == [0, 0, 10]

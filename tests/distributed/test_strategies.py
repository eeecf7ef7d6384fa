"""The strategies without an accelerator, in other processes, since TensorFlow starts its devices once."""

import json
import os
import signal

import pytest
import tensorflow as tf
from helpers import free_addresses, python, start

from trainer.distributed import device_flags, processor, strategies
from trainer.distributed.cluster_config import Cluster
from trainer.errors import UsageError

CODE = """
import json, sys
from trainer.distributed import strategies
names, devices = sys.argv[1].split(","), int(sys.argv[2]) or None
outcomes = {}
for name in names:
    try:
        choice = strategies.build_strategy(name, strategies.DeviceRequest(virtual_devices=devices))
        outcomes[name] = [choice.strategy.num_replicas_in_sync, choice.description]
    except ValueError as error:
        outcomes[name] = [type(error).__name__, str(error)]
print(json.dumps(outcomes))
"""


def build_on_cpu(names: str, devices: int) -> dict[str, list]:
    """For each strategy its number of replicas and its description, or its error's type and message."""
    done = python("-c", CODE, names, str(devices), env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_one_cpu_is_one_replica_and_cannot_be_mirrored():
    outcomes = build_on_cpu("cpu,one_device,auto,mirrored", 0)
    assert outcomes["cpu"] == [1, "the CPU"]
    assert outcomes["one_device"] == [1, "the CPU (there is no GPU)"]
    reason = "no TPU is named and there is no second device"
    assert outcomes["auto"] == [1, f"the CPU (there is no GPU); chosen by --strategy=auto: {reason}"]
    kind, message = outcomes["mirrored"]
    assert kind == "UsageError"
    for words in ("--strategy=mirrored", "--strategy=cpu", "--virtual_devices=2"):
        assert words in message


def test_virtual_devices_are_replicas():
    outcomes = build_on_cpu("mirrored,auto", 3)
    assert outcomes["mirrored"] == [3, "3 replicas on CPU:0, CPU:1, CPU:2"]
    assert outcomes["auto"] == [3, "3 replicas on CPU:0, CPU:1, CPU:2; chosen by --strategy=auto: all that there are"]


LATER = """
import json
from trainer.distributed import strategies
from trainer.distributed.cluster_config import Cluster

def build(name, devices):
    return strategies.build_strategy(name, strategies.DeviceRequest(virtual_devices=devices)).strategy

def problems(devices, **variables):
    try:
        strategies.request_devices("auto", devices, None, variables, trains=True)
    except ValueError as error:
        return [problem.setting for problem in error.problems]
    return []

cluster = json.dumps({"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}})
before = problems(2, TF_CONFIG=cluster)
replicas = [build(*each).num_replicas_in_sync for each in (("auto", 2), ("auto", None), ("cpu", None), ("auto", 2))]
print(json.dumps([replicas, before, problems(2), problems(3, TF_CONFIG=cluster)]))
"""


def test_a_process_starts_its_devices_once_and_says_so():
    done = python("-c", LATER, env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}, check=True)
    replicas, before, same, others = json.loads(done.stdout)
    assert replicas == [2, 1, 1, 2]  # Without --virtual_devices as in a new process.
    assert (before, same) == ([], [])
    assert others == ["--virtual_devices", "--strategy=multi_worker"]


def test_an_unknown_name_is_rejected_with_the_valid_ones():
    with pytest.raises(UsageError, match=r"--strategy .*auto, cpu, one_device, mirrored.*Received: horovod"):
        strategies.build_strategy("horovod", strategies.DeviceRequest())


@pytest.mark.parametrize("number", [0, -2])
def test_fewer_than_one_virtual_device_is_rejected(number):
    with pytest.raises(UsageError, match=rf"--virtual_devices .*Received: {number}\."):
        strategies.build_strategy("cpu", strategies.DeviceRequest(virtual_devices=number))


def test_bfloat16_depends_on_the_features_of_the_processor(monkeypatch):
    strategy = tf.distribute.OneDeviceStrategy("/cpu:0")
    for features, expected in (
        ({"avx512f"}, False),
        ({"avx512_bf16"}, True),
        ({"amx_bf16", "avx2"}, True),
        (set(), False),
    ):
        described = processor.Processor("some CPU", frozenset(features), 2)
        monkeypatch.setattr(processor, "describe_processor", lambda described=described: described)
        assert strategies.has_bfloat16(strategy) is expected


# --- Flags that do not go together ------------------------------------------------------------------

TWO_HOSTS = Cluster(("a:1", "b:1"), 0)


def test_the_names_known_without_tensorflow_are_the_strategies():
    assert tuple(strategies.STRATEGIES) == device_flags.STRATEGY_NAMES


def test_every_problem_of_the_flags_is_found_at_once():
    request = strategies.DeviceRequest(virtual_devices=0, tpu="local", cluster=TWO_HOSTS)
    problems = strategies.find_flag_problems("horovod", request)
    assert [problem.setting for problem in problems] == ["--strategy", "--virtual_devices"]
    problems = strategies.find_flag_problems("multi_worker", request)
    assert [problem.setting for problem in problems] == ["--virtual_devices"]


def test_building_raises_every_problem_at_once():
    with pytest.raises(UsageError) as caught:
        strategies.build_strategy("horovod", strategies.DeviceRequest(virtual_devices=-1))
    assert [problem.setting for problem in caught.value.problems] == ["--strategy", "--virtual_devices"]


# --- Missing hardware -------------------------------------------------------------------------------


def test_missing_hardware_is_rejected_with_the_possible_strategies():
    outcomes = build_on_cpu("multi_worker,tpu", 0)
    for name, variable in (("multi_worker", "TF_CONFIG"), ("tpu", "TPU_NAME")):
        kind, message = outcomes[name]
        assert kind == "UsageError"
        for words in (f"--strategy={name}", variable, "This host can run --strategy=cpu, one_device."):
            assert words in message


def test_a_tpu_that_is_missing_is_rejected_with_the_reason():
    with pytest.raises(UsageError, match="Received: --tpu=local, but TensorFlow lists none"):
        strategies.build_strategy("auto", strategies.DeviceRequest(tpu="local"))


# --- One of several workers -------------------------------------------------------------------------


@pytest.mark.parametrize("device_request", [strategies.DeviceRequest(), strategies.DeviceRequest(cluster=TWO_HOSTS)])
def test_a_single_worker_gets_its_own_values_back(device_request):
    strategy = strategies.build_strategy("cpu", device_request).strategy
    assert strategies.worker_index_and_count(strategy) == (0, 1)
    all_reduce_max = strategies.build_all_reduce_max(strategy)
    assert all_reduce_max({"a": 3, "b": -1.5}) == {"a": 3, "b": -1.5}
    assert not strategies.has_accelerator(strategy)


WORKER = """
import json, os, signal, sys, time
from trainer.distributed import strategies
from trainer.distributed.cluster_config import Cluster
name, index, addresses = sys.argv[1], int(sys.argv[2]), tuple(sys.argv[3].split(","))
choice = strategies.build_strategy(name, strategies.DeviceRequest(cluster=Cluster(addresses, index)))
all_reduce_max = strategies.build_all_reduce_max(choice.strategy)
largest = [
    all_reduce_max({"stop": index == 1}),
    all_reduce_max({"stop": False}),
    all_reduce_max({"b": index, "a": -index, "seconds": 10.0 + 0.1 * index}),
    all_reduce_max({"step": -1 if index else 1 << 53}),
]
accelerator = strategies.has_accelerator(choice.strategy)
position = strategies.worker_index_and_count(choice.strategy)
print(json.dumps([choice.description, position, largest, accelerator]), flush=True)
time.sleep(2)  # The other worker may still be receiving the last values from this one.
os.kill(os.getpid(), signal.SIGTERM)
"""


def workers(name: str, count: int) -> list[list]:
    """What each of this many processes prints. They end by SIGTERM, which TensorFlow must not keep from them."""
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


def test_two_workers_get_the_largest_value_of_each_name():
    auto = "; chosen by --strategy=auto: named by TF_CONFIG or CLUSTER_SPEC"
    for index, (description, position, largest, accelerator) in enumerate(workers("auto", 2)):
        assert description == f"worker {index} of 2, 2 replicas in all{auto}"
        assert position == [index, 2]
        assert largest == [{"stop": 1}, {"stop": 0}, {"b": 1, "a": 0, "seconds": 10.1}, {"step": 1 << 53}]
        assert accelerator is False


def test_a_cluster_of_one_worker_waits_for_nobody():
    ((description, position, largest, _),) = workers("multi_worker", 1)
    assert description == "worker 0 of 1, 1 replicas in all"
    assert position == [0, 1]
    assert largest[2] == {"b": 0, "a": 0, "seconds": 10}

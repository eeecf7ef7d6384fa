"""The cluster that TF_CONFIG and CLUSTER_SPEC describe, as services and operators write them."""

import json

import pytest

from trainer.distributed import cluster_config
from trainer.distributed.cluster_config import Cluster
from trainer.errors import UsageError

CHIEF_AND_WORKERS = {"chief": ["a:1"], "worker": ["b:2", "c:3"]}
POOLS = {"workerpool0": ["a:1"], "workerpool1": ["b:2", "c:3"]}


def described(jobs, kind="worker", index=0) -> str:
    return json.dumps({"cluster": jobs, "task": {"type": kind, "index": index}})


@pytest.mark.parametrize("name", ["TF_CONFIG", "CLUSTER_SPEC"])
@pytest.mark.parametrize(
    ("jobs", "tasks"),
    [
        (CHIEF_AND_WORKERS, [("chief", 0), ("worker", 0), ("worker", 1)]),
        ({"worker": ["b:2", "c:3"], "chief": ["a:1"]}, [("chief", 0), ("worker", 0), ("worker", 1)]),
        ({"master": ["a:1"], "worker": ["b:2", "c:3"]}, [("master", 0), ("worker", 0), ("worker", 1)]),
        ({"worker": ["a:1", "b:2", "c:3"]}, [("worker", 0), ("worker", 1), ("worker", 2)]),
        (POOLS, [("workerpool0", 0), ("workerpool1", 0), ("workerpool1", 1)]),
    ],
    ids=["chief", "chief-last", "master", "workers", "pools"],
)
def test_each_format_gives_every_task_its_index_chief_first(name, jobs, tasks):
    for position, (kind, index) in enumerate(tasks):
        assert cluster_config.read_cluster({name: described(jobs, kind, index)}) == Cluster(
            ("a:1", "b:2", "c:3"), position
        )


def test_what_vertex_ai_adds_is_ignored():
    spec = {
        "cluster": POOLS,
        "environment": "cloud",
        "task": {"type": "workerpool1", "index": 1, "trial": "3"},
        "job": '{"python_module": "trainer.task"}',
    }
    assert cluster_config.read_cluster({"CLUSTER_SPEC": json.dumps(spec)}) == Cluster(("a:1", "b:2", "c:3"), 2)


# The examples of https://cloud.google.com/vertex-ai/docs/training/distributed-training and of one trial of AI Platform,
# https://cloud.google.com/ai-platform/training/docs/distributed-training-details, with their names of hosts.
VERTEX_SPEC = {
    "workerpool0": ["cmle-training-workerpool0-ab-0:2222"],
    "workerpool1": ["cmle-training-workerpool1-ab-0:2222", "cmle-training-workerpool1-ab-1:2222"],
    "workerpool2": ["cmle-training-workerpool2-ab-0:2222", "cmle-training-workerpool2-ab-1:2222"],
    "workerpool3": [f"cmle-training-workerpool3-ab-{index}:2222" for index in range(3)],
}
VERTEX_CONFIG = {
    "chief": ["training-workerpool0-[ID_STRING_1]-0:2222"],
    "ps": ["training-workerpool2-[ID_STRING_1]-0:2222"],
    "worker": ["training-workerpool1-[ID_STRING_1]-0:2222", "training-workerpool1-[ID_STRING_1]-1:2222"],
}
AI_PLATFORM_CONFIG = {
    "chief": ["cmle-training-chief-[ID_STRING_1]-0:2222"],
    "ps": ["cmle-training-ps-[ID_STRING_1]-0:2222"],
    "worker": ["cmle-training-worker-[ID_STRING_1]-0:2222", "cmle-training-worker-[ID_STRING_1]-1:2222"],
}
EXAMPLES = [
    ("CLUSTER_SPEC", VERTEX_SPEC, ("workerpool0", "workerpool1"), {"trial": "TRIAL_ID"}),
    ("TF_CONFIG", VERTEX_CONFIG, ("chief", "worker"), {"cloud": "[ID_STRING_2]", "trial": "1"}),
    ("TF_CONFIG", AI_PLATFORM_CONFIG, ("chief", "worker"), {"cloud": "[ID_STRING_2]", "trial": "1"}),
]


def example(jobs, kind, index, more) -> str:
    task = {"type": kind, "index": index, **more}
    return json.dumps({"cluster": jobs, "environment": "cloud", "task": task, "job": {"workerPoolSpecs": []}})


@pytest.mark.parametrize(("name", "jobs", "kinds", "more"), EXAMPLES, ids=["vertex-spec", "vertex", "ai-platform"])
def test_the_documented_examples_are_read_without_parameter_servers(name, jobs, kinds, more):
    workers = {kind: jobs[kind] for kind in kinds}
    addresses = tuple(address for kind in kinds for address in jobs[kind])
    for position, (kind, index) in enumerate([(kinds[0], 0), (kinds[1], 0), (kinds[1], 1)]):
        assert cluster_config.read_cluster({name: example(workers, kind, index, more)}) == Cluster(addresses, position)
    others = ", ".join(job for job in jobs if job not in kinds)
    with pytest.raises(UsageError, match=rf"^{name} .*Received: also {others}\."):
        cluster_config.read_cluster({name: example(jobs, kinds[1], 0, more)})


@pytest.mark.parametrize("kind", ["evaluator", "ps"])
@pytest.mark.parametrize("jobs", [CHIEF_AND_WORKERS, {"worker": ["a:1"]}, {}])
def test_a_task_that_does_not_train_is_rejected_outside_the_cluster_too(kind, jobs):
    with pytest.raises(UsageError, match=rf"Received: the task {kind}\..* leave them out of the job"):
        cluster_config.read_cluster({"TF_CONFIG": example(jobs, kind, 0, {"cloud": "id"})})


@pytest.mark.parametrize(
    "environment",
    [
        {"CLUSTER_SPEC": example({"workerpool0": ["cmle-training-workerpool0-ab-0:2222"]}, "workerpool0", 0, {})},
        {"TF_CONFIG": example({"chief": ["127.0.0.1:2222"]}, "chief", 0, {"cloud": "id"})},
        {"TF_CONFIG": example({"master": ["localhost:2222"]}, "master", 0, {"cloud": "id"})},
        {"TF_CONFIG": '{"environment": "cloud", "job": {}, "task": {"type": "master", "index": 0}}'},
    ],
    ids=["vertex", "ai-platform", "before-2.1", "no-cluster"],
)
def test_a_job_on_one_host_has_no_other_workers(environment):
    cluster = cluster_config.read_cluster(environment)
    assert cluster is None or (len(cluster.addresses), cluster.index) == (1, 0)


def test_an_index_may_be_text():
    assert cluster_config.read_cluster({"TF_CONFIG": described(CHIEF_AND_WORKERS, "worker", "1")}).index == 2


@pytest.mark.parametrize(
    "value", ["", " \n", "{}", '{"cluster": {}}', '{"cluster": null, "task": null}', '{"task": {"type": "chief"}}']
)
def test_a_value_without_workers_is_no_cluster(value):
    assert cluster_config.read_cluster({}) is None
    assert cluster_config.read_cluster({"TF_CONFIG": value}) is None
    assert cluster_config.read_cluster({"CLUSTER_SPEC": value}) is None


def test_tf_config_takes_precedence_over_cluster_spec():
    spec = described({"workerpool0": ["x:1"], "workerpool1": ["y:1"]}, "workerpool1")
    assert (
        cluster_config.read_cluster({"TF_CONFIG": described(CHIEF_AND_WORKERS), "CLUSTER_SPEC": spec}).addresses[0]
        == "a:1"
    )
    assert cluster_config.read_cluster({"TF_CONFIG": "", "CLUSTER_SPEC": spec}) == Cluster(("x:1", "y:1"), 1)


@pytest.mark.parametrize("name", ["TF_CONFIG", "CLUSTER_SPEC"])
@pytest.mark.parametrize(
    "value",
    [
        "worker 0",
        '{"cluster": ',
        "[]",
        "[1, 2]",
        "7",
        "null",
        '"worker"',
        '{"cluster": ["a:1"]}',
        '{"cluster": {"worker": 7}}',
        '{"cluster": {"worker": ["a:1"]}, "task": [0]}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": null}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": "first"}}',
        '{"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": true}}',
        '{"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": 0.5}}',
    ],
)
def test_a_value_of_another_form_is_rejected_with_an_example(name, value):
    with pytest.raises(UsageError, match=rf'^{name} must be JSON such as {{"cluster": {{"worker": .*Received: ') as r:
        cluster_config.read_cluster({name: value})
    assert value in str(r.value)


def test_a_long_value_is_truncated_in_the_message():
    with pytest.raises(UsageError, match=r"Received: x{200} ") as raised:
        cluster_config.read_cluster({"TF_CONFIG": "x" * 10_000})
    assert len(str(raised.value)) < 500


@pytest.mark.parametrize("name", ["TF_CONFIG", "CLUSTER_SPEC"])
@pytest.mark.parametrize(
    ("kind", "index"), [("worker", 2), ("worker", -1), ("chief", 1), ("master", 0), ("workerpool0", 0)]
)
def test_a_task_without_an_address_is_rejected_with_those_that_have_one(name, kind, index):
    words = rf"^{name} .* Received: task {kind} {index} of chief 0 to 0, worker 0 to 1\."
    with pytest.raises(UsageError, match=words):
        cluster_config.read_cluster({name: described(CHIEF_AND_WORKERS, kind, index)})


@pytest.mark.parametrize("name", ["TF_CONFIG", "CLUSTER_SPEC"])
@pytest.mark.parametrize("others", [["ps"], ["evaluator"], ["evaluator", "ps"], ["workerpool2"]])
@pytest.mark.parametrize("kind", ["worker", "own"])
def test_parameter_servers_and_evaluators_are_rejected_by_name(name, others, kind):
    jobs = {**CHIEF_AND_WORKERS, **{other: [f"{other}:9"] for other in others}}
    with pytest.raises(UsageError, match=rf"^{name} .*Received: also {', '.join(others)}\."):
        cluster_config.read_cluster({name: described(jobs, others[0] if kind == "own" else kind)})


@pytest.mark.parametrize("name", ["TF_CONFIG", "CLUSTER_SPEC"])
@pytest.mark.parametrize(
    "addresses",
    [
        ["a:1", "a:1"],
        ["a:1", "b"],
        ["a:1", "b:"],
        ["a:1", ":2"],
        ["a:1", "b:http"],
        ["a:1", "b:-2"],
        ["a:1", ""],
        ["a:1", "10.0.0.1"],
        ["a:1", "2222"],
        ["a:1", "b:65536"],
        ["a:1", "::1:2"],
        ["a:1", "b:2/x"],
        ["a:1", "b c:2"],
    ],
)
def test_every_worker_needs_its_own_host_and_port(name, addresses):
    with pytest.raises(UsageError, match=rf"^{name} .*Received: {', '.join(addresses)}\."):
        cluster_config.read_cluster({name: described({"worker": addresses})})


def test_the_same_address_in_two_jobs_is_rejected():
    with pytest.raises(UsageError, match=r"Received: a:1, a:1\."):
        cluster_config.read_cluster({"TF_CONFIG": described({"chief": ["a:1"], "worker": ["a:1"]})})


def test_a_cluster_without_this_task_is_rejected():
    with pytest.raises(UsageError, match="TF_CONFIG"):
        cluster_config.read_cluster({"TF_CONFIG": '{"cluster": {"worker": ["a:1", "b:2"]}}'})


# --- Kubeflow ---------------------------------------------------------------------------------------

# What its operator writes for a TFJob of two workers and a chief, with enableDynamicWorker, before and since 1.7, and
# without it: https://github.com/kubeflow/trainer/blob/release-1.9/pkg/controller.v1/tensorflow/tensorflow.go
WORKER = {"type": "worker", "index": 1}
SPARSE = [
    {"sparseCluster": {"worker": {"1": "job-worker-1.team.svc:2222"}, "ps": []}, "task": WORKER},
    {"sparseCluster": {"worker": {}, "ps": []}, "task": {"type": "chief", "index": 0}},
    {"cluster": {"worker": {"1": "job-worker-1.team.svc:2222"}, "ps": []}, "task": WORKER},
    {"cluster": {"worker": {"0": "job-worker-0.team.svc:2222"}, "ps": []}, "task": {"type": "worker", "index": 0}},
    {"cluster": {"worker": {}, "ps": []}, "task": {"type": "chief", "index": 0}},
    {"cluster": {"sparseCluster": {"worker": {"0": "a:1"}}}, "task": {"type": "worker", "index": 0}},
    {"cluster": {}, "sparseCluster": {"worker": {"0": "a:1"}}, "task": {"type": "worker", "index": 0}},
]


@pytest.mark.parametrize("described", SPARSE)
def test_a_cluster_that_names_one_worker_by_its_index_is_rejected(described):
    with pytest.raises(UsageError) as caught:
        cluster_config.read_cluster({"TF_CONFIG": json.dumps(described)})
    (problem,) = caught.value.problems
    assert problem.setting == "TF_CONFIG"
    assert "cluster" in problem.received.lower()
    assert "enableDynamicWorker: false" in problem.advice


def test_the_cluster_of_a_tfjob_is_read():
    addresses = [f"job-worker-{index}.team.svc:2222" for index in range(2)]
    described = {"cluster": {"worker": addresses}, "task": WORKER, "environment": "cloud", "rpc_layer": "grpc"}
    assert cluster_config.read_cluster({"TF_CONFIG": json.dumps(described)}) == Cluster(tuple(addresses), 1)


@pytest.mark.parametrize(
    "other",
    [
        {"clusterSpec": {"worker": ["a:1", "b:2"]}},
        {"Cluster": {"worker": ["a:1", "b:2"]}},
        {"workers": ["a:1", "b:2"]},
        {"spec": {"worker": ["a:1", "b:2"]}},
    ],
)
def test_a_key_that_names_workers_elsewhere_is_rejected(other):
    (key,) = other
    with pytest.raises(UsageError, match=rf"describe the workers in `cluster` alone\. Received: {key}\."):
        cluster_config.read_cluster({"TF_CONFIG": json.dumps({**other, "task": {"type": "worker", "index": 0}})})


@pytest.mark.parametrize(
    "described",
    [
        {"task": WORKER},
        {"cluster": {"worker": []}, "task": {"type": "worker", "index": 0}},
        {"cluster": {"worker": [], "ps": []}, "task": {"type": "chief", "index": 0}},
    ],
)
def test_a_worker_of_several_without_addresses_does_not_train_alone(described):
    with pytest.raises(UsageError, match="TF_CONFIG must list the addresses of all workers"):
        cluster_config.read_cluster({"TF_CONFIG": json.dumps(described)})


@pytest.mark.parametrize(
    "jobs",
    [
        {"chief": ["a:1"], "master": ["b:2"]},
        {"chief": ["a:1", "b:2"]},
        {"master": ["a:1"], "workerpool0": ["b:2"], "worker": ["c:3"]},
    ],
)
def test_a_second_chief_is_rejected(jobs):
    (kind, *_) = jobs
    with pytest.raises(UsageError, match=r"TF_CONFIG must name one chief\. Received: .*b:2"):
        cluster_config.read_cluster({"TF_CONFIG": described(jobs, kind)})


@pytest.mark.parametrize("address", ["grpc://b:2", "grpc://b:2/", "grpcs://b:2", "http://b:2"])
def test_the_scheme_of_an_address_is_to_be_dropped(address):
    with pytest.raises(UsageError, match=rf"Received: {address}\. Drop the scheme: b:2\."):
        cluster_config.read_cluster({"TF_CONFIG": described({"worker": ["a:1", address]})})


@pytest.mark.parametrize("task", [{"type": "worker"}, {"type": "worker", "index": ""}])
def test_a_task_of_several_says_its_index(task):
    value = json.dumps({"cluster": {"worker": ["a:1", "b:2"]}, "task": task})
    with pytest.raises(UsageError, match="task worker without index of worker 0 to 1"):
        cluster_config.read_cluster({"TF_CONFIG": value})

"""The cluster that the environment describes, and the rendezvous, between threads on ports of this host."""

import concurrent.futures
import contextlib
import json
import socket
import threading
import time

import pytest
from helpers import free_addresses

from trainer.distributed import rendezvous
from trainer.distributed.rendezvous import Cluster
from trainer.errors import UsageError, UserError

# --- The environment -------------------------------------------------------------------------------

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
        assert rendezvous.read_cluster({name: described(jobs, kind, index)}) == Cluster(("a:1", "b:2", "c:3"), position)


def test_what_vertex_ai_adds_is_ignored():
    spec = {
        "cluster": POOLS,
        "environment": "cloud",
        "task": {"type": "workerpool1", "index": 1, "trial": "3"},
        "job": '{"python_module": "trainer.task"}',
    }
    assert rendezvous.read_cluster({"CLUSTER_SPEC": json.dumps(spec)}) == Cluster(("a:1", "b:2", "c:3"), 2)


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
        assert rendezvous.read_cluster({name: example(workers, kind, index, more)}) == Cluster(addresses, position)
    others = ", ".join(job for job in jobs if job not in kinds)
    with pytest.raises(UsageError, match=rf"^{name} .*Received: also {others}\."):
        rendezvous.read_cluster({name: example(jobs, kinds[1], 0, more)})


def test_an_evaluator_outside_the_cluster_is_rejected():
    with pytest.raises(UsageError, match="Received: task evaluator 0 of chief 0 to 0, worker 0 to 1"):
        rendezvous.read_cluster({"TF_CONFIG": example(CHIEF_AND_WORKERS, "evaluator", 0, {"cloud": "id"})})


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
    cluster = rendezvous.read_cluster(environment)
    assert cluster is None or (len(cluster.addresses), cluster.index) == (1, 0)


def test_an_index_may_be_text():
    assert rendezvous.read_cluster({"TF_CONFIG": described(CHIEF_AND_WORKERS, "worker", "1")}).index == 2


@pytest.mark.parametrize(
    "value", ["", " \n", "{}", '{"cluster": {}}', '{"cluster": null, "task": null}', '{"task": {"type": "chief"}}']
)
def test_a_value_without_workers_is_no_cluster(value):
    assert rendezvous.read_cluster({}) is None
    assert rendezvous.read_cluster({"TF_CONFIG": value}) is None
    assert rendezvous.read_cluster({"CLUSTER_SPEC": value}) is None


def test_tf_config_takes_precedence_over_cluster_spec():
    spec = described({"workerpool0": ["x:1"], "workerpool1": ["y:1"]}, "workerpool1")
    assert (
        rendezvous.read_cluster({"TF_CONFIG": described(CHIEF_AND_WORKERS), "CLUSTER_SPEC": spec}).addresses[0] == "a:1"
    )
    assert rendezvous.read_cluster({"TF_CONFIG": "", "CLUSTER_SPEC": spec}) == Cluster(("x:1", "y:1"), 1)


def test_hosts_are_counted_once():
    assert Cluster(("a:1", "a:2", "b:1"), 0).hosts == {"a", "b"}
    assert Cluster(("127.0.0.1:1", "localhost:2", "[::1]:3"), 0).hosts == {"localhost"}


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
    ],
)
def test_a_value_of_another_form_is_rejected_with_an_example(name, value):
    with pytest.raises(UsageError, match=rf'^{name} must be JSON such as {{"cluster": {{"worker": .*Received: ') as r:
        rendezvous.read_cluster({name: value})
    assert value in str(r.value)


def test_a_long_value_is_truncated_in_the_message():
    with pytest.raises(UsageError, match=r"Received: x{200} ") as raised:
        rendezvous.read_cluster({"TF_CONFIG": "x" * 10_000})
    assert len(str(raised.value)) < 500


@pytest.mark.parametrize("name", ["TF_CONFIG", "CLUSTER_SPEC"])
@pytest.mark.parametrize(
    ("kind", "index"), [("worker", 2), ("worker", -1), ("chief", 1), ("master", 0), ("workerpool0", 0), ("ps", 0)]
)
def test_a_task_without_an_address_is_rejected_with_those_that_have_one(name, kind, index):
    words = rf"^{name} .* Received: task {kind} {index} of chief 0 to 0, worker 0 to 1\."
    with pytest.raises(UsageError, match=words):
        rendezvous.read_cluster({name: described(CHIEF_AND_WORKERS, kind, index)})


@pytest.mark.parametrize("name", ["TF_CONFIG", "CLUSTER_SPEC"])
@pytest.mark.parametrize("others", [["ps"], ["evaluator"], ["evaluator", "ps"], ["workerpool2"]])
@pytest.mark.parametrize("kind", ["worker", "own"])
def test_parameter_servers_and_evaluators_are_rejected_by_name(name, others, kind):
    jobs = {**CHIEF_AND_WORKERS, **{other: [f"{other}:9"] for other in others}}
    with pytest.raises(UsageError, match=rf"^{name} .*Received: also {', '.join(others)}\."):
        rendezvous.read_cluster({name: described(jobs, others[0] if kind == "own" else kind)})


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
    ],
)
def test_every_worker_needs_its_own_host_and_port(name, addresses):
    with pytest.raises(UsageError, match=rf"^{name} .*Received: {', '.join(addresses)}\."):
        rendezvous.read_cluster({name: described({"worker": addresses})})


def test_the_same_address_in_two_jobs_is_rejected():
    with pytest.raises(UsageError, match=r"Received: a:1, a:1\."):
        rendezvous.read_cluster({"TF_CONFIG": described({"chief": ["a:1"], "worker": ["a:1"]})})


def test_a_cluster_without_this_task_is_rejected():
    with pytest.raises(UsageError, match="TF_CONFIG"):
        rendezvous.read_cluster({"TF_CONFIG": '{"cluster": {"worker": ["a:1", "b:2"]}}'})


# --- The rendezvous --------------------------------------------------------------------------------

SIGNATURE = {"seed": 0, "data.batch_size": 32, "optimizer.learning_rate": 1e-4, "task": None, "the data set": "f00"}


@pytest.fixture(autouse=True)
def short_intervals(monkeypatch):
    """Shorter intervals: nothing but the duration of these tests depends on them."""
    monkeypatch.setattr(rendezvous, "POLL_INTERVAL_S", 0.05)
    monkeypatch.setattr(rendezvous, "REPLY_TIMEOUT_S", 0.7)


def port(address: str) -> int:
    return int(address.rpartition(":")[2])


def wait(addresses, index, signature=SIGNATURE, timeout=8.0, delay=0.0) -> Exception | None:
    """What the rendezvous raises on this worker, which starts after a delay."""
    time.sleep(delay)
    try:
        rendezvous.wait_for_workers(Cluster(addresses, index), signature, timeout)
    except Exception as error:
        return error
    return None


@contextlib.contextmanager
def worker_threads():
    """Yields a function that calls `wait` in a thread."""
    with concurrent.futures.ThreadPoolExecutor(8) as executor:
        yield lambda *arguments, **options: executor.submit(wait, *arguments, **options)


def wait_all(addresses, signatures, timeout=8.0, delays=None) -> list[Exception | None]:
    """What each worker raises, or None."""
    with worker_threads() as start:
        futures = [
            start(addresses, index, signature, timeout, (delays or {}).get(index, 0.0))
            for index, signature in enumerate(signatures)
        ]
        return [future.result() for future in futures]


def all_free(addresses) -> bool:
    """Whether TensorFlow could listen on each of them."""
    for address in addresses:
        with socket.create_server(("", port(address))):
            pass
    return True


@pytest.mark.parametrize("workers", [2, 3])
def test_workers_with_the_same_signature_leave_their_ports_free(workers):
    addresses = free_addresses(workers)
    threads = threading.active_count()
    assert wait_all(addresses, [SIGNATURE] * workers) == [None] * workers
    assert all_free(addresses)
    assert threading.active_count() == threads


def test_a_single_worker_does_not_wait():
    addresses = free_addresses(1)
    assert wait_all(addresses, [SIGNATURE]) == [None]
    assert all_free(addresses)


@pytest.mark.parametrize("late", [0, 1, 2])
def test_a_worker_that_starts_later_is_waited_for(late):
    started = time.monotonic()
    assert wait_all(free_addresses(3), [SIGNATURE] * 3, delays={late: 0.7}) == [None] * 3
    assert 0.7 <= time.monotonic() - started < 5


def test_workers_connect_over_ipv6():
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            pass
    except OSError:
        pytest.skip("this host has no IPv6")
    addresses = tuple(f"[::1]:{port(address)}" for address in free_addresses(2))
    assert wait_all(addresses, [SIGNATURE] * 2) == [None] * 2


def test_two_workers_name_the_differences_of_their_signatures():
    other = {**SIGNATURE, "seed": 7, "task": "imdb"}
    addresses = free_addresses(2)
    for late in (0, 1):
        errors = wait_all(addresses, [SIGNATURE, other], delays={late: 0.3})
        assert [type(error) for error in errors] == [UsageError] * 2
        here, there = map(str, errors)
        assert f"worker 1 ({addresses[1]})" in here
        assert "(seed: 0 here, 7 there; task: None here, imdb there)" in here
        assert f"worker 0 ({addresses[0]})" in there
        assert "(seed: 7 here, 0 there; task: imdb here, None there)" in there
        assert all_free(addresses)


def test_a_name_that_only_one_worker_has_is_a_difference():
    errors = wait_all(free_addresses(2), [SIGNATURE, {**SIGNATURE, "training.new": 3}])
    assert "(training.new: None here, 3 there)" in str(errors[0])
    assert "(training.new: 3 here, None there)" in str(errors[1])


def test_each_of_three_workers_learns_of_the_one_that_differs():
    errors = wait_all(free_addresses(3), [SIGNATURE, SIGNATURE, {**SIGNATURE, "seed": 7}], timeout=1.2, delays={1: 0.5})
    assert [type(error) for error in errors] == [UsageError] * 3
    assert "(seed: 0 here, 7 there)" in str(errors[0])
    assert "(seed: 0 here, 7 there)" in str(errors[1])
    assert "(seed: 7 here, 0 there)" in str(errors[2])


def test_signatures_are_compared_exactly():
    signature = {"rate": 0.1 + 0.2, "tiny": 5e-324, "name": "déjà vu\n", "none": None, "yes": True, "list": [1, "a"]}
    assert wait_all(free_addresses(2), [signature, dict(reversed(signature.items()))]) == [None] * 2


def test_a_missing_worker_is_named_with_its_address_in_time():
    addresses = free_addresses(3)
    started = time.monotonic()
    errors = wait_all(addresses, [SIGNATURE, SIGNATURE], timeout=1)
    assert 1 <= time.monotonic() - started < 3
    for error in errors:
        assert type(error) is UserError
        assert str(error) == (
            f"Every worker must be reached within 1 s. Received: no answer from worker 2 ({addresses[2]}). "
            "Start it, correct its address in TF_CONFIG or CLUSTER_SPEC, or raise --cluster_timeout."
        )
    assert all_free(addresses)


def test_all_missing_workers_are_named():
    addresses = free_addresses(3)
    error = wait(addresses, 1, timeout=0.2)
    assert f"no answer from worker 0 ({addresses[0]}), 2 ({addresses[2]})." in str(error)


def test_a_host_without_an_address_is_a_missing_worker():
    addresses = (*free_addresses(1), "no-such-host.invalid:2222")
    error = wait(addresses, 0, timeout=0.2)
    assert type(error) is UserError
    assert "no answer from worker 1 (no-such-host.invalid:2222)" in str(error)


def test_a_port_in_use_is_named_at_once():
    addresses = free_addresses(2)
    with socket.create_server(("127.0.0.1", port(addresses[0]))):
        error = wait(addresses, 0)
    assert type(error) is UserError
    assert f"{addresses[0]} (Address already in use)" in str(error)


# --- Other clients and servers ---------------------------------------------------------------------


def call(address: str, data: bytes) -> socket.socket:
    """A connection to a worker, as soon as it listens, over which `data` has been sent."""
    deadline = time.monotonic() + 3
    while True:
        try:
            connection = socket.create_connection(("127.0.0.1", port(address)), timeout=2)
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        else:
            connection.sendall(data)
            return connection


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\xff\xfe\n",
        b"\n",
        b"[1]\n",
        b'"hubtune"\n',
        b"null\n",
        b'{"hubtune": 1}\n',
        b'{"hubtune": "one", "job_signature": {}}\n',
        b'{"hubtune": 1, "job_signature": 7}\n',
        b"x" * 200_000,
        b'{"hubtune": Infinity, "job_signature": {}}\n',
        b"[" * 60_000 + b"\n",
    ],
    ids=lambda data: data[:20].decode(errors="replace").strip() or "newline",
)
def test_a_client_that_sends_something_else_is_ignored(data):
    addresses = free_addresses(2)
    with worker_threads() as start:
        chief = start(addresses, 0, timeout=2)
        with contextlib.suppress(ConnectionError), call(addresses[0], data):
            worker = start(addresses, 1, timeout=2)
            assert (chief.result(), worker.result()) == (None, None)
    assert all_free(addresses)


def test_an_http_client_gets_a_handshake_and_is_disconnected():
    addresses = free_addresses(2)
    with worker_threads() as start:
        chief = start(addresses, 0)
        with call(addresses[0], b"GET / HTTP/1.1\r\n\r\n") as connection, connection.makefile("rb") as file:
            handshake = json.loads(file.readline())
            assert file.read() == b""  # Closed.
        worker = start(addresses, 1)
        assert (chief.result(), worker.result()) == (None, None)
    assert handshake == {"hubtune": 0, "job_signature": SIGNATURE}


def test_silent_clients_delay_the_rendezvous_by_their_timeouts_at_most():
    addresses = free_addresses(2)
    with worker_threads() as start, contextlib.ExitStack() as stack:
        started = time.monotonic()
        chief = start(addresses, 0)
        for _ in range(2):
            stack.enter_context(call(addresses[0], b""))
        worker = start(addresses, 1)
        assert (chief.result(), worker.result()) == (None, None)
        assert time.monotonic() - started < 2 * rendezvous.REPLY_TIMEOUT_S + 1
    assert all_free(addresses)


def test_a_slow_client_does_not_delay_the_rendezvous():
    addresses = free_addresses(2)
    with worker_threads() as start:
        chief = start(addresses, 0, timeout=1)
        with contextlib.suppress(OSError), call(addresses[0], b"") as connection:
            worker = start(addresses, 1, timeout=1)
            for _ in range(12):
                connection.sendall(b"x")
                time.sleep(0.25)
                if chief.done() and worker.done():
                    break
        assert (chief.result(), worker.result()) == (None, None)


def test_a_worker_of_a_larger_job_causes_no_index_error():
    addresses = free_addresses(2)
    with worker_threads() as start:
        chief = start(addresses, 0, timeout=1)
        with call(addresses[0], b'{"hubtune": 7, "job_signature": {"seed": 1}}\n'):
            worker = start(addresses, 1, timeout=1)
            errors = (chief.result(), worker.result())
    assert not [error for error in errors if isinstance(error, LookupError)]


@contextlib.contextmanager
def server(address: str, data: bytes | None):
    """Another server on a worker's port, which sends `data`, or nothing, to every client and closes no connection."""
    connections = []
    with socket.create_server(("127.0.0.1", port(address))) as listener:

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    connections.append(connection)
                    if data is not None:
                        connection.sendall(data)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for connection in connections:
                connection.close()


HANDSHAKE_OF_THE_CHIEF = json.dumps({"hubtune": 0, "job_signature": {"seed": 1}}).encode() + b"\n"


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\n",
        None,
        HANDSHAKE_OF_THE_CHIEF,
    ],
    ids=["http", "grpc", "silence", "another-index"],
)
def test_a_server_that_is_no_worker_counts_as_a_missing_worker(data):
    addresses = free_addresses(2)
    with server(addresses[1], data):
        started = time.monotonic()
        error = wait(addresses, 0, timeout=0.5)
        assert time.monotonic() - started < 2.5
    assert type(error) is UserError
    assert f"no answer from worker 1 ({addresses[1]})" in str(error)


def test_a_worker_that_replaces_another_server_is_reached():
    addresses = free_addresses(2)
    with worker_threads() as start:
        with server(addresses[1], b"HTTP/1.1 400 Bad Request\r\n\r\n"):
            chief = start(addresses, 0)
            time.sleep(0.3)
        assert (start(addresses, 1).result(), chief.result()) == (None, None)


def test_the_timeout_holds_however_many_workers_are_silent():
    addresses = free_addresses(5)
    with contextlib.ExitStack() as stack:
        for address in addresses[1:]:
            stack.enter_context(server(address, None))
        started = time.monotonic()
        wait(addresses, 0, timeout=0.2)
        assert time.monotonic() - started < 2.2

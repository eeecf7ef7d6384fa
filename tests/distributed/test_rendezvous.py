"""The rendezvous, between threads on ports of this host."""

import concurrent.futures
import contextlib
import socket
import threading
import time

import pytest
from helpers import free_addresses

from trainer.distributed import handshakes, rendezvous
from trainer.distributed.cluster_config import Cluster
from trainer.distributed.handshakes import Report
from trainer.errors import UsageError, UserError

SIGNATURE = {"seed": 0, "data.batch_size": 32, "optimizer.learning_rate": 1e-4, "task": None, "the data set": "f00"}
OTHER_REPORT = Report({"seed": 1})  # With which a worker would be refused, if it counted.


@pytest.fixture(autouse=True)
def short_intervals(monkeypatch):
    """Shorter intervals: nothing but the duration of these tests depends on them."""
    monkeypatch.setattr(rendezvous, "POLL_INTERVAL_S", 0.05)
    monkeypatch.setattr(handshakes, "ACCEPT_TIMEOUT_S", 0.05)
    monkeypatch.setattr(handshakes, "REPLY_TIMEOUT_S", 0.7)


def port(address: str) -> int:
    return int(address.rpartition(":")[2])


def wait(addresses, index, signature=SIGNATURE, timeout=30.0, delay=0.0, problem="") -> Exception | None:
    """What the rendezvous raises on this worker, which starts after a delay."""
    time.sleep(delay)
    try:
        rendezvous.exchange_reports(Cluster(addresses, index), "job", Report(signature, problem), timeout)
    except Exception as error:
        return error
    return None


@contextlib.contextmanager
def worker_threads():
    """Yields a function that calls `wait` in a thread."""
    with concurrent.futures.ThreadPoolExecutor(8) as executor:
        yield lambda *arguments, **options: executor.submit(wait, *arguments, **options)


def wait_all(addresses, signatures, timeout=30.0, delays=None) -> list[Exception | None]:
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
    before = set(threading.enumerate())
    assert wait_all(addresses, [SIGNATURE] * workers) == [None] * workers
    assert all_free(addresses)
    assert set(threading.enumerate()) <= before  # Those of earlier tests may end meanwhile.


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


def test_a_worker_that_cannot_run_is_named_by_the_others():
    addresses = free_addresses(3)
    with worker_threads() as start:
        futures = [start(addresses, index, problem="--data_dir is gone" * (index == 1)) for index in range(3)]
        chief, own, other = (future.result() for future in futures)
    assert own is None  # It raises its own error.
    for error in (chief, other):
        assert type(error) is UserError
        assert f"Received: worker 1 ({addresses[1]}): --data_dir is gone." in str(error)
    assert all_free(addresses)


def test_all_workers_that_cannot_run_or_run_another_job_are_named():
    addresses = free_addresses(3)
    with worker_threads() as start:
        chief = start(addresses, 0)
        for index in (1, 2):
            start(addresses, index, {**SIGNATURE, "seed": index}, problem=f"no {index}")
    assert [problem.received for problem in chief.result().problems] == [
        f"worker {index} ({addresses[index]}): no {index}" for index in (1, 2)
    ]
    errors = wait_all(free_addresses(3), [SIGNATURE, {"seed": 1}, {"seed": 2}])
    assert [len(error.problems) for error in errors] == [2, 2, 2]


def test_a_worker_that_cannot_run_tells_nobody_for_longer_than_the_timeout():
    started = time.monotonic()
    assert wait(free_addresses(2), 0, timeout=0.2, problem="no data") is None
    assert time.monotonic() - started < 2


def test_two_stages_follow_each_other_without_a_pause():
    addresses = free_addresses(3)

    def meet(index):
        for stage in ("first", "second", "third"):
            report = Report(SIGNATURE, mark=f"{stage} {index}")
            reports = rendezvous.exchange_reports(Cluster(addresses, index), stage, report, 8)
            assert {i: r.mark for i, r in reports.items()} == {i: f"{stage} {i}" for i in range(3) if i != index}

    with concurrent.futures.ThreadPoolExecutor(3) as executor:
        list(executor.map(meet, range(3)))
    assert all_free(addresses)


# --- Other clients and servers ---------------------------------------------------------------------


def call(address: str, data: bytes) -> socket.socket:
    """A connection to a worker, as soon as it listens, over which `data` has been sent."""
    deadline = time.monotonic() + 30
    while True:
        try:
            connection = socket.create_connection(("127.0.0.1", port(address)), timeout=2)
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        else:
            connection.sendall(data)
            return connection


def test_silent_clients_delay_the_rendezvous_by_their_timeouts_at_most():
    addresses = free_addresses(2)
    with worker_threads() as start, contextlib.ExitStack() as stack:
        started = time.monotonic()
        chief = start(addresses, 0)
        for _ in range(2):
            stack.enter_context(call(addresses[0], b""))
        worker = start(addresses, 1)
        assert (chief.result(), worker.result()) == (None, None)
        assert time.monotonic() - started < 2 * handshakes.REPLY_TIMEOUT_S + 1
    assert all_free(addresses)


def test_a_slow_client_does_not_delay_the_rendezvous():
    addresses = free_addresses(2)
    with worker_threads() as start:
        chief = start(addresses, 0, timeout=8)
        with contextlib.suppress(OSError), call(addresses[0], b"") as connection:
            worker = start(addresses, 1, timeout=8)
            for _ in range(48):
                connection.sendall(b"x")
                time.sleep(0.25)
                if chief.done() and worker.done():
                    break
        assert (chief.result(), worker.result()) == (None, None)


def test_a_worker_of_a_larger_job_causes_no_index_error():
    addresses = free_addresses(2)
    with worker_threads() as start:
        chief = start(addresses, 0, timeout=1)
        with call(addresses[0], handshakes.build_handshake(7, "job", OTHER_REPORT)):
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


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\n",
        None,
        handshakes.build_handshake(0, "job", OTHER_REPORT),
        handshakes.build_handshake(1, "another", OTHER_REPORT),
    ],
    ids=["http", "grpc", "silence", "another-index", "another-stage"],
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

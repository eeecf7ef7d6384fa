"""The simulator with Google's client, in another process, and its faults."""

import json
import time

import pytest
from fakes import gcs, gcs_simulator

CLIENT = """
from google.cloud import storage
bucket = storage.Client(project="none").bucket("bucket")
"""


def run(simulator: gcs.Simulator, code: str) -> str:
    """What code prints that has the client's `bucket`, gs://bucket."""
    return simulator.python(CLIENT + code, seconds=120)


def test_what_is_written_is_read(simulator):
    code = """
bucket.blob("a/x y").upload_from_string(b"1" * 1_000_000)
bucket.blob("b/ü").upload_from_string(b"2" * 20_000_000)  # In parts.
assert bucket.blob("a/x y").download_as_bytes() == b"1" * 1_000_000
assert bucket.blob("b/ü").download_as_bytes(start=10, end=12) == b"222"
bucket.blob("c").rewrite(bucket.blob("a/x y"))
bucket.blob("c").patch()
bucket.blob("a/x y").delete()
bucket.blob("d").rewrite(bucket.blob("c"))
bucket.blob("e").compose([bucket.blob("c"), bucket.blob("d")])
print([(blob.name, blob.size) for blob in bucket.list_blobs()])
"""
    assert run(simulator, code) == "[('b/ü', 20000000), ('c', 1000000), ('d', 1000000), ('e', 2000000)]"


def test_preconditions_and_permissions(simulator):
    simulator.bucket("readonly", permissions=["storage.objects.get"])
    code = """
from google.api_core.exceptions import Forbidden, NotFound, PreconditionFailed
def fails(error, function, *arguments, **options):
    try:
        function(*arguments, **options)
    except error:
        return True
blob = bucket.blob("lock")
blob.upload_from_string(b"1", if_generation_match=0)
first = blob.generation
print(fails(PreconditionFailed, bucket.blob("lock").upload_from_string, b"2", if_generation_match=0))
blob.upload_from_string(b"3", if_generation_match=first)
print(blob.generation > first, fails(PreconditionFailed, blob.delete, if_generation_match=first))
blob.delete(if_generation_match=blob.generation)
print(bucket.test_iam_permissions(["storage.objects.get", "storage.objects.create"]))
other = bucket.client.bucket("readonly")
print(other.test_iam_permissions(["storage.objects.get", "storage.objects.create"]))
print(fails(Forbidden, other.blob("a").upload_from_string, b"1"), fails(NotFound, other.blob("a").reload))
print(fails(NotFound, bucket.client.get_bucket, "missing"))
"""
    assert run(simulator, code).splitlines() == [
        "True",
        "True True",
        "['storage.objects.get', 'storage.objects.create']",
        "['storage.objects.get']",
        "True True",
        "True",
    ]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"do": "status", "status": 429, "times": 2}, "abcdefgh"),
        ({"do": "reset", "times": 2}, "abcdefgh"),
        ({"do": "truncate"}, "abcdefgh"),
        ({"do": "slow", "seconds": 1}, "abcdefgh"),
        ({"do": "flip", "times": -1}, "DataCorruption"),
        ({"do": "status", "status": 403}, "Forbidden"),
        ({"do": "status", "status": 404}, "NotFound"),
    ],
)
def test_the_client_reacts_to_each_fault(simulator, fault, words):
    code = """
bucket.blob("a").upload_from_string(b"abcdefgh")
try:
    print(bucket.blob("a").download_as_bytes(checksum="crc32c").decode())
except Exception as error:
    print(type(error).__name__)
"""
    with simulator.faults({"match": "GET .*download.*/a", **fault}):
        assert run(simulator, code) == words
    assert any(str(fault.get("status", fault["do"])) in str(line["outcome"]) for line in simulator.log())


def test_lost_replies_and_removed_permissions(simulator):
    code = """
try:
    bucket.blob("b").upload_from_string(b"1", if_generation_match=0)
except Exception as error:
    print(type(error).__name__)
print(bucket.test_iam_permissions(["storage.objects.get", "storage.objects.create"]))
"""
    with simulator.faults(
        {"do": "lose reply", "match": "POST .*upload.*ifGenerationMatch=0"},
        {"do": "deny", "permission": "storage.objects.create", "match": "POST .*upload.*ifGenerationMatch=0"},
    ):
        out = run(simulator, code).splitlines()
    assert out == ["Forbidden", "['storage.objects.get']"]  # The retry after the lost reply.


def test_faults_are_a_function_of_their_seed():
    def actions(seed):
        fault = gcs_simulator.Fault(["status", "reset"], seed=seed, rate=0.1)
        return [fault.choose("GET host/path", reads=False) for _ in range(1000)]

    assert actions(1) == actions(1) != actions(2)
    assert 60 < sum(what is not None for what in actions(1)) < 140
    assert set(actions(1)) == {None, "status", "reset"}


def test_it_rejects_other_hosts_and_logs_no_token(simulator):
    code = """
import requests
try:
    requests.get("https://www.example.com", timeout=5)
except requests.exceptions.ProxyError:
    print("rejected")
list(bucket.client.list_blobs(bucket))
"""
    assert run(simulator, code) == "rejected"
    assert "of-the-simulator" not in json.dumps(simulator.log())
    assert {key for line in simulator.log() for key in line} == {"seconds", "request", "range", "agent", "outcome"}


def test_it_ends_when_its_input_is_closed(tmp_path):
    started = time.monotonic()
    with gcs.running(tmp_path):
        assert (tmp_path / "ca.pem").exists()
    assert time.monotonic() - started < 20


def test_faults_can_be_read_from_a_file(tmp_path):
    (tmp_path / "faults.json").write_text('[{"do": "status", "status": 500, "match": "/o/a", "times": -1}]')
    with gcs.running(tmp_path, tmp_path / "faults.json") as simulator:
        simulator.bucket("bucket")
        code = """
from google.cloud import storage
try:
    storage.Client().bucket("bucket").blob("a").reload(retry=None)
except Exception as error:
    print(type(error).__name__)
"""
        assert simulator.python(code) == "InternalServerError"

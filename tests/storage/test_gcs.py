"""Paths in a bucket: each fault that storage may have, and what becomes of it. Every client is the real one.

The code under test runs in another process, which has the credentials and the certificates of the simulator.
"""

import json
import re

import pytest

from trainer.storage import bucket_errors, gcs


def test_every_function_of_the_filesystem_layer_works_on_a_bucket(simulator):
    code = """
fs.write_text(f"{folder}/a", "Größe")
fs.write_bytes(f"{folder}/x/y/b", b"1" * 9_000_000)
print(fs.read_text(f"{folder}/a"), fs.size(f"{folder}/x/y/b"), len(fs.read_bytes(f"{folder}/x/y/b")))
print(fs.list_names(folder), fs.list_names(f"{folder}/"), fs.list_names("gs://bucket"))
print([(fs.exists(f"{folder}{n}"), fs.is_folder(f"{folder}{n}")) for n in ("/a", "/x", "/x/", "/no", "")])
fs.make_folder(f"{folder}/made")
fs.copy_folder(folder, "gs://bucket/copy")
fs.replace_folder("gs://bucket/copy", f"{folder}/x")
print(sorted(gcs.list_files("gs://bucket")))
fs.remove(f"{folder}/x")
fs.remove(f"{folder}/no")
print(sorted(gcs.list_files("gs://bucket")))
local = fs.local_copy(folder)
fs.copy_folder(local, "gs://bucket/back")
print(open(f"{local}/a").read(), fs.read_text("gs://bucket/back/a"), fs.local_copy(local) == local)
with fs.new_file(f"{folder}/new") as path:
    open(path, "w").write("Größe")
    print(fs.exists(f"{folder}/new"))
print(fs.read_text(f"{folder}/new"))
with fs.complete_folder(f"{folder}/complete") as partial:
    fs.write_text(f"{partial}/c", "c")
    print(fs.exists(f"{folder}/complete"))
print(fs.list_names(f"{folder}/complete"))
"""
    assert simulator.storage_python(code)[0].splitlines() == [
        "Größe 9000000 9000000",
        "['a', 'x'] ['a', 'x'] ['run']",
        "[(True, False), (True, True), (True, True), (False, False), (True, True)]",
        "['run/a', 'run/x/a', 'run/x/x/y/b']",
        "['run/a']",
        "Größe Größe True",
        "False",
        "Größe",
        "False",
        "['c']",
    ]


def test_an_object_whose_name_leads_out_is_not_copied(simulator, tmp_path):
    code = """
for name in ("../../out", f"{sys.argv[1]}/out"):
    gcs.write(f"{folder}/a", b"fine")
    gcs.write(f"{folder}/{name}", b"bad")
    for copied in (fs.local_copy, lambda path: fs.copy_folder(path, sys.argv[1] + "/deep/er/here")):
        try:
            print("copied", copied(folder))
        except ValueError as error:
            print(error)
    fs.remove(folder)
"""
    lines = simulator.storage_python(code, str(tmp_path))[0].splitlines()
    assert len(lines) == 4
    for line, name in zip(lines, ["../../out"] * 2 + [f"{tmp_path}/out"] * 2, strict=True):
        assert f"must stay in that folder. Received: {name!r}. It was not followed." in line
    assert not list(tmp_path.glob("**/out"))


# (a fault, the outcome of reading an object of eight letters)
READING = [
    *(({"do": "status", "status": code, "times": 2}, "complete") for code in (408, 429, 500, 503)),
    ({"do": "reset", "times": 2}, "complete"),
    ({"do": "truncate"}, "complete"),
    ({"do": "flip"}, "complete"),
    ({"do": "short", "bytes": 3}, "complete"),
    ({"do": "slow", "seconds": 0.5}, "complete"),
    ({"do": "hang", "seconds": 3}, "complete"),
    (
        {"do": "status", "status": 503, "times": -1},
        "must be reachable for reading. Received: 503, injected.",
    ),
    ({"do": "reset", "times": -1}, "must be reachable for reading. Received: ProxyError"),
    ({"do": "truncate", "times": -1}, "must be reachable for reading. Received: "),
    ({"do": "flip", "times": -1}, "must be reachable for reading. Received: DataCorruption"),
    ({"do": "short", "bytes": 0, "times": -1}, "must be reachable for reading. Received: ConnectionError"),
    ({"do": "hang", "seconds": 20, "times": -1}, "must be reachable for reading. Received: "),
    (
        {"do": "status", "status": 401, "times": -1},
        "must be used with Google credentials that the service accepts. Received: 401, injected.",
    ),
    ({"do": "status", "status": 403, "times": -1}, "gs://bucket/a must allow reading. Received: 403"),
    ({"do": "status", "status": 404, "times": -1}, "gs://bucket/a does not exist"),
]
READ = """
import concurrent.futures, json
def read(number):
    started = time.monotonic()
    try:
        outcome = "complete" if fs.read_bytes(f"gs://bucket/{number}") == b"abcdefgh" else "truncated or changed"
    except OSError as error:
        outcome = str(error)
    return outcome, time.monotonic() - started
numbers = range(int(sys.argv[1]))
with concurrent.futures.ThreadPoolExecutor(len(numbers)) as threads:
    print(json.dumps(list(threads.map(read, numbers))))
"""


@pytest.fixture(scope="module")
def readings(simulator_process):
    """(outcome, seconds, whether the fault occurred) of each row, all at once, since giving up takes long."""
    simulator_process.control("wipe", {})
    simulator_process.bucket("bucket")
    count = str(len(READING))
    simulator_process.storage_python(
        'for n in range(int(sys.argv[1])): fs.write_text(f"gs://bucket/{n}", "abcdefgh")', count
    )
    match = "GET .*storage.googleapis.com/download/.*/o/{}[?]"
    with simulator_process.faults(*({"match": match.format(n), **fault} for n, (fault, _) in enumerate(READING))):
        out, _ = simulator_process.storage_python(READ, count)
    log = simulator_process.log()
    occurred = [
        any(
            re.search(match.format(n), line["request"])
            and str(fault.get("status", fault["do"])) in str(line["outcome"])
            for line in log
        )
        for n, (fault, _) in enumerate(READING)
    ]
    return [(*row, hit) for row, hit in zip(json.loads(out), occurred, strict=True)]


@pytest.mark.parametrize("row", range(len(READING)), ids=[" ".join(map(str, fault.values())) for fault, _ in READING])
def test_reading_under_each_fault(readings, row):
    outcome, seconds, occurred = readings[row]
    words = READING[row][1]
    assert words.replace("gs://bucket/a", f"gs://bucket/{row}") in outcome
    assert seconds < 60
    assert occurred


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"do": "status", "status": 503, "times": 2}, "written"),
        ({"do": "lose reply"}, "written"),
        ({"do": "hang", "seconds": 3}, "written"),
        ({"do": "status", "status": 503, "times": -1}, "gs://bucket/w must be reachable for writing"),
        ({"do": "deny", "permission": "storage.objects.create"}, "gs://bucket/w must allow writing. Received: 403"),
    ],
)
def test_writing_under_each_fault(simulator, fault, words):
    code = """
try:
    fs.write_text("gs://bucket/w", "complete")
    print("written", fs.read_text("gs://bucket/w"))
except OSError as error:
    print(error)
"""
    with simulator.faults({"match": "POST .*upload", **fault}):
        out, seconds = simulator.storage_python(code)
    assert words in out
    assert seconds < 60


@pytest.mark.parametrize("status", [404, 410])
def test_a_large_upload_whose_session_was_forgotten_begins_again(simulator, tmp_path, status):
    code = """
open(sys.argv[1], "wb").write(b"1" * 9_000_000)
fs.copy_file(sys.argv[1], f"{folder}/file")
fs.write_bytes(f"{folder}/bytes", b"1" * 9_000_000)
print(fs.size(f"{folder}/file"), fs.size(f"{folder}/bytes"))
"""
    fault = {"do": "status", "status": status, "match": "PUT .*upload"}
    with simulator.faults(fault, {**fault, "after": 1}):
        assert simulator.storage_python(code, str(tmp_path / "file"))[0] == "9000000 9000000"
    assert [line["outcome"] for line in simulator.log()].count(status) == 2


@pytest.mark.parametrize(("fault", "times"), [("flip", 0), ("flip", 2), ("truncate", 2)])
def test_bytes_that_come_without_a_checksum_are_compared_all_the_same(simulator, fault, times):
    bucket = simulator.bucket("plain", sends_hashes=False)
    code = 'fs.write_text(sys.argv[1], "complete")\nprint(fs.read_text(sys.argv[1]))'
    with simulator.faults({"do": fault, "match": "download", "times": times}):
        assert simulator.storage_python(code, f"{bucket}/a")[0] == "complete"
    corrupted = [line for line in simulator.log() if fault in str(line["outcome"])]
    assert len(corrupted) == times


def test_a_missing_object_is_missing_though_the_reply_is_cut_off(simulator):
    code = """
try:
    fs.read_text("gs://bucket/none")
except FileNotFoundError as error:
    print(error)
"""
    with simulator.faults({"do": "truncate", "match": "download", "times": 2}):
        assert simulator.storage_python(code)[0] == "gs://bucket/none does not exist (reading)."


def test_a_missing_bucket_is_no_missing_folder_in_another_server_s_words(simulator):
    code = """
for function in (fs.exists, fs.is_folder, fs.list_names, fs.remove):
    try:
        print(function(folder))
    except OSError as error:
        print(error)
"""
    fault = {"do": "status", "status": 404, "message": "Not Found", "match": "GET .*/o[?]", "times": -1}
    with simulator.faults(fault):
        out, _ = simulator.storage_python(code)
    assert out.count("must be in a bucket that exists. Received: no bucket gs://bucket.") == 4, out


@pytest.mark.parametrize("status", [403, 503])
def test_a_failure_does_not_count_as_missing(simulator, status):
    code = """
import concurrent.futures
from trainer.train import checkpoints
def outcome(function):
    try:
        return function(f"{folder}/x")
    except OSError as error:
        return type(error).__name__
functions = (fs.exists, fs.is_folder, fs.list_names, fs.size, checkpoints.list_checkpoints, fs.remove)
with concurrent.futures.ThreadPoolExecutor(len(functions)) as executor:  # Each needs the setting's time to fail.
    print(*executor.map(outcome, functions))
"""
    with simulator.faults({"do": "status", "status": status, "match": "/o", "times": -1}):
        out, _ = simulator.storage_python(code)
    assert out.split() == ["BucketError"] * 6


def test_a_missing_bucket_is_named_whatever_is_asked_of_it(simulator):
    code = """
from trainer.train import checkpoints
from trainer.train import metrics_log
folder = "gs://missing/run"
series = checkpoints.CheckpointSeries(tf.train.Checkpoint(v=tf.Variable(1.0)), folder, 2)
events = metrics_log.open_event_log(folder)
events.add({"step": 1, "split": "train", "loss": 1.0})
for function in (
    lambda: checkpoints.save_checkpoint(series, 1),
    lambda: checkpoints.restore_newest(series),
    events.publish,
    lambda: fs.copy_folder(fs.local_copy("gs://bucket/full"), folder),
):
    try:
        print(function())
    except OSError as error:
        print(error)
"""
    simulator.storage_python('fs.write_text("gs://bucket/full/a", "a")')
    out, seconds = simulator.storage_python(code)
    assert out.count("must be in a bucket that exists. Received: no bucket gs://missing.") == 4, out
    assert seconds < 20


# --- A folder that is copied or replaced ---------------------------------------------------------------


def test_a_folder_is_written_last_file_last_and_removed_first(simulator):
    code = """
for name in ("saved_model.pb", "variables/a", "fingerprint.pb", "assets/b"):
    fs.write_text(f"gs://bucket/new/{name}", name)
    fs.write_text(f"gs://bucket/old/{name}", name)
fs.replace_folder("gs://bucket/new", "gs://bucket/old")
print(sorted(gcs.list_files("gs://bucket")))
"""
    assert "new" not in simulator.storage_python(code)[0]
    done = [line["request"] for line in simulator.log() if line["outcome"] in (200, 204)]
    deleted = [line for line in done if line.startswith("DELETE") and "/o/old%2F" in line]
    copied = [line for line in done if "/rewriteTo/" in line]
    assert "saved_model.pb" in deleted[0]
    assert "saved_model.pb" in copied[-1]
    assert (len(deleted), len(copied)) == (4, 4)
    assert done.index(deleted[-1]) < done.index(copied[0])


def test_an_interrupted_copy_is_no_export(simulator):
    code = """
from trainer.export import predict
for name in ("saved_model.pb", "variables/a", "assets/b"):
    fs.write_text(f"gs://bucket/new/{name}", name)
try:
    fs.copy_folder("gs://bucket/new", "gs://bucket/export")
except OSError as error:
    print(error)
try:
    predict.load_export("gs://bucket/export")
except ValueError as error:
    print(error)
"""
    with simulator.faults({"do": "deny", "permission": "storage.objects.create", "match": "rewriteTo", "after": 2}):
        out = simulator.storage_python(code)[0].splitlines()
    assert "Received: 403" in out[0]
    assert "Received: gs://bucket/export, which has no saved_model.pb." in out[1]


def test_a_bucket_may_be_named_bucket_and_be_used_at_its_root(simulator):
    code = """
with fs.exclusive_lock("gs://bucket"):
    fs.write_text("gs://bucket/bucket does not exist", "it does")
    print(fs.list_names("gs://bucket"))
try:
    fs.read_text("gs://bucket/The specified bucket does not exist")
except FileNotFoundError:
    print("no such object")
"""
    assert simulator.storage_python(code)[0].splitlines() == [
        "['.lock', 'bucket does not exist']",
        "no such object",
    ]


def test_a_path_is_split_into_bucket_and_name():
    assert gcs.split_path("gs://a/b/c/") == ("a", "b/c")
    assert gcs.split_path("gs://a") == ("a", "")
    with pytest.raises(bucket_errors.BucketError, match="gs://BUCKET/NAME"):
        gcs.split_path("gs://")

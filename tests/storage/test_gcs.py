"""Paths in a bucket: each fault and each trap that gs:// has, and what a user is told. Every client is the real one.

The code under test runs in a process of its own, as TensorFlow reads its settings once. STORAGE_RETRY_SECONDS is small,
so that giving up takes seconds; test_retries times it.
"""

import json
import re
import time

import pytest

from trainer.storage import gcs, lease, retries

RETRY = "4"


def python(simulator, code, *arguments, seconds=60, setting=RETRY, **changes):
    """(what the code prints, the seconds it took), with storage, buckets and tf at hand."""
    begin = "import sys, time\nfrom trainer.storage import gcs; from trainer.storage import fs\nfolder = 'gs://bucket/run'\n"
    begin += "import tensorflow as tf\n" if "tf." in code else ""  # takes 3 s
    began = time.monotonic()
    out = simulator.python(begin + code, *arguments, seconds=seconds, STORAGE_RETRY_SECONDS=setting, **changes)
    return out, time.monotonic() - began


def test_every_function_of_the_door_works_on_a_bucket(simulator):
    code = """
fs.write_text(f"{folder}/a", "Größe")
fs.write_bytes(f"{folder}/x/y/b", b"1" * 9_000_000)
print(fs.read_text(f"{folder}/a"), fs.size(f"{folder}/x/y/b"), len(fs.read_bytes(f"{folder}/x/y/b")))
print(fs.list_names(folder), fs.list_names(f"{folder}/"), fs.list_names("gs://bucket"))
print([(fs.exists(f"{folder}{n}"), fs.is_folder(f"{folder}{n}")) for n in ("/a", "/x", "/x/", "/no", "")])
fs.make_folder(f"{folder}/made")
fs.copy_folder(folder, "gs://bucket/copy")
fs.replace_folder("gs://bucket/copy", f"{folder}/x")
print(gcs.list_files("gs://bucket"))
fs.remove(f"{folder}/x")
fs.remove(f"{folder}/no")
print(gcs.list_files("gs://bucket"))
here = fs.local_copy(folder)
fs.copy_folder(here, "gs://bucket/back")
print(open(f"{here}/a").read(), fs.read_text("gs://bucket/back/a"), fs.local_copy(here) == here)
"""
    assert python(simulator, code)[0].splitlines() == [
        "Größe 9000000 9000000",
        "['a', 'x'] ['a', 'x'] ['run']",
        "[(True, False), (True, True), (True, True), (False, False), (True, True)]",
        "['run/a', 'run/x/a', 'run/x/x/y/b']",
        "['run/a']",
        "Größe Größe True",
    ]


def test_an_object_whose_name_leaves_its_folder_is_not_copied(simulator, tmp_path):
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
    said = python(simulator, code, str(tmp_path))[0].splitlines()
    assert len(said) == 4
    for line, name in zip(said, ["../../out"] * 2 + [f"{tmp_path}/out"] * 2, strict=True):
        assert f"must stay in that folder. Received: {name!r}. It was not followed." in line
    assert not list(tmp_path.glob("**/out"))


def test_what_tensorflow_wrote_is_seen_and_what_storage_wrote_is_read(simulator):
    code = """
tf.saved_model.save(tf.Module(), folder)
print(sorted(fs.list_names(folder)), fs.exists(f"{folder}/saved_model.pb"))
fs.write_text(f"{folder}/s", "aaaa")
print(tf.io.gfile.GFile(f"{folder}/s").read())
gcs.write(f"{folder}/s", b"longer than that")  # a stale size would cut it
print(tf.io.gfile.GFile(f"{folder}/s").read())
"""
    out = python(simulator, code)[0].splitlines()
    assert "'saved_model.pb'" in out[0]
    assert out[0].endswith("True")
    assert out[1:] == ["aaaa", "longer than that"]


# (fault, what comes of reading an object of eight letters through it)
READING = [
    *(({"do": "status", "status": code, "times": 2}, "whole") for code in (408, 429, 500, 503)),
    ({"do": "reset", "times": 2}, "whole"),
    ({"do": "truncate"}, "whole"),
    ({"do": "flip"}, "whole"),  # plain gfile gives it as it came
    ({"do": "short", "bytes": 3}, "whole"),  # and this, cut
    ({"do": "slow", "seconds": 0.5}, "whole"),
    ({"do": "hang", "seconds": 3}, "whole"),
    (
        {"do": "status", "status": 503, "times": -1},
        "could not be reached for reading. Received: status 503.",
    ),
    ({"do": "reset", "times": -1}, "could not be reached for reading. Received: ProxyError"),
    ({"do": "truncate", "times": -1}, "could not be reached for reading. Received: "),
    ({"do": "flip", "times": -1}, "could not be reached for reading. Received: DataCorruption"),
    ({"do": "short", "bytes": 0, "times": -1}, "could not be reached for reading. Received: ConnectionError"),
    ({"do": "hang", "seconds": 20, "times": -1}, "could not be reached for reading. Received: "),
    ({"do": "status", "status": 401, "times": -1}, "needs credentials that are accepted. Received: 401."),
    ({"do": "status", "status": 403, "times": -1}, "gs://bucket/a must allow reading. Received: 403"),
    ({"do": "status", "status": 404, "times": -1}, "gs://bucket/a is not there"),
]
READ = """
import concurrent.futures, json
def read(number):
    began = time.monotonic()
    try:
        said = "whole" if fs.read_bytes(f"gs://bucket/{number}") == b"abcdefgh" else "cut or changed"
    except OSError as error:
        said = str(error)
    return said, time.monotonic() - began
numbers = range(int(sys.argv[1]))
with concurrent.futures.ThreadPoolExecutor(len(numbers)) as threads:
    print(json.dumps(list(threads.map(read, numbers))))
"""


@pytest.fixture(scope="module")
def readings(simulator_process):
    """Of each row what reading came to, its seconds, and whether it met its fault; at once, as giving up takes long."""
    simulator_process.control("wipe", {})
    simulator_process.bucket("bucket")
    count = str(len(READING))
    python(simulator_process, 'for n in range(int(sys.argv[1])): fs.write_text(f"gs://bucket/{n}", "abcdefgh")', count)
    match = "GET .*storage.googleapis.com/download/.*/o/{}[?]"
    with simulator_process.faults(*({"match": match.format(n), **fault} for n, (fault, _) in enumerate(READING))):
        out, _ = python(simulator_process, READ, count)
    log = simulator_process.log()
    met = [
        any(
            re.search(match.format(n), line["request"])
            and str(fault.get("status", fault["do"])) in str(line["outcome"])
            for line in log
        )
        for n, (fault, _) in enumerate(READING)
    ]
    return [(*row, hit) for row, hit in zip(json.loads(out), met, strict=True)]


@pytest.mark.parametrize("row", range(len(READING)), ids=[" ".join(map(str, fault.values())) for fault, _ in READING])
def test_reading_meets_each_fault(readings, row):
    said, took, met = readings[row]
    words = READING[row][1]
    assert words.replace("gs://bucket/a", f"gs://bucket/{row}") in said
    assert took < 60
    assert met


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"do": "status", "status": 503, "times": 2}, "written"),
        ({"do": "lose reply"}, "written"),
        ({"do": "hang", "seconds": 3}, "written"),
        ({"do": "status", "status": 503, "times": -1}, "gs://bucket/w could not be reached for writing"),
        ({"do": "deny", "permission": "storage.objects.create"}, "gs://bucket/w must allow writing. Received: 403"),
    ],
)
def test_writing_meets_each_fault(simulator, fault, words):
    code = """
try:
    fs.write_text("gs://bucket/w", "whole")
    print("written", fs.read_text("gs://bucket/w"))
except OSError as error:
    print(error)
"""
    with simulator.faults({"match": "POST .*upload", **fault}):
        out, took = python(simulator, code)
    assert words in out
    assert took < 60


@pytest.mark.parametrize("status", [403, 503])
def test_a_failure_is_not_taken_for_not_there(simulator, status):
    code = """
import concurrent.futures
from trainer.train import checkpoints
def answer(ask):
    try:
        return ask(f"{folder}/x")
    except OSError as error:
        return type(error).__name__
asked = (fs.exists, fs.is_folder, fs.list_names, fs.size, checkpoints.list_checkpoints, fs.remove)
with concurrent.futures.ThreadPoolExecutor(len(asked)) as at_once:  # each takes the setting's time to give up
    print(*at_once.map(answer, asked))
"""
    with simulator.faults({"do": "status", "status": status, "match": "/o", "times": -1}):
        out, _ = python(simulator, code)
    assert out.split() == ["BucketError"] * 6


def test_a_missing_bucket_is_named_wherever_tensorflow_would_try_for_ever(simulator):
    code = """
from trainer.train import checkpoints
from trainer.train import metrics_log
folder = "gs://missing/run"
series = checkpoints.CheckpointSeries(tf.train.Checkpoint(v=tf.Variable(1.0)), folder, 2)
events = metrics_log.open_event_log(folder)
events.add({"step": 1, "split": "train", "loss": 1.0})
for ask in (
    lambda: fs.make_folder(folder),
    lambda: checkpoints.save_checkpoint(series, 1),
    lambda: checkpoints.restore_newest(series),
    events.publish,
    lambda: fs.copy_folder(fs.local_copy("gs://bucket/full"), folder),
):
    try:
        print(ask())
    except OSError as error:
        print(error)
"""
    python(simulator, 'fs.write_text("gs://bucket/full/a", "a")')
    out, took = python(simulator, code)
    assert out.count("must exist. Received: gs://missing, which does not.") == 5, out
    assert took < 20


# --- A folder that is copied or replaced ---------------------------------------------------------------


def test_a_folder_is_whole_only_when_its_last_file_is_there(simulator):
    code = """
for name in ("saved_model.pb", "variables/a", "fingerprint.pb", "assets/b"):
    fs.write_text(f"gs://bucket/new/{name}", name)
    fs.write_text(f"gs://bucket/old/{name}", name)
fs.replace_folder("gs://bucket/new", "gs://bucket/old")
print(gcs.list_files("gs://bucket"))
"""
    assert "new" not in python(simulator, code)[0]
    done = [line["request"] for line in simulator.log() if line["outcome"] in (200, 204)]
    deleted = [line for line in done if line.startswith("DELETE") and "/o/old%2F" in line]
    copied = [line for line in done if "/rewriteTo/" in line]
    assert "saved_model.pb" in deleted[0]
    assert "saved_model.pb" in copied[-1]
    assert (len(deleted), len(copied)) == (4, 4)
    assert done.index(deleted[-1]) < done.index(copied[0])


def test_a_copy_cut_half_way_is_no_export(simulator):
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
        out = python(simulator, code)[0].splitlines()
    assert "Received: 403" in out[0]
    assert "Received: gs://bucket/export, which has no saved_model.pb." in out[1]


def test_paths_are_split_and_a_lease_outlasts_what_is_retried():
    assert gcs.split_path("gs://a/b/c/") == ("a", "b/c")
    assert gcs.split_path("gs://a") == ("a", "")
    with pytest.raises(ValueError, match="Received: 'gs://'"):
        gcs.split_path("gs://")
    assert lease.lease_seconds() * 2 / 3 > retries.retry_seconds()
    assert json.loads(lease._describe_holder({"host": "h", "token": "secret"})) == {"host": "h"}

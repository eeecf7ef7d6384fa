"""Checkpoints and shards in a bucket: no fault of the transport drops, truncates or skips one."""

import pytest

SERIES = """
from trainer.train import checkpoints
value = tf.Variable([0.0] * 1000)
series = checkpoints.CheckpointSeries(tf.train.Checkpoint(v=value), folder, 3)
def save(*steps):
    for step in steps:
        value.assign([float(step)] * 1000)
        checkpoints.save_checkpoint(series, step)
def restore():
    try:
        return checkpoints.restore_newest(series), float(value[0])
    except (OSError, ValueError) as error:
        return str(error)
"""


@pytest.mark.parametrize("what", ["flip", "short", "truncate", "reset", "status"])
def test_the_newest_checkpoint_is_restored_despite_faults(simulator, what):
    simulator.storage_python(f"{SERIES}save(1, 2)")
    with simulator.faults({"do": what, "match": "GET .*download", "times": 2}):
        out, _ = simulator.storage_python(f"{SERIES}print(restore(), checkpoints.list_steps(folder))")
    assert out == "(2, 2.0) [1, 2]"
    assert len([line for line in simulator.log() if str({"status": 503}.get(what, what)) in str(line["outcome"])]) == 2


@pytest.mark.parametrize("fault", [{"do": "status", "status": 503}, {"do": "status", "status": 403}, {"do": "flip"}])
def test_unreachable_checkpoints_are_an_error_and_are_kept(simulator, fault):
    simulator.storage_python(f"{SERIES}save(1, 2)")
    with simulator.faults({**fault, "match": "GET .*download", "times": -1}):
        out, seconds = simulator.storage_python(f"{SERIES}print(restore())")
    assert out.startswith("gs://bucket/run/checkpoint ")
    assert seconds < 60
    assert simulator.storage_python(f"{SERIES}print(restore(), checkpoints.list_steps(folder))")[0] == "(2, 2.0) [1, 2]"


def test_a_stored_corrupt_checkpoint_gives_way_to_the_one_before(simulator):
    corrupt = """
name = next(name for name in fs.list_names(folder) if name.startswith("ckpt-2.data"))
data = bytearray(fs.read_bytes(f"{folder}/{name}"))
data[100] ^= 255
fs.write_bytes(f"{folder}/{name}", bytes(data))
import io, logging
warnings = io.StringIO()
logging.getLogger("trainer").addHandler(logging.StreamHandler(warnings))
print(restore(), checkpoints.list_steps(folder))
print(warnings.getvalue())
"""
    out = simulator.storage_python(f"{SERIES}save(1, 2)\n{corrupt}")[0].splitlines()
    assert out[0] == "(1, 1.0) [1]"
    assert "gs://bucket/run/ckpt-2 (" in out[1]


def test_saves_survive_faults_and_the_newest_are_kept(simulator):
    faults = {"do": ["status", "reset", "lose reply"], "seed": 3, "rate": 0.1}
    with simulator.faults(faults):
        simulator.storage_python(f"{SERIES}save(1, 2, 3, 4)", seconds=100)
    out, _ = simulator.storage_python(f"{SERIES}print(restore(), checkpoints.list_steps(folder))")
    assert out == "(4, 4.0) [2, 3, 4]"


@pytest.mark.parametrize("match", ["POST .*upload.*", "POST .*rewrite|POST .*upload.*uploadType=multipart"])
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"do": "deny", "permission": "storage.objects.create"}, "must allow writing. Received: 403, The caller does"),
        ({"do": "status", "times": -1}, "must be reachable for writing. Received: 503, injected."),
    ],
)
def test_a_failed_save_is_an_error_and_keeps_the_one_before(simulator, fault, words, match):
    simulator.storage_python(f"{SERIES}save(1)")
    code = """
try:
    save(2)
except OSError as error:
    print(error)
import os
print(os.listdir(series.local_folder))
"""
    with simulator.faults({**fault, "match": match}):
        failed, left = simulator.storage_python(SERIES + code)[0].splitlines()
    assert failed.startswith("gs://bucket/run/ckpt-2.")
    assert words in failed
    assert left == "[]"
    assert simulator.storage_python(f"{SERIES}print(restore(), checkpoints.list_steps(folder))")[0] == "(1, 1.0) [1]"


def test_local_copies_of_checkpoints_are_removed(simulator):
    code = """
import os
save(1, 2)
print(restore(), os.listdir(series.local_folder), sorted(fs.list_names(folder)))
"""
    assert simulator.storage_python(SERIES + code)[0] == (
        "(2, 2.0) [] ['checkpoint', 'ckpt-1.data-00000-of-00001', 'ckpt-1.index', "
        "'ckpt-2.data-00000-of-00001', 'ckpt-2.index']"
    )


def test_a_checkpoint_is_uploaded_beside_the_training(simulator):
    code = """
series.background = True
for step in (1, 2, 3):
    value.assign([float(step)] * 1000)
    started = time.monotonic()
    checkpoints.save_checkpoint(series, step, wait=False)
    waited = time.monotonic() - started
    value.assign([-1.0] * 1000)
    print(waited < 0.4, checkpoints.is_saved(series, step), time.monotonic() - started > 0.5)
print(restore())
"""
    with simulator.faults({"do": "slow", "seconds": 0.5, "match": "POST .*upload", "times": -1}):
        out = simulator.storage_python(SERIES + code)[0].splitlines()
    assert out[1:] == ["True True True", "True True True", "(3, 3.0)"]  # TensorFlow makes its copies in the first save.


def test_a_save_survives_a_cleaner_of_temporary_files(simulator):
    code = "import shutil\nsave(1)\nshutil.rmtree(series.local_folder)\nsave(2)\nprint(restore())"
    assert simulator.storage_python(SERIES + code)[0] == "(2, 2.0)"


def test_too_little_scratch_space_is_named_before_training(simulator):
    code = """
try:
    checkpoints.check_scratch_space(series, 10**18)
except ValueError as error:
    print(error)
checkpoints.check_scratch_space(series, 1000)
checkpoints.check_scratch_space(checkpoints.CheckpointSeries(series.checkpoint, sys.argv[1], 3), 10**18)
"""
    out = simulator.storage_python(SERIES + code, "/tmp")[0]
    assert out.startswith(
        "The folder of temporary files must have 1,000,000,000,000 MB for checkpoints on their way to"
    )
    assert out.endswith("Set TMPDIR to another folder.")


def test_events_are_uploaded_on_publish_only(simulator):
    code = """
from trainer.train import metrics_log
events = metrics_log.open_event_log(folder)
for step in range(1, 7):
    events.add({"step": step, "split": "train", "loss": step / 2})
    if step % 3 == 0:
        events.publish()
(name,) = fs.list_names(f"{folder}/train")
path = fs.local_copy(f"{folder}/train/{name}")
read = [event.step for event in tf.compat.v1.train.summary_iterator(path) if event.summary.value]
print(read)
"""
    assert simulator.storage_python(code)[0] == "[1, 2, 3, 4, 5, 6]"
    assert len([line for line in simulator.log() if "tfevents" in line.get("wrote", "")]) == 2


SHARD = """
from trainer.data import manifests
from trainer.data import records
with tf.io.TFRecordWriter(sys.argv[1]) as writer:
    for number in range(100):
        writer.write(b"%03d" % number)
data = open(sys.argv[1], "rb").read()
shard = manifests.Shard("a.tfrecord", 100, len(data), fs.crc32c(data))
def read():
    try:
        return len(list(records.split_records(records.read_shard("gs://bucket", shard))))
    except (OSError, ValueError) as error:
        return str(error)
"""


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"do": "flip"}, "100"),
        ({"do": "short", "bytes": 19 * 50}, "100"),  # at a record's edge: TensorFlow's reader gives 50, and no error
        ({"do": "short", "bytes": 19 * 50, "times": -1}, "100"),  # Google's client asks for the rest
        ({"do": "truncate"}, "100"),
    ],
)
def test_every_record_is_read_despite_faults(simulator, tmp_path, fault, words):
    code = 'fs.write_bytes("gs://bucket/a.tfrecord", data)\nprint(read())'
    with simulator.faults({"match": "GET .*download.*a.tfrecord", **fault}):
        out, _ = simulator.storage_python(SHARD + code, str(tmp_path / "a"))
    assert words in out


def test_a_stored_truncated_shard_is_named(simulator, tmp_path):
    code = 'fs.write_bytes("gs://bucket/a.tfrecord", data[: 19 * 50])\nprint(read())'
    out, _ = simulator.storage_python(SHARD + code, str(tmp_path / "a"))
    assert out.startswith("gs://bucket/a.tfrecord must have")

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
    with simulator.faults({"do": what, "match": "GET .*(download|/bucket/run)", "times": 2}):
        out, _ = simulator.storage_python(f"{SERIES}print(restore(), checkpoints.list_steps(folder))")
    assert out == "(2, 2.0) [1, 2]"
    assert len([line for line in simulator.log() if str({"status": 503}.get(what, what)) in str(line["outcome"])]) == 2


@pytest.mark.parametrize("fault", [{"do": "status", "status": 503}, {"do": "status", "status": 403}, {"do": "flip"}])
def test_unreachable_checkpoints_are_an_error_and_are_kept(simulator, fault):
    simulator.storage_python(f"{SERIES}save(1, 2)")
    with simulator.faults({**fault, "match": "GET .*(download|/bucket/run)", "times": -1}):
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


@pytest.mark.parametrize(("what", "after"), [("flip", 2), ("short", 0), ("short", 2)])  # the footer, the entries
def test_a_save_whose_parts_are_read_back_corrupt_is_repeated(simulator, what, after):
    with simulator.faults({"do": what, "match": "GET .*_temp.*index", "after": after}):
        out, _ = simulator.storage_python(f"{SERIES}save(1)\nprint(restore(), checkpoints.list_steps(folder))")
    assert out == "(1, 1.0) [1]"
    assert len([line for line in simulator.log() if what in str(line["outcome"])]) == 1


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (
            {"do": "deny", "permission": "storage.objects.create"},
            "PermissionDeniedError, Error executing an HTTP request: HTTP response code 403 with body",
        ),
        (
            {"do": "status", "status": 503, "times": -1},
            "AbortedError, All 5 retry attempts failed. The last failure: Error executing an HTTP request: HTTP "
            "response code 503",
        ),
    ],
)
def test_a_failed_save_is_an_error_and_keeps_the_one_before(simulator, fault, words):
    simulator.storage_python(f"{SERIES}save(1)")
    code = """
try:
    save(2)
except OSError as error:
    print(error)
"""
    with simulator.faults({**fault, "match": "POST .*ckpt-2"}):
        out, _ = simulator.storage_python(SERIES + code)
    assert out.startswith(f"gs://bucket/run/ckpt-2 could not be written. Received: {words}")
    assert out.endswith("Run the same command again to resume from the checkpoint before it.")
    assert simulator.storage_python(f"{SERIES}print(restore(), checkpoints.list_steps(folder))")[0] == "(1, 1.0) [1]"


def test_events_are_uploaded_on_publish_only(simulator):
    code = """
from trainer.train import metrics_log
events = metrics_log.open_event_log(folder)
for step in range(1, 7):
    events.add({"step": step, "split": "train", "loss": step / 2})
    if step % 3 == 0:
        events.publish()
(name,) = tf.io.gfile.glob(f"{folder}/train/*")
read = [event.step for event in tf.compat.v1.train.summary_iterator(name) if event.summary.value]
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

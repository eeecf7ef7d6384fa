import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf

from trainer.data import manifests, records
from trainer.data.manifests import Manifest, Shard, Split, Vocabulary
from trainer.data.records import Example
from trainer.storage import fs


def manifest(**changes) -> Manifest:
    """A manifest of one-text classification without shards, but for `changes`."""
    content = dict(
        task="csv",
        kind="classification",
        texts=1,
        labels=("bad", "größer, gut"),
        encoder="minilm",
        vocabulary=Vocabulary("ab" * 32, 1024, True, 2, 3, 0),
        seed=7,
        splits={},
        removed={"duplicates_of_test": 3, "bad_rows": 0},
    )
    return Manifest(**content | changes)


@pytest.fixture
def written(tmp_path):
    """(folder, manifest) of three shards of 5, 1 and 4 examples, their tokens of random lengths."""
    rng = np.random.default_rng(0)
    shards, number = [], 0
    for index, count in enumerate((5, 1, 4)):
        name = manifests.shard_name("train", index, 3)
        with tf.io.TFRecordWriter(str(tmp_path / name)) as writer:
            for _ in range(count):
                tokens = rng.integers(0, 1024, rng.integers(0, 300)).astype(np.int32)
                writer.write(
                    records.serialize_example(Example(number, f"text {number}", None, tokens, None, number % 2))
                )
                number += 1
        data = (tmp_path / name).read_bytes()
        shards.append(Shard(name, count, len(data), fs.crc32c(data)))
    train = Split(10, tuple(shards), {"bad": 5, "größer, gut": 5}, {"50": 100}, {"128": 10})
    return str(tmp_path), manifest(splits={"train": train})


def whole(folder, manifest):
    return records.read_shards(folder, manifest.splits["train"].shards, manifest)


A, B, NONE = np.array([5, 1023, 5], np.int32), np.array([9], np.int32), np.zeros(0, np.int32)


@pytest.mark.parametrize(
    ("description", "examples"),
    [
        (
            manifest(),
            [Example(0, "good é 好", None, A, None, 1), Example("train/pos/1_9.txt", " x\n", None, NONE, None, 0)],
        ),
        (
            manifest(texts=2),
            [Example(3, "a", "b\tc", A, B, 0), Example(4, "a", "b", B, A, 1), Example(5, "", "", NONE, NONE, 1)],
        ),
        (
            manifest(kind="regression", labels=()),
            [Example(0, "a", None, A, None, -1.5), Example(1, "b", None, B, None, 3.0)],
        ),
        (manifest(kind="regression", labels=(), texts=2), [Example(0, "a", "b", A, B, 0.25)]),
    ],
    ids=["one text", "pair", "number", "pair and number"],
)
def test_what_is_serialized_is_parsed(description, examples):
    columns = records.parse_records([records.serialize_example(e) for e in examples], description, with_text=True)
    assert columns.ids == [e.id for e in examples]
    assert [type(i) for i in columns.ids] == [type(e.id) for e in examples]
    assert columns.texts == [e.text for e in examples]
    assert columns.labels.tolist() == [e.label for e in examples]
    assert columns.labels.dtype == (np.float32 if description.kind == "regression" else np.int32)
    for row, example in enumerate(examples):
        assert columns.tokens.row(row).tolist() == example.tokens.tolist()
        if description.texts == 2:
            assert columns.tokens_b.row(row).tolist() == example.tokens_b.tolist()
    if description.texts == 2:
        assert columns.texts_b == [e.text_b for e in examples]
        assert columns.lengths().tolist() == [len(e.tokens) + len(e.tokens_b) for e in examples]
    else:
        assert columns.tokens_b is columns.texts_b is None
        assert columns.lengths().tolist() == [len(e.tokens) for e in examples]
    assert len(columns) == len(examples)


def test_texts_are_read_only_where_they_are_asked_for():
    assert (
        records.parse_records([records.serialize_example(Example(0, "a", None, A, None, 1))], manifest()).texts is None
    )


def test_an_example_has_one_serialization():
    example = Example(0, "a", "b", A, B, 1)
    assert len({records.serialize_example(example) for _ in range(20)}) == 1


def test_ragged_rows_are_laid_end_to_end():
    rows = records.to_ragged([A, NONE, B])
    assert [rows.row(r).tolist() for r in range(3)] == [[5, 1023, 5], [], [9]]
    assert rows.lengths().tolist() == [3, 0, 1]
    assert rows.values.dtype == np.int32
    assert records.to_ragged([]).lengths().tolist() == []


def test_records_are_split_as_tensorflow_splits_them(written):
    folder, description = written
    for shard in description.splits["train"].shards:
        path = fs.join(folder, shard.name)
        theirs = list(tf.data.TFRecordDataset(path).as_numpy_iterator())
        assert list(records.split_records(fs.read_bytes(path))) == theirs
        assert len(theirs) == shard.examples
    assert list(records.split_records(b"")) == []


def test_shards_are_read_in_their_order(written):
    assert whole(*written).ids == list(range(10))


def test_a_manifest_is_read_as_it_was_written(written):
    folder, description = written
    manifests.write_manifest(folder, description)
    assert manifests.read_manifest(folder) == description
    assert json.loads(fs.read_text(f"{folder}/dataset.json"))["fingerprint"] == description.fingerprint
    assert description.classes == 2


def test_the_fingerprint_is_of_what_training_depends_on():
    first = manifest().fingerprint
    assert manifest(encoder="/elsewhere/minilm").fingerprint == first
    changes = [dict(seed=8), dict(labels=("größer, gut", "bad")), dict(removed={}), dict(texts=2)]
    changes.append(dict(vocabulary=dataclasses.replace(manifest().vocabulary, lower_case=False)))
    assert len({first, *(manifest(**change).fingerprint for change in changes)}) == 1 + len(changes)


@pytest.mark.parametrize(
    ("tamper", "message"),
    [
        (lambda c: c["splits"]["train"]["shards"][1].update(crc32c=1), "was changed after it was written: its finger"),
        (lambda c: c.update(labels=["good", "bad"]), "was changed after it was written"),
        (lambda c: c.update(format=2), r"must have format 1\. Received: 2\. Prepare the data again"),
        (lambda c: c.pop("vocabulary"), "one that does not parse: KeyError"),
        (lambda c: c.update(extra=1), "one that does not parse: TypeError"),
        (lambda c: c.pop("fingerprint"), "one that does not parse: KeyError"),
    ],
)  # fmt: skip
def test_a_tampered_manifest_is_refused(written, tamper, message):
    folder, description = written
    manifests.write_manifest(folder, description)
    path = f"{folder}/dataset.json"
    content = json.loads(fs.read_text(path))
    tamper(content)
    fs.write_text(path, json.dumps(content))
    with pytest.raises(ValueError, match=message) as caught:
        manifests.read_manifest(folder)
    assert path in str(caught.value)


@pytest.mark.parametrize(
    "name", ["../x", "/etc/passwd", "a/../../b", "gs://other/x", "..\\x", "..", "", "a/b.tfrecord", "x\0"]
)
def test_a_shard_s_name_that_leaves_its_folder_is_refused(written, name):
    folder, description = written
    shard = dataclasses.replace(description.splits["train"].shards[0], name=name)
    train = dataclasses.replace(description.splits["train"], shards=(shard,))
    manifests.write_manifest(folder, dataclasses.replace(description, splits={"train": train}))
    with pytest.raises(ValueError, match="must name its shards by plain file names") as caught:
        manifests.read_manifest(folder)
    assert f"Received: {name!r}. They were not read." in str(caught.value)


def test_a_shard_that_is_a_link_out_of_its_folder_is_refused(written, tmp_path):
    folder, description = written
    shards = description.splits["train"].shards
    elsewhere = tmp_path.parent / f"{tmp_path.name}-elsewhere"
    (tmp_path / shards[0].name).rename(elsewhere)
    (tmp_path / shards[0].name).symlink_to(elsewhere)
    for check in (
        lambda: manifests.check_shard_sizes(folder, description),
        lambda: records.check_shard_checksums(folder, shards),
    ):
        with pytest.raises(ValueError, match=f"must stay in that folder. Received: '{shards[0].name}'"):
            check()


@pytest.mark.parametrize("text", ["", "{", "[]", "1"])
def test_a_manifest_that_is_none_is_refused(tmp_path, text):
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(ValueError, match=r"must be a manifest as scripts/prepare_data\.py writes it"):
        manifests.read_manifest(str(tmp_path))


def test_a_folder_without_manifest_is_refused(tmp_path):
    required = "--data_dir must name a folder that scripts/prepare_data.py has written. Received: "
    with pytest.raises(ValueError, match=f"{required}.*, which has no dataset.json: its preparation did not end"):
        manifests.read_manifest(str(tmp_path))
    with pytest.raises(ValueError, match=f"{required}.*, which is not there"):
        manifests.read_manifest(str(tmp_path / "no"))


def test_whole_shards_pass_every_check(written):
    folder, description = written
    manifests.check_shard_sizes(folder, description)
    records.check_shard_checksums(folder, description.splits["train"].shards)


def test_a_missing_and_a_cut_shard_are_both_named_without_reading(written, tmp_path):
    folder, description = written
    first, second, third = (tmp_path / shard.name for shard in description.splits["train"].shards)
    first.unlink()
    # Cut between two records: TFRecordDataset reads such a file to the end without a word.
    (length,) = np.frombuffer(third.read_bytes()[:8], np.uint64)
    third.write_bytes(third.read_bytes()[: int(length) + 16])
    assert len(list(tf.data.TFRecordDataset(str(third)))) == 1
    with pytest.raises(ValueError, match=r"--data_dir must hold the shards its manifest lists") as caught:
        manifests.check_shard_sizes(folder, description)
    assert f"{first.name} is missing" in str(caught.value)
    size = description.splits["train"].shards[2].bytes
    assert f"{third.name} has {length + 16} bytes, not {size}. Prepare the data again." in str(caught.value)
    assert second.name not in str(caught.value)


@pytest.mark.parametrize("damage", ["flipped", "cut", "longer", "swapped"])
def test_a_damaged_shard_is_refused_by_name(written, tmp_path, damage):
    folder, description = written
    first, _, third = (tmp_path / shard.name for shard in description.splits["train"].shards)
    data = bytearray(third.read_bytes())
    if damage == "flipped":
        data[len(data) // 2] ^= 4
    third.write_bytes(
        {"flipped": data, "cut": data[:-1], "longer": data + b"\0", "swapped": first.read_bytes()}[damage]
    )
    message = (
        f"{third} is not the shard that its manifest describes: its size or CRC32C differs. Prepare the data again"
    )
    with pytest.raises(ValueError, match=message):
        records.check_shard_checksums(folder, description.splits["train"].shards)
    with pytest.raises(ValueError, match=message):
        whole(folder, description)

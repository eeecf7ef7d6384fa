"""Examples as records and as columns, and shards compared with their manifest."""

import numpy as np
import pytest
import tensorflow as tf

from trainer.data import manifests, records
from trainer.data.records import Example
from trainer.errors import UserError
from trainer.storage import fs

A, B, NONE = np.array([5, 1023, 5], np.int32), np.array([9], np.int32), np.zeros(0, np.int32)


@pytest.mark.parametrize(
    ("changes", "examples"),
    [
        ({}, [Example(0, "good é 好", None, A, None, 1), Example("train/pos/1_9.txt", " x\n", None, NONE, None, 0)]),
        (
            {"texts": 2},
            [Example(3, "a", "b\tc", A, B, 0), Example(4, "a", "b", B, A, 1), Example(5, "", "", NONE, NONE, 1)],
        ),
        (
            {"kind": "regression", "labels": ()},
            [Example(0, "a", None, A, None, -1.5), Example(1, "b", None, B, None, 3.0)],
        ),
        ({"kind": "regression", "labels": (), "texts": 2}, [Example(0, "a", "b", A, B, 0.25)]),
        ({"kind": "multi_label"}, [Example(i, "a", None, A, None, x) for i, x in enumerate([(1,), (), (0, 1)])]),
    ],
    ids=["one text", "pair", "number", "pair and number", "several labels"],
)
def test_what_is_serialized_is_parsed(make_manifest, changes, examples):
    manifest = make_manifest(**changes)
    columns = records.parse_records([records.serialize_example(e) for e in examples], manifest, with_text=True)
    assert columns.ids == [e.id for e in examples]
    assert [type(i) for i in columns.ids] == [type(e.id) for e in examples]
    assert columns.texts == [e.text for e in examples]
    types = {"classification": np.int32, "regression": np.float32, "multi_label": bool}
    assert columns.labels.dtype == types[manifest.kind]
    if manifest.kind == "multi_label":
        assert [tuple(np.flatnonzero(row)) for row in columns.labels] == [e.label for e in examples]
        assert columns.labels.shape == (len(examples), 2)
    else:
        assert columns.labels.tolist() == [e.label for e in examples]
    for row, example in enumerate(examples):
        assert columns.tokens.row(row).tolist() == example.tokens.tolist()
        if manifest.texts == 2:
            assert columns.tokens_b.row(row).tolist() == example.tokens_b.tolist()
    if manifest.texts == 2:
        assert columns.texts_b == [e.text_b for e in examples]
        assert columns.lengths().tolist() == [len(e.tokens) + len(e.tokens_b) for e in examples]
    else:
        assert columns.tokens_b is columns.texts_b is None
        assert columns.lengths().tolist() == [len(e.tokens) for e in examples]
    assert len(columns) == len(examples)


def test_weights_and_kept_columns_are_parsed(make_manifest):
    manifest = make_manifest(weighted=True, kept_columns=("source", "größe"))
    examples = [
        Example(0, "a", None, A, None, 1, 0.5, ("web", "é,\n")),
        Example(1, "b", None, B, None, 0, 2.0, ("", "1")),
    ]
    serialized = [records.serialize_example(example) for example in examples]
    columns = records.parse_records(serialized, manifest, with_text=True)
    assert columns.weights.tolist() == [0.5, 2.0]
    assert columns.kept == {"source": ["web", ""], "größe": ["é,\n", "1"]}
    assert records.parse_records(serialized, manifest).kept == {}
    assert records.parse_records(serialized, manifest).weights.tolist() == [0.5, 2.0]


def test_texts_are_parsed_only_on_request(make_manifest):
    record = records.serialize_example(Example(0, "a", None, A, None, 1))
    assert records.parse_records([record], make_manifest()).texts is None


def test_an_example_has_one_serialization():
    example = Example(0, "a", "b", A, B, 1)
    assert len({records.serialize_example(example) for _ in range(20)}) == 1


def test_ragged_rows_are_concatenated():
    rows = records.to_ragged([A, NONE, B])
    assert [rows.row(r).tolist() for r in range(3)] == [[5, 1023, 5], [], [9]]
    assert rows.lengths().tolist() == [3, 0, 1]
    assert rows.values.dtype == np.int32
    assert records.to_ragged([]).lengths().tolist() == []


@pytest.mark.parametrize("pairs", [False, True])
def test_columns_are_concatenated_as_if_they_were_parsed_together(make_manifest, pairs):
    manifest = make_manifest(weighted=True, kept_columns=("source",), texts=2 if pairs else 1)
    examples = [
        Example(i, f"{i}", f"second {i}" if pairs else None, tokens, A if pairs else None, 1, i / 2, (f"kept {i}",))
        for i, tokens in enumerate([A, NONE, B, A, B])
    ]
    serialized = [records.serialize_example(example) for example in examples]
    whole = records.parse_records(serialized, manifest, with_text=True)
    parts = [serialized[:2], serialized[2:3], serialized[3:]]
    joined = records.concatenate([records.parse_records(part, manifest, with_text=True) for part in parts])
    assert (joined.ids, joined.texts, joined.texts_b) == (whole.ids, whole.texts, whole.texts_b)
    assert joined.kept == whole.kept
    for name in ("labels", "weights"):
        np.testing.assert_array_equal(getattr(joined, name), getattr(whole, name))
    for name in ("tokens", "tokens_b") if pairs else ("tokens",):
        for part in ("values", "starts"):
            actual, expected = (getattr(getattr(each, name), part) for each in (joined, whole))
            np.testing.assert_array_equal(actual, expected)
            assert actual.dtype == expected.dtype
    assert (joined.tokens_b is None) == (not pairs)


def test_records_are_split_as_tensorflow_splits_them(small_data_set):
    folder, manifest = small_data_set
    for shard in manifest.splits["train"].shards:
        path = fs.join(folder, shard.name)
        expected = list(tf.data.TFRecordDataset(path).as_numpy_iterator())
        assert list(records.split_records(fs.read_bytes(path))) == expected
        assert len(expected) == shard.examples
    assert list(records.split_records(b"")) == []


def test_shards_are_read_in_their_order(small_data_set):
    folder, manifest = small_data_set
    records.check_shard_checksums(folder, manifest.splits["train"].shards)
    assert records.read_shards(folder, manifest.splits["train"].shards, manifest).ids == list(range(10))


def test_a_shard_that_is_a_link_out_of_its_folder_is_refused(small_data_set, tmp_path):
    folder, manifest = small_data_set
    shards = manifest.splits["train"].shards
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    (tmp_path / shards[0].name).rename(outside)
    (tmp_path / shards[0].name).symlink_to(outside)
    with pytest.raises(ValueError, match=shards[0].name):
        manifests.check_shard_sizes(folder, manifest)
    with pytest.raises(ValueError, match=shards[0].name):
        records.check_shard_checksums(folder, shards)


@pytest.mark.parametrize("corruption", ["flipped", "truncated", "longer", "swapped"])
def test_a_corrupt_shard_is_refused_by_name(small_data_set, tmp_path, corruption):
    folder, manifest = small_data_set
    first, _, third = (tmp_path / shard.name for shard in manifest.splits["train"].shards)
    data = bytearray(third.read_bytes())
    if corruption == "flipped":
        data[len(data) // 2] ^= 4
    contents = {"flipped": data, "truncated": data[:-1], "longer": data + b"\0", "swapped": first.read_bytes()}
    third.write_bytes(contents[corruption])
    with pytest.raises(UserError, match=r"must have the .* bytes and the CRC32C .* of its manifest") as caught:
        records.check_shard_checksums(folder, manifest.splits["train"].shards)
    assert caught.value.problems[0].setting == str(third)
    with pytest.raises(UserError) as caught_again:
        records.read_shards(folder, manifest.splits["train"].shards, manifest)
    assert caught_again.value.problems == caught.value.problems

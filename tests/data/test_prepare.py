import collections
import random
import shutil
import time

import numpy as np
import pytest
import tensorflow as tf
from helpers import review, start

from trainer.data import manifests, prepare, records, tokenization
from trainer.data.sources import Row


def rows_of(counts: dict[str, int], split: str = "", seed: int = 0) -> list[Row]:
    """Rows of these labels in a random order, all of them different texts."""
    rng = random.Random(seed)
    labels = [label for label, count in counts.items() for _ in range(count)]
    rng.shuffle(labels)
    return [Row(i, f"{review(rng, label == 'good')} {split}{i}", None, label, split) for i, label in enumerate(labels)]


def write(rows, tiny, output, **changes):
    options = dict(task="csv", label_type="auto", labels=None, encoder="tiny", seed=0, skipped=0) | changes
    return prepare.prepare_data_set(rows, preprocess=str(tiny / "preprocess"), output=str(output), **options)


@pytest.fixture(scope="module")
def data(tiny, tmp_path_factory):
    """(folder, manifest, rows) of a data set of 500 rows. Not to be changed."""
    folder = tmp_path_factory.mktemp("data")
    rows = rows_of({"good": 300, "bad": 200})
    return folder, write(rows, tiny, folder, skipped=4), rows


def ids(rows):
    return [row.id for row in rows]


def counts(rows):
    return dict(collections.Counter(row.label for row in rows))


# --- Splits ---------------------------------------------------------------------------------------


def test_one_source_is_split_80_10_10_in_every_class():
    splits, duplicates = prepare.split_rows(rows_of({"good": 700, "bad": 200, "meh": 100}), "classification", 0)
    assert duplicates == 0
    assert {name: counts(part) for name, part in splits.items()} == {
        "train": {"good": 560, "bad": 160, "meh": 80},
        "validation": {"good": 70, "bad": 20, "meh": 10},
        "test": {"good": 70, "bad": 20, "meh": 10},
    }
    assert sorted(ids(splits["train"] + splits["validation"] + splits["test"])) == list(range(1000))


def test_beside_a_test_source_a_fifth_of_train_is_validation():
    rows = rows_of({"good": 300, "bad": 200}, "train") + rows_of({"good": 10, "bad": 90}, "test")
    splits, _ = prepare.split_rows(rows, "classification", 0)
    assert counts(splits["validation"]) == {"good": 60, "bad": 40}
    assert counts(splits["train"]) == {"good": 240, "bad": 160}
    assert sorted(ids(splits["test"])) == list(range(100))
    assert {row.split for row in splits["test"]} == {"test"}


def test_the_shares_hold_for_the_whole_however_small_its_classes():
    rows = rows_of({f"class {i}": 7 for i in range(30)})
    splits, _ = prepare.split_rows(rows, "classification", 0)
    assert [len(splits[name]) for name in ("train", "validation", "test")] == [168, 21, 21]


def test_a_class_of_one_row_is_in_train():
    splits, _ = prepare.split_rows(rows_of({"good": 60, "bad": 40, "rare": 1}), "classification", 0)
    assert counts(splits["train"])["rare"] == 1


def test_numbers_are_split_evenly_over_their_range():
    rng = np.random.default_rng(0)
    rows = [Row(i, f"text {i}", None, str(x), "") for i, x in enumerate(rng.normal(size=1000))]
    splits, _ = prepare.split_rows(rows, "regression", 0)
    edges = np.quantile([float(row.label) for row in rows], np.linspace(0, 1, 11))
    for name, share in (("validation", 10), ("test", 10), ("train", 80)):
        tenths = np.histogram([float(row.label) for row in splits[name]], edges)[0]
        assert np.abs(tenths - share).max() <= 2


def test_a_split_is_a_function_of_the_seed_and_of_no_row_order():
    rows = rows_of({"good": 60, "bad": 40})
    first, again = (prepare.split_rows(r, "classification", 7)[0] for r in (rows, rows[::-1]))
    other, _ = prepare.split_rows(rows, "classification", 8)
    for name in first:
        assert ids(first[name]) == ids(again[name])
        assert ids(first[name]) != ids(other[name])
        assert ids(first[name]) != sorted(ids(first[name]))  # shuffled


def test_texts_of_test_are_taken_out_of_train_and_counted():
    train = rows_of({"good": 50, "bad": 50}, "train")
    test = rows_of({"good": 10, "bad": 10}, "test")
    copies = [Row(100 + i, f"  {row.text}\n", None, row.label, "train") for i, row in enumerate(test[:3])]
    splits, duplicates = prepare.split_rows(train + copies + test, "classification", 0)
    assert duplicates == 3
    assert len(splits["train"]) + len(splits["validation"]) == 100
    assert len(splits["test"]) == 20
    shown = {row.text.strip() for row in splits["test"]}
    assert not shown & {row.text.strip() for name in ("train", "validation") for row in splits[name]}


def test_no_text_of_test_is_in_train_where_one_source_repeats_itself():
    rows = [Row(i, f"text {i % 50}", None, "good" if i % 2 else "bad", "") for i in range(200)]
    splits, duplicates = prepare.split_rows(rows, "classification", 0)
    assert not {row.text for row in splits["test"]} & {row.text for row in splits["train"] + splits["validation"]}
    assert duplicates == 200 - sum(map(len, splits.values())) > 0


def test_a_pair_is_a_duplicate_only_with_both_texts():
    train, test = (
        [Row(0, "a", "b", "1", ""), Row(1, "a", "c", "1", ""), Row(2, "b", "a", "1", "")],
        [Row(0, "a", "b", "1", "")],
    )
    assert ids(prepare.without_texts_of(train, test)) == [1, 2]


@pytest.mark.parametrize(("rows", "empty"), [(3, "validation, test"), (1, "validation, test")])
def test_too_few_rows_are_refused_with_the_splits_that_stay_empty(rows, empty):
    message = f"rows enough for train, validation and test. Received: {rows} rows, which leave {empty} empty"
    with pytest.raises(ValueError, match=message):
        prepare.split_rows(rows_of({"good": rows}), "classification", 0)


def test_one_class_is_refused(tiny, tmp_path):
    with pytest.raises(ValueError, match=r"The labels must be of two classes or more. Received: one class, 'good'"):
        write(rows_of({"good": 50}), tiny, tmp_path / "out")
    with pytest.raises(ValueError, match=r"Received: one class, 'good'"):
        write(rows_of({"good": 50}), tiny, tmp_path / "out", labels=("bad", "good"))
    assert not (tmp_path / "out").exists()


def test_a_label_unseen_in_train_is_refused_and_what_was_there_stays(tiny, data):
    folder, before, _ = data
    rows = rows_of({"good": 50, "bad": 50}, "train") + rows_of({"good": 5, "goood": 1}, "test")
    message = r"Every label must appear in train. Received: 'goood' in test only. Is --label_column right in both files"
    with pytest.raises(ValueError, match=message):
        write(rows, tiny, folder)
    assert manifests.read_manifest(str(folder)) == before
    manifests.check_shard_sizes(str(folder), before)


# --- Writing --------------------------------------------------------------------------------------


def test_what_is_written_is_the_rows_with_the_preprocessors_tokens(tiny, data):
    folder, manifest, rows = data
    assert manifests.read_manifest(str(folder)) == manifest
    manifests.check_shard_sizes(str(folder), manifest)
    assert (manifest.kind, manifest.texts, manifest.labels) == ("classification", 1, ("bad", "good"))
    assert manifest.removed == {"duplicates_of_test": 0, "bad_rows": 4}
    tokenizer = tokenization.load_tokenizer(str(tiny / "preprocess"))
    assert manifest.vocabulary.sha256 == tokenization.vocabulary_sha256(str(tiny / "preprocess"))
    assert (manifest.vocabulary.size, manifest.vocabulary.lower_case, manifest.vocabulary.start) == (1024, True, 2)

    expected, _ = prepare.split_rows(rows, "classification", 0)
    for name, split in manifest.splits.items():
        columns = records.read_shards(str(folder), split.shards, manifest, with_text=True)
        assert columns.ids == ids(expected[name])
        assert columns.texts == [row.text for row in expected[name]]
        assert [manifest.labels[label] for label in columns.labels] == [row.label for row in expected[name]]
        tokens = tokenizer.tokenize(tf.constant(columns.texts))
        assert np.array_equal(columns.tokens.values, tokens.values)
        assert np.array_equal(columns.tokens.starts, tokens.row_splits)
        lengths = columns.lengths()
        assert split.examples == len(columns) == sum(shard.examples for shard in split.shards)
        assert split.label_counts == {label: counts(expected[name])[label] for label in ("bad", "good")}
        assert split.length_percentiles["100"] == lengths.max()
        assert split.length_percentiles["50"] == sorted(lengths)[len(lengths) // 2]
        for bound, count in split.length_histogram.items():
            low = int(bound) // 2 if bound != "8" else -1
            assert count == ((low < lengths) & (lengths <= int(bound))).sum()
        assert sum(split.length_histogram.values()) == split.examples


def test_a_data_set_carries_its_preprocessor(tiny, data):
    ours, theirs = (
        {p.name: p.read_bytes() for p in (f / "preprocess").rglob("*") if p.is_file()} for f in (data[0], tiny)
    )
    assert ours == theirs


def test_pairs_are_written_with_both_texts(tiny, tmp_path):
    rows = [Row(i, f"is {i} odd", "yes it is", str(i % 2), "") for i in range(60)]
    manifest = write(rows, tiny, tmp_path)
    columns = records.read_shards(str(tmp_path), manifest.splits["test"].shards, manifest, with_text=True)
    assert manifest.texts == 2
    assert columns.texts_b == ["yes it is"] * 6
    tokenizer = tokenization.load_tokenizer(str(tiny / "preprocess"))
    assert columns.tokens.row(0).tolist() == tokenizer.tokenize(tf.constant(columns.texts[:1])).to_list()[0]
    assert columns.tokens_b.row(0).tolist() == tokenizer.tokenize(tf.constant(["yes it is"])).to_list()[0]
    assert manifest.splits["test"].length_percentiles["100"] == columns.lengths().max()


def test_numbers_are_written_as_they_are(tiny, tmp_path):
    rows = [Row(i, f"text {i}", None, str(i / 8 - 3), "") for i in range(60)]
    manifest = write(rows, tiny, tmp_path)
    assert (manifest.kind, manifest.labels) == ("regression", ())
    columns = records.read_shards(str(tmp_path), manifest.splits["train"].shards, manifest)
    assert columns.labels.tolist() == [i / 8 - 3 for i in columns.ids]
    assert manifest.splits["train"].label_counts == {}


def test_a_document_beyond_the_cap_keeps_both_its_ends(tiny, tmp_path):
    rows = rows_of({"good": 30, "bad": 30})
    half = manifests.MAX_TOKENS // 2
    rows = [Row(r.id, "good " * half + "bad " * 99 + "great " * half, None, r.label, "") for r in rows[:1]] + rows[1:]
    manifest = write(rows, tiny, tmp_path)
    tokens = [
        columns.tokens.row(row).tolist()
        for split in manifest.splits.values()
        for columns in [records.read_shards(str(tmp_path), split.shards, manifest)]
        for row in range(len(columns))
    ]
    good, great = (
        tokenization.load_tokenizer(str(tiny / "preprocess")).tokenize(tf.constant(["good great"])).to_list()[0]
    )
    assert max(tokens, key=len) == [good] * half + [great] * half


def test_an_earlier_data_set_is_replaced_and_other_files_stay(tiny, data, tmp_path):
    shutil.copytree(data[0], tmp_path, dirs_exist_ok=True)
    (tmp_path / "notes.txt").write_text("mine")
    manifest = write(rows_of({"yes": 20, "no": 20}), tiny, tmp_path)
    shards = {shard.name for split in manifest.splits.values() for shard in split.shards}
    assert {p.name for p in tmp_path.iterdir()} == shards | {"dataset.json", "preprocess", "notes.txt"}


def test_preparing_again_gives_the_same_bytes(tiny, data, tmp_path):
    folder, manifest, rows = data
    assert write(rows, tiny, tmp_path, skipped=4) == manifest
    assert (tmp_path / "dataset.json").read_bytes() == (folder / "dataset.json").read_bytes()


@pytest.mark.parametrize(("examples", "shards"), [(1, 1), (64, 1), (65, 2), (1024, 16), (25_000, 16), (1 << 20, 32)])
def test_larger_splits_have_more_shards(examples, shards):
    assert prepare.shard_count(examples) == shards


def test_sentencepiece_encoders_are_prepared_for_too(make_encoder, tmp_path):
    manifest = write(rows_of({"good": 30, "bad": 30}), make_encoder("tiny_albert"), tmp_path)
    assert manifest.vocabulary.size == 350


def test_a_preparation_that_is_killed_leaves_nothing_that_looks_whole(tiny, data, tmp_path):
    shutil.copytree(data[0], tmp_path, dirs_exist_ok=True)
    code = """
import sys
from trainer.data import prepare
from trainer.data.sources import Row
rows = [Row(i, f"a movie {i} " * 50, None, str(i % 2), "") for i in range(12_000)]
prepare.prepare_data_set(rows, task="csv", label_type="auto", labels=None, encoder="tiny", preprocess=sys.argv[1],
                output=sys.argv[2], seed=0, skipped=0)
"""
    process = start(code, tiny / "preprocess", tmp_path)
    try:
        while not (tmp_path / "train-00003-of-00016.tfrecord").exists():
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.01)
        process.kill()
        process.wait()
    finally:
        process.kill()
        process.communicate()
    with pytest.raises(ValueError, match=r"which has no dataset.json: its preparation did not end"):
        manifests.read_manifest(str(tmp_path))

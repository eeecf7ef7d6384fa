import collections
import dataclasses
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from helpers import start

from trainer.data import fast_wordpiece, manifests, prepare, records, splits, tokenization
from trainer.data.sources import Row
from trainer.data.task_rows import SourceRows
from trainer.errors import UserError


def write(rows, tiny, output, *, bad_rows=0, label_type="auto", label_form="", class_names=None):
    return prepare.prepare_data_set(
        SourceRows(rows, bad_rows, label_type, label_form),
        task="csv",
        class_names=class_names,
        encoder="tiny",
        preprocess=str(tiny / "preprocess"),
        output=str(output),
        seed=0,
    )


@pytest.fixture(scope="module")
def data(tiny, make_rows, tmp_path_factory):
    """(folder, manifest, rows) of a data set of 500 rows, which tests must not change."""
    folder = tmp_path_factory.mktemp("data")
    rows = make_rows({"good": 300, "bad": 200})
    return folder, write(rows, tiny, folder, bad_rows=4), rows


def test_one_class_is_refused(tiny, make_rows, tmp_path):
    for class_names in (None, ("bad", "good")):
        with pytest.raises(UserError, match="'good'"):
            write(make_rows({"good": 50}), tiny, tmp_path / "out", class_names=class_names)
    assert not (tmp_path / "out").exists()


def test_numbers_that_cannot_be_learned_are_refused(tiny, make_rows, tmp_path):
    rows = [dataclasses.replace(row, label=f"{1e9 + row.id / 50}") for row in make_rows({"any": 50})]
    with pytest.raises(UserError, match="float32"):
        write(rows, tiny, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_label_unknown_in_train_is_refused_and_nothing_is_changed(tiny, make_rows, data):
    folder, before, _ = data
    rows = make_rows({"good": 50, "bad": 50}, "train") + make_rows({"good": 5, "goood": 1}, "test")
    with pytest.raises(UserError, match="goood"):
        write(rows, tiny, folder)
    assert manifests.read_manifest(str(folder)) == before
    manifests.check_shard_sizes(str(folder), before)


def test_the_rows_are_written_with_the_preprocessors_tokens(tiny, data):
    folder, manifest, rows = data
    assert manifests.read_manifest(str(folder)) == manifest
    manifests.check_shard_sizes(str(folder), manifest)
    assert (manifest.kind, manifest.texts, manifest.labels) == ("classification", 1, ("bad", "good"))
    assert manifest.removed == {"duplicates_of_test": 0, "bad_rows": 4}
    tokenizer = tokenization.load_tokenizer(str(tiny / "preprocess"))
    assert manifest.vocabulary.sha256 == tokenization.vocabulary_sha256(str(tiny / "preprocess"))
    assert (manifest.vocabulary.size, manifest.vocabulary.lower_case, manifest.vocabulary.start) == (1024, True, 2)

    assert manifest.findings.label_decision.startswith("2 classes in 500 rows")
    expected = splits.split_rows(rows, "classification", 0).rows
    for name, split in manifest.splits.items():
        columns = records.read_split(str(folder), manifest, name, with_text=True)
        assert columns.ids == [row.id for row in expected[name]]
        assert columns.texts == [row.text for row in expected[name]]
        assert [manifest.labels[label] for label in columns.labels] == [row.label for row in expected[name]]
        tokens = tokenizer.tokenize(tf.constant(columns.texts))
        assert np.array_equal(columns.tokens.values, tokens.values)
        assert np.array_equal(columns.tokens.starts, tokens.row_splits)
        lengths = columns.lengths()
        assert split.examples == len(columns) == sum(shard.examples for shard in split.shards)
        assert split.label_counts == dict(collections.Counter(row.label for row in expected[name]))
        assert split.length_percentiles["100"] == lengths.max()
        assert split.length_percentiles["50"] == sorted(lengths)[len(lengths) // 2]
        for bound, count in split.length_histogram.items():
            low = int(bound) // 2 if bound != "8" else -1
            assert count == ((low < lengths) & (lengths <= int(bound))).sum()
        assert sum(split.length_histogram.values()) == split.examples


def test_the_faster_tokenizer_writes_the_same_shards(tiny, data, make_rows, tmp_path, monkeypatch):
    folder, manifest, rows = data
    monkeypatch.setattr(prepare, "MIN_FAST_TEXTS", len(rows))
    made, speed_up = [], fast_wordpiece.speed_up

    def keep(tokenizer, preprocess):
        made.append((speed_up(tokenizer, preprocess), tokenizer))
        return made[-1][0]

    monkeypatch.setattr(fast_wordpiece, "speed_up", keep)
    assert write(rows, tiny, tmp_path, bad_rows=4) == manifest
    assert made[0][0] is not made[0][1]
    assert all((tmp_path / path.name).read_bytes() == path.read_bytes() for path in Path(folder).glob("*.tfrecord"))


def test_a_data_set_includes_its_preprocessor(tiny, data):
    ours, theirs = (
        {p.name: p.read_bytes() for p in (f / "preprocess").rglob("*") if p.is_file()} for f in (data[0], tiny)
    )
    assert ours == theirs


def test_pairs_are_written_with_both_texts(tiny, tmp_path):
    rows = [Row(i, f"is {i} odd", "yes it is", str(i % 2), "") for i in range(60)]
    manifest = write(rows, tiny, tmp_path)
    columns = records.read_split(str(tmp_path), manifest, "test", with_text=True)
    assert manifest.texts == 2
    assert columns.texts_b == ["yes it is"] * 6
    tokenizer = tokenization.load_tokenizer(str(tiny / "preprocess"))
    assert columns.tokens.row(0).tolist() == tokenizer.tokenize(tf.constant(columns.texts[:1])).to_list()[0]
    assert columns.tokens_b.row(0).tolist() == tokenizer.tokenize(tf.constant(["yes it is"])).to_list()[0]
    assert manifest.splits["test"].length_percentiles["100"] == columns.lengths().max()


def test_an_empty_second_text_has_no_tokens(tiny, tmp_path):
    rows = [Row(i, f"is {i} odd", "yes" if i % 3 else "", str(i % 2), "") for i in range(60)]
    manifest = write(rows, tiny, tmp_path)
    columns = records.read_split(str(tmp_path), manifest, "train", with_text=True)
    assert [bool(text) for text in columns.texts_b] == [bool(id_ % 3) for id_ in columns.ids]
    assert [len(columns.tokens_b.row(row)) for row in range(len(columns))] == [int(id_ % 3 > 0) for id_ in columns.ids]


def test_what_was_found_is_in_the_manifest(tiny, make_rows, tmp_path):
    rows = make_rows({"good": 60, "bad": 40}) + [Row(100 + i, "So so", None, "ab"[i], "") for i in range(2)]
    found = write(rows, tiny, tmp_path).findings
    assert (found.copies, found.contradicting_texts, found.contradicting_examples) == (1, 1, ("'So so': a, b",))
    assert found.train_only_classes == ("a", "b")


def test_numbers_are_written_as_they_are(tiny, tmp_path):
    rows = [Row(i, f"text {i}", None, str(i / 8 - 3), "") for i in range(60)]
    manifest = write(rows, tiny, tmp_path)
    assert (manifest.kind, manifest.labels) == ("regression", ())
    columns = records.read_split(str(tmp_path), manifest, "train")
    assert columns.labels.tolist() == [i / 8 - 3 for i in columns.ids]
    assert manifest.splits["train"].label_counts == {}


def test_several_labels_are_written_as_sets(tiny, tmp_path):
    sets = [("b",), (), ("10", "b"), ("b", "c")]
    rows = [Row(i, f"text {i}", None, "", "", sets[i % 4]) for i in range(200)]
    manifest = write(rows, tiny, tmp_path, label_type="several", label_form="lists")
    assert (manifest.kind, manifest.labels) == ("multi_label", ("10", "b", "c"))
    assert manifest.findings.label_decision == "3 labels in 200 rows, 100 with several and 50 with none (lists)"
    assert manifests.read_manifest(str(tmp_path)) == manifest
    for name, split in manifest.splits.items():
        columns = records.read_split(str(tmp_path), manifest, name)
        for id_, row in zip(columns.ids, columns.labels, strict=True):
            assert tuple(np.array(manifest.labels)[row]) == sets[id_ % 4]
        assert split.label_counts == dict(zip(manifest.labels, columns.labels.sum(0).tolist(), strict=True))
        assert manifest.findings.without_label[name] == (~columns.labels.any(1)).sum() > 0


def test_a_document_of_too_many_tokens_keeps_both_ends(tiny, tmp_path, make_rows):
    rows = make_rows({"good": 30, "bad": 30})
    half = manifests.MAX_TOKENS // 2
    rows = [Row(r.id, "good " * half + "bad " * 99 + "great " * half, None, r.label, "") for r in rows[:1]] + rows[1:]
    manifest = write(rows, tiny, tmp_path)
    tokens = [
        columns.tokens.row(row).tolist()
        for split in manifest.splits
        for columns in [records.read_split(str(tmp_path), manifest, split)]
        for row in range(len(columns))
    ]
    good, great = (
        tokenization.load_tokenizer(str(tiny / "preprocess")).tokenize(tf.constant(["good great"])).to_list()[0]
    )
    assert max(tokens, key=len) == [good] * half + [great] * half


def test_an_earlier_data_set_is_replaced_and_other_files_stay(tiny, data, tmp_path, make_rows):
    shutil.copytree(data[0], tmp_path, dirs_exist_ok=True)
    (tmp_path / "notes.txt").write_text("mine")
    manifest = write(make_rows({"yes": 20, "no": 20}), tiny, tmp_path)
    shards = {shard.name for split in manifest.splits.values() for shard in split.shards}
    assert {p.name for p in tmp_path.iterdir()} == shards | {"dataset.json", "preprocess", "notes.txt"}


def test_preparing_again_gives_the_same_bytes(tiny, data, tmp_path):
    folder, manifest, rows = data
    assert write(rows, tiny, tmp_path, bad_rows=4) == manifest
    assert (tmp_path / "dataset.json").read_bytes() == (folder / "dataset.json").read_bytes()


@pytest.mark.parametrize(("examples", "shards"), [(1, 1), (64, 1), (65, 2), (1024, 16), (25_000, 16), (1 << 20, 32)])
def test_larger_splits_have_more_shards(examples, shards):
    assert prepare.shard_count(examples) == shards


def test_a_sentencepiece_encoders_tokens_are_written(make_encoder, tmp_path, make_rows):
    manifest = write(make_rows({"good": 30, "bad": 30}), make_encoder("tiny_albert"), tmp_path)
    assert manifest.vocabulary.size == 350


def test_a_killed_preparation_leaves_no_manifest(tiny, data, tmp_path):
    shutil.copytree(data[0], tmp_path, dirs_exist_ok=True)
    code = """
import sys
from trainer.data import prepare
from trainer.data.sources import Row
from trainer.data.task_rows import SourceRows
rows = [Row(i, f"a movie {i} " * 50, None, str(i % 2), "") for i in range(12_000)]
prepare.prepare_data_set(SourceRows(rows, 0, "auto"), task="csv", class_names=None, encoder="tiny",
                         preprocess=sys.argv[1], output=sys.argv[2], seed=0)
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
    with pytest.raises(UserError, match=r"preparation did not end"):
        manifests.read_manifest(str(tmp_path))

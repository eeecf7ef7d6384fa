"""Rows of random reviews, and data sets written as shards and a manifest without a tokenizer."""

import random

import numpy as np
import pytest
import tensorflow as tf
from helpers import review

from trainer.data import manifests, records
from trainer.data.manifests import Manifest, Shard, Split, Vocabulary
from trainer.data.records import Example
from trainer.data.sources import Row
from trainer.storage import fs

START, END, PADDING = 101, 102, 0
# The second shard is smaller than a batch of the tests.
CORPUS_SHARD_EXAMPLES = (50, 41, 3, 60, 49)


def write_shards(folder, examples_by_shard) -> tuple[Shard, ...]:
    shards = []
    for index, examples in enumerate(examples_by_shard):
        name = manifests.shard_name("train", index, len(examples_by_shard))
        with tf.io.TFRecordWriter(str(folder / name)) as writer:
            for example in examples:
                writer.write(records.serialize_example(example))
        data = (folder / name).read_bytes()
        shards.append(Shard(name, len(examples), len(data), fs.crc32c(data)))
    return tuple(shards)


def _make_manifest(**changes) -> Manifest:
    content = dict(
        task="csv",
        kind="classification",
        texts=1,
        labels=("bad", "größer, gut"),
        encoder="minilm",
        vocabulary=Vocabulary("ab" * 32, 1024, True, START, END, PADDING),
        seed=7,
        splits={},
        removed={"duplicates_of_test": 3, "bad_rows": 0},
    )
    return Manifest(**content | changes)


@pytest.fixture
def file(tmp_path):
    """A function (name, content) -> the path of a file with it, in UTF-8."""

    def write(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
        return path

    return write


@pytest.fixture(scope="session")
def make_manifest():
    """A function of changes -> a manifest of one-text classification without shards, but for those changes."""
    return _make_manifest


@pytest.fixture
def small_data_set(tmp_path) -> tuple[str, Manifest]:
    """Shards of 5, 1 and 4 examples with texts of 0 to 299 tokens. Its manifest is not written."""
    rng = np.random.default_rng(0)
    numbers, shards = iter(range(10)), []
    for count in (5, 1, 4):
        examples = []
        for _ in range(count):
            number, tokens = next(numbers), rng.integers(0, 1024, rng.integers(0, 300)).astype(np.int32)
            examples.append(Example(number, f"text {number}", None, tokens, None, number % 2))
        shards.append(examples)
    train = Split(10, write_shards(tmp_path, shards), {"bad": 5, "größer, gut": 5}, {"50": 100}, {"128": 10})
    return str(tmp_path), _make_manifest(splits={"train": train})


@pytest.fixture(scope="session")
def write_corpus():
    """A function (folder, kind, texts) -> the manifest of shards of texts of 0 to 40 tokens, each 1000 + its row."""

    def write(folder, *, kind="classification", texts=1) -> Manifest:
        rng = np.random.default_rng(0)
        numbers, shards = iter(range(sum(CORPUS_SHARD_EXAMPLES))), []
        for count in CORPUS_SHARD_EXAMPLES:
            examples = []
            for _ in range(count):
                number = next(numbers)
                a, b = (np.full(rng.integers(0, 41), 1000 + number, np.int32) for _ in range(2))
                sets = [(), (0,), (0, 2), (1, 2)]
                label = {"classification": number % 3, "regression": number / 2, "multi_label": sets[number % 4]}[kind]
                examples.append(Example(number, "a", *(("b", a, b) if texts == 2 else (None, a, None)), label))
            shards.append(examples)
        train = Split(sum(CORPUS_SHARD_EXAMPLES), write_shards(folder, shards), {}, {}, {})
        labels = () if kind == "regression" else ("a", "b", "c")
        return _make_manifest(kind=kind, texts=texts, labels=labels, splits={"train": train})

    return write


@pytest.fixture(scope="session")
def make_rows():
    """A function (counts by label, split) -> rows in a random order, no two texts alike."""

    def make(counts: dict[str, int], split: str = "") -> list[Row]:
        rng = random.Random(0)
        labels = [label for label, count in counts.items() for _ in range(count)]
        rng.shuffle(labels)
        return [
            Row(i, f"{review(rng, label == 'good')} {split}{i}", None, label, split) for i, label in enumerate(labels)
        ]

    return make

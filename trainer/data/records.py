"""TFRecord shards: examples written to records, and records read back as columns.

A record is a tf.train.Example:
  id        bytes [1]    the example's id as JSON: its row's number, or its file's path
  text      bytes [1]    the text as it was read; text_b: bytes [0 or 1], the second text of a pair
  tokens    int64 [T]    its token ids without special tokens; tokens_b: int64 [0 or T_b]
  label     int64 [1]    the class, an index into the manifest's labels; or
  target    float [1]    the number, for regression; or
  labels    int64 [0..C] the labels of a text that may have several, ascending indexes
  weight    float [0 or 1]  the example's weight in the loss, if the data set has weights
  kept      bytes [0 or 1]  a JSON list of strings: the values of the manifest's kept columns, if it has any
"""

import dataclasses
import itertools
import json
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from trainer.data import manifests
from trainer.errors import Problem, UserError
from trainer.storage import fs

# https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details
_LENGTH_AND_CRC_BYTES, _CRC_BYTES = 12, 4


@dataclasses.dataclass(frozen=True)
class Example:
    """One row of a data set. Texts and tokens ending in _b belong to the second text of a pair."""

    id: int | str
    text: str
    text_b: str | None
    tokens: np.ndarray  # int32 [T]
    tokens_b: np.ndarray | None  # int32 [T_b]
    # A class's index is an int, a number to predict a float; of several labels it is a tuple of their indexes.
    label: int | float | tuple[int, ...]
    weight: float | None = None
    kept: tuple[str, ...] = ()  # The values of the columns that the data set keeps.


def serialize_example(example: Example) -> bytes:
    """The example as a record. Equal examples give equal bytes."""
    record = tf.train.Example()
    features = (
        record.features.feature
    )  # Filled in place: messages that are put into others are copied, which takes longer.

    def add_strings(name: str, *values: str) -> None:
        features[name].bytes_list.value.extend(value.encode("utf-8") for value in values)

    def add_integers(name: str, values: Sequence[int]) -> None:
        integers = features[name].int64_list
        integers.SetInParent()  # A list that is empty is there all the same.
        integers.value.extend(values)

    add_strings("id", json.dumps(example.id))
    add_strings("text", example.text)
    add_integers("tokens", example.tokens.tolist())  # NumPy's own integers take twice as long.
    if example.text_b is not None and example.tokens_b is not None:
        add_strings("text_b", example.text_b)
        add_integers("tokens_b", example.tokens_b.tolist())
    if isinstance(example.label, tuple):
        add_integers("labels", example.label)
    elif isinstance(example.label, float):
        features["target"].float_list.value.append(example.label)
    else:
        add_integers("label", [example.label])
    if example.weight is not None:
        features["weight"].float_list.value.append(example.weight)
    if example.kept:
        add_strings("kept", json.dumps(example.kept, ensure_ascii=False))
    return record.SerializeToString(deterministic=True)


@dataclasses.dataclass(frozen=True)
class Ragged:
    """Rows of different lengths, concatenated: row r is values[starts[r] : starts[r + 1]]."""

    values: np.ndarray  # int32 [sum of lengths]
    starts: np.ndarray  # int64 [rows + 1]

    def lengths(self) -> np.ndarray:
        """int64 [rows]."""
        return np.diff(self.starts)

    def row(self, r: int) -> np.ndarray:
        """int32 [length of row r]."""
        return self.values[self.starts[r] : self.starts[r + 1]]


def to_ragged(rows: Sequence[np.ndarray]) -> Ragged:
    """Concatenate rows, each int32 [T]."""
    return Ragged(np.concatenate([*rows, np.zeros(0, np.int32)]).astype(np.int32), np.cumsum([0, *map(len, rows)]))


@dataclasses.dataclass(frozen=True)
class Columns:
    """Examples as columns of equal length. What ends in _b is None unless examples are pairs of texts."""

    ids: list[int | str]
    tokens: Ragged
    tokens_b: Ragged | None
    # int32 [rows], float32 [rows] for regression, or for several labels bool [rows, C]: a shuffle pool of 262,144 rows
    # and 1,000 labels has 0.26 GB of them, where float32 would have four times as much.
    labels: np.ndarray
    texts: list[str] | None  # None unless they were read with_text.
    texts_b: list[str] | None
    weights: np.ndarray | None = None  # float32 [rows], 0 or more. None if all are 1.
    kept: dict[str, list[str]] = dataclasses.field(default_factory=dict)  # By column. Read with the texts.

    def __len__(self) -> int:
        return len(self.ids)

    def lengths(self) -> np.ndarray:
        """int64 [rows]: tokens of the text or pair, without special tokens."""
        lengths = self.tokens.lengths()
        return lengths if self.tokens_b is None else lengths + self.tokens_b.lengths()


def concatenate(parts: Sequence[Columns]) -> Columns:
    """The rows of one or more columns of the same data set, one after another."""

    def join(name: str) -> list[Any] | None:
        lists = [getattr(part, name) for part in parts]
        return None if lists[0] is None else list(itertools.chain.from_iterable(lists))

    def join_ragged(name: str) -> Ragged | None:
        values: list[Ragged] = [getattr(part, name) for part in parts]
        if values[0] is None:
            return None
        starts = np.cumsum([0, *(each.starts[-1] for each in values)])
        moved = (each.starts[:-1] + start for each, start in zip(values, starts[:-1], strict=True))
        return Ragged(np.concatenate([each.values for each in values]), np.concatenate([*moved, starts[-1:]]))

    tokens, weights = join_ragged("tokens"), [part.weights for part in parts if part.weights is not None]
    assert tokens
    return Columns(
        ids=join("ids") or [],
        tokens=tokens,
        tokens_b=join_ragged("tokens_b"),
        labels=np.concatenate([part.labels for part in parts]),
        texts=join("texts"),
        texts_b=join("texts_b"),
        weights=np.concatenate(weights) if weights else None,
        kept={name: list(itertools.chain.from_iterable(part.kept[name] for part in parts)) for name in parts[0].kept},
    )


def read_shards(
    folder: str, shards: Sequence[manifests.Shard], manifest: manifests.Manifest, *, with_text: bool = False
) -> Columns:
    """The examples of `shards`, in their order. Each shard is compared with the manifest's size and checksum.

    Raises UserError, naming the shard, for the first that differs, and OSError if one cannot be read.
    """
    # One after another: what is parsed takes several times the memory of its columns.
    return concatenate(
        [
            parse_records(list(split_records(read_shard(folder, shard))), manifest, with_text=with_text)
            for shard in shards
        ]
    )


def read_split(folder: str, manifest: manifests.Manifest, split: str, *, with_text: bool = False) -> Columns:
    """The examples of a split of the data set in `folder`, in the order of its shards. Raises what read_shards does."""
    return read_shards(folder, manifest.splits[split].shards, manifest, with_text=with_text)


def check_shard_checksums(folder: str, shards: Sequence[manifests.Shard]) -> None:
    """Read every shard. Raises UserError, naming the shard, for the first that differs from its manifest."""
    for shard in shards:
        read_shard(folder, shard)


def read_shard(folder: str, shard: manifests.Shard) -> bytes:
    """A shard's bytes. Raises UserError, naming the shard, if its size or checksum is not the manifest's."""
    path = fs.join_inside(folder, shard.name)
    data = fs.read_bytes(path)
    checksum = fs.crc32c(data)
    if (len(data), checksum) != (shard.bytes, shard.crc32c):
        raise UserError(
            Problem(
                path,
                f"have the {shard.bytes:,} bytes and the CRC32C {shard.crc32c:08x} of its manifest",
                f"{len(data):,} bytes, CRC32C {checksum:08x}",
                "Prepare the data again.",
            )
        )
    return data


def split_records(data: bytes) -> Iterator[bytes]:
    """The records of a TFRecord file's bytes: for each its length (uint64), a CRC, the record, another CRC.

    TensorFlow would read the file a second time. The CRCs inside need no check: the shard's own checksum covers them.
    """
    start = 0
    while start < len(data):
        (length,) = struct.unpack_from("<Q", data, start)
        start += _LENGTH_AND_CRC_BYTES
        yield data[start : start + length]
        start += length + _CRC_BYTES


def parse_records(serialized: Sequence[bytes], manifest: manifests.Manifest, *, with_text: bool = False) -> Columns:
    """Records as columns. Texts and kept columns are parsed only with `with_text`."""
    label, label_feature = {
        "classification": ("label", tf.io.FixedLenFeature([], tf.int64)),
        "regression": ("target", tf.io.FixedLenFeature([], tf.float32)),
        "multi_label": ("labels", tf.io.RaggedFeature(tf.int64)),
    }[manifest.kind]
    pairs = manifest.texts == 2
    spec: dict[str, Any] = {
        "id": tf.io.FixedLenFeature([], tf.string),
        "tokens": tf.io.RaggedFeature(tf.int64),
        label: label_feature,
    }
    if pairs:
        spec["tokens_b"] = tf.io.RaggedFeature(tf.int64)
    if manifest.weighted:
        spec["weight"] = tf.io.FixedLenFeature([], tf.float32)
    if with_text:
        if manifest.kept_columns:
            spec["kept"] = tf.io.FixedLenFeature([], tf.string)
        spec["text"] = tf.io.FixedLenFeature([], tf.string)
        if pairs:
            spec["text_b"] = tf.io.FixedLenFeature([], tf.string)
    parsed = tf.io.parse_example(tf.constant(serialized, tf.string), spec)

    def strings(name: str) -> list[str] | None:
        return [value.decode("utf-8") for value in parsed[name].numpy()] if name in parsed else None

    def tokens(name: str) -> Ragged:
        return Ragged(parsed[name].values.numpy().astype(np.int32), parsed[name].row_splits.numpy().astype(np.int64))

    kept = [json.loads(values) for values in strings("kept") or []]
    return Columns(
        ids=[json.loads(value) for value in parsed["id"].numpy()],
        tokens=tokens("tokens"),
        tokens_b=tokens("tokens_b") if pairs else None,
        labels=_label_column(parsed[label], manifest),
        texts=strings("text"),
        texts_b=strings("text_b"),
        weights=parsed["weight"].numpy() if manifest.weighted else None,
        kept={name: [row[i] for row in kept] for i, name in enumerate(manifest.kept_columns)} if with_text else {},
    )


def _label_column(parsed: Any, manifest: manifests.Manifest) -> np.ndarray:
    """Columns.labels: a tensor [rows], or the indexes of several labels as a ragged one."""
    if manifest.kind != "multi_label":
        return parsed.numpy().astype(np.float32 if manifest.kind == "regression" else np.int32)
    labels = np.zeros((int(parsed.nrows()), manifest.classes), bool)
    labels[parsed.value_rowids().numpy(), parsed.values.numpy()] = True
    return labels

"""What a prepared data set holds: TFRecord shards of examples, and dataset.json, the manifest that vouches for them.

A record is a tf.train.Example:
  id        bytes [1]    the example's id as JSON: its row's number, or its file's path
  text      bytes [1]    as read; text_b: bytes [0 or 1], the second text of a pair
  tokens    int64 [T]    its tokens without special ones; tokens_b: int64 [0 or T_b]
  label     int64 [1]    the class, an index into the manifest's labels; or
  target    float [1]    the number, for regression
"""

import dataclasses
import json
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from trainer.data import manifests
from trainer.storage import fs


@dataclasses.dataclass(frozen=True)
class Example:
    id: int | str
    text: str
    text_b: str | None
    tokens: np.ndarray  # int32 [T]
    tokens_b: np.ndarray | None
    label: int | float  # a class's index (int), or a number (float)


def serialize_example(example: Example) -> bytes:
    def strings(*values: str) -> tf.train.Feature:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[v.encode("utf-8") for v in values]))

    def integers(values: Iterable[int]) -> tf.train.Feature:
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))

    features = {
        "id": strings(json.dumps(example.id)),
        "text": strings(example.text),
        "tokens": integers(example.tokens),
    }
    if example.text_b is not None and example.tokens_b is not None:
        features |= {"text_b": strings(example.text_b), "tokens_b": integers(example.tokens_b)}
    if isinstance(example.label, float):
        features["target"] = tf.train.Feature(float_list=tf.train.FloatList(value=[example.label]))
    else:
        features["label"] = integers([example.label])
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString(deterministic=True)


@dataclasses.dataclass(frozen=True)
class Ragged:
    """Rows of different lengths, laid end to end: row r is values[starts[r] : starts[r + 1]]."""

    values: np.ndarray  # int32
    starts: np.ndarray  # int64 [rows + 1]

    def lengths(self) -> np.ndarray:
        """int64 [rows]."""
        return np.diff(self.starts)

    def row(self, r: int) -> np.ndarray:
        return self.values[self.starts[r] : self.starts[r + 1]]


def to_ragged(rows: Sequence[np.ndarray]) -> Ragged:
    return Ragged(np.concatenate([*rows, np.zeros(0, np.int32)]).astype(np.int32), np.cumsum([0, *map(len, rows)]))


@dataclasses.dataclass(frozen=True)
class Columns:
    """Examples as columns."""

    ids: list[int | str]
    tokens: Ragged
    tokens_b: Ragged | None  # of pairs
    labels: np.ndarray  # int32 or float32 [rows]
    texts: list[str] | None  # where they were asked for
    texts_b: list[str] | None

    def __len__(self) -> int:
        return len(self.ids)

    def lengths(self) -> np.ndarray:
        """int64 [rows]: tokens of the text or pair, without special ones."""
        lengths = self.tokens.lengths()
        return lengths if self.tokens_b is None else lengths + self.tokens_b.lengths()


def read_shards(
    folder: str, shards: Sequence[manifests.Shard], manifest: manifests.Manifest, *, with_text: bool = False
) -> Columns:
    """The examples of `shards`, in their order, after holding each against its checksum and count.

    Raises ValueError naming the shard that is not the one the manifest describes.
    """
    serialized = [record for shard in shards for record in split_records(_read_shard(folder, shard))]
    return parse_records(serialized, manifest, with_text=with_text)


def check_shard_checksums(folder: str, shards: Sequence[manifests.Shard]) -> None:
    """Raises ValueError, naming the shard, for the first that is not the one its manifest describes. Reads them all."""
    for shard in shards:
        _read_shard(folder, shard)


def _read_shard(folder: str, shard: manifests.Shard) -> bytes:
    path = fs.join_inside(folder, shard.name)
    data = fs.read_bytes(path)
    if len(data) != shard.bytes or fs.crc32c(data) != shard.crc32c:
        raise ValueError(
            f"{path} is not the shard that its manifest describes: its size or CRC32C differs. Prepare the data again."
        )
    return data


def split_records(data: bytes) -> Iterator[bytes]:
    """The records of a TFRecord file's bytes: length uint64, CRC of it, the record, CRC of it, and again.

    By hand, so that a shard is fetched once, for its checksum and its records alike; the CRCs inside
    are covered by the shard's own.
    """
    place = 0
    while place < len(data):
        (length,) = struct.unpack_from("<Q", data, place)
        yield data[place + 12 : place + 12 + length]
        place += 16 + length


def parse_records(serialized: Sequence[bytes], manifest: manifests.Manifest, *, with_text: bool = False) -> Columns:
    number = manifest.kind == "regression"
    label = "target" if number else "label"
    spec: dict[str, Any] = {
        "id": tf.io.FixedLenFeature([], tf.string),
        "tokens": tf.io.RaggedFeature(tf.int64),
        label: tf.io.FixedLenFeature([], tf.float32 if number else tf.int64),
    }
    pair = manifest.texts == 2
    if pair:
        spec["tokens_b"] = tf.io.RaggedFeature(tf.int64)
    if with_text:
        spec["text"] = tf.io.FixedLenFeature([], tf.string)
        if pair:
            spec["text_b"] = tf.io.FixedLenFeature([], tf.string)
    parsed = tf.io.parse_example(tf.constant(serialized, tf.string), spec)

    def strings(name: str) -> list[str] | None:
        return [value.decode("utf-8") for value in parsed[name].numpy()] if name in parsed else None

    def tokens(name: str) -> Ragged:
        return Ragged(parsed[name].values.numpy().astype(np.int32), parsed[name].row_splits.numpy())

    return Columns(
        ids=[json.loads(value) for value in parsed["id"].numpy()],
        tokens=tokens("tokens"),
        tokens_b=tokens("tokens_b") if pair else None,
        labels=parsed[label].numpy().astype(np.float32 if number else np.int32),
        texts=strings("text"),
        texts_b=strings("text_b"),
    )

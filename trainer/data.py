"""Shards -> global batches, a function of (seed, step).

The epochs' shuffles are laid end to end into one stream of examples; global batch k is positions
k * B to (k + 1) * B of it. An epoch is cut into pools: all of it, or as many shards as hold
`shuffle_examples`. A pool is shuffled whole, so nothing of the order depends on who reads it, and a
run starts at any step by skipping the pools before it unread.

Shapes: B the global batch's rows, W its width (tokens of its longest text, padded), R replicas.
"""

import concurrent.futures
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from trainer import records, text
from trainer.records import Columns, Manifest, Ragged, Shard

# Texts are sorted by length within so many batches of the shuffle: enough for little padding, few
# enough that what a batch holds stays random.
SORTED_BATCHES = 50


@dataclasses.dataclass(frozen=True)
class Layout:
    """How examples become a batch of encoder inputs."""

    batch_size: int  # B, global
    seq_length: int
    truncation: str
    pad_multiple: int
    replicas: int
    parts: int = 1  # that each replica's share is computed in, one after another
    worker: int = 0  # this one, of
    workers: int = 1  # that have as many replicas each

    @property
    def rows(self) -> int:
        """Rows of a padded batch: B, rounded up to what the replicas and their parts divide. The others weigh 0."""
        shares = self.replicas * self.parts
        return -(-self.batch_size // shares) * shares

    @property
    def own_rows(self) -> range:
        """This worker's rows of a padded batch."""
        rows = self.rows // self.workers
        return range(self.worker * rows, (self.worker + 1) * rows)

    @property
    def static_width(self) -> int | None:
        """W where it is always the same, as a TPU wants it: every other width is a program to be compiled."""
        return self.seq_length if self.pad_multiple >= self.seq_length else None


@dataclasses.dataclass(frozen=True)
class Order:
    seed: int
    group_by_length: bool
    shuffle_examples: int


# --- The stream of examples -----------------------------------------------------------------------


def _random(seed: int, epoch: int, pool: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=(seed << 64) | (epoch << 32) | pool))


@dataclasses.dataclass(frozen=True)
class Pool:
    """A stretch of the stream: shards whose examples are shuffled together."""

    epoch: int
    number: int
    start: int  # the stream's position of its first example
    shards: tuple[Shard, ...]

    @property
    def examples(self) -> int:
        return sum(shard.examples for shard in self.shards)


def pools(shards: Sequence[Shard], order: Order) -> Iterator[Pool]:
    """The stream's pools, without end. In a data set of several, each epoch shuffles the shards over them."""
    start = epoch = 0
    whole = sum(shard.examples for shard in shards) <= order.shuffle_examples
    while True:
        left = (
            list(shards)
            if whole
            else [shards[i] for i in _random(order.seed, epoch, 0xFFFFFFFF).permutation(len(shards))]
        )
        number = 0
        while left:
            taken = [left.pop(0)]
            while left and sum(s.examples for s in taken) + left[0].examples <= order.shuffle_examples:
                taken.append(left.pop(0))
            pool = Pool(epoch, number, start, tuple(taken))
            yield pool
            start += pool.examples
            number += 1
        epoch += 1


def arrange(lengths: np.ndarray, pool: Pool, order: Order, batch_size: int) -> np.ndarray:
    """The order of a pool's rows, int64 [n]: shuffled, then batches of similar length if so ordered.

    Batches are cut where the stream's are: the first rows complete the batch that the pool before
    has begun.
    """
    random = _random(order.seed, pool.epoch, pool.number)
    shuffled = random.permutation(len(lengths))
    if not order.group_by_length:
        return shuffled
    begun = -pool.start % batch_size
    # Of a small data set a quarter at most, or its longest and shortest texts would meet again in every epoch.
    size = min(SORTED_BATCHES, max(len(lengths) // batch_size // 4, 8)) * batch_size
    batches = []
    for chunk in np.split(shuffled[begun:], range(size, len(lengths) - begun, size)):
        ranked = chunk[np.argsort(-lengths[chunk], kind="stable")]
        batches += np.split(ranked, range(batch_size, len(ranked), batch_size))
    # The last batch is the one that the next pool completes, if it is short: it stays last.
    last = [batches.pop()] if batches and len(batches[-1]) < batch_size else []
    return np.concatenate([shuffled[:begun], *(batches[i] for i in random.permutation(len(batches))), *last]).astype(
        np.int64
    )


def select(columns: Columns, rows: np.ndarray) -> Columns:
    """The columns of these rows, in this order, without texts."""

    def part(tokens: Ragged) -> Ragged:
        return records.ragged([tokens.row(row) for row in rows])

    return Columns(
        ids=[columns.ids[row] for row in rows],
        tokens=part(columns.tokens),
        tokens_b=part(columns.tokens_b) if columns.tokens_b else None,
        labels=columns.labels[rows],
        texts=None,
        texts_b=None,
    )


def _join(a: Columns, b: Columns) -> Columns:
    """The rows of `a`, then those of `b`."""

    def both(x: Ragged, y: Ragged) -> Ragged:
        return Ragged(np.concatenate([x.values, y.values]), np.concatenate([x.starts, y.starts[1:] + x.starts[-1]]))

    return Columns(
        ids=a.ids + b.ids,
        tokens=both(a.tokens, b.tokens),
        tokens_b=both(a.tokens_b, b.tokens_b) if a.tokens_b and b.tokens_b else None,
        labels=np.concatenate([a.labels, b.labels]),
        texts=None,
        texts_b=None,
    )


def train_batches(
    folder: str, manifest: Manifest, order: Order, batch_size: int, start_step: int, examples: int
) -> Iterator[Columns]:
    """Global batches from step `start_step` (0 is the first) until the stream's first `examples` are used.

    Only the very last may be short. Reads a pool at a time, the next in the background; a data set
    of one pool is read once.
    """
    shards = manifest.splits["train"].shards
    single: list[Columns] = []

    def load(pool: Pool) -> tuple[Pool, Columns]:
        if len(pool.shards) == len(shards):
            if not single:
                single.append(records.read_shards(folder, pool.shards, manifest))
            return pool, single[0]
        return pool, records.read_shards(folder, pool.shards, manifest)

    position = start_step * batch_size
    ahead = (pool for pool in pools(shards, order) if pool.start + pool.examples > position)
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        following = executor.submit(load, next(ahead))
        begun: Columns | None = None
        while position < examples:
            pool, columns = following.result()
            following = executor.submit(load, next(ahead))
            rows = arrange(columns.lengths(), pool, order, batch_size)[position - pool.start : examples - pool.start]
            while len(rows):
                wanted = batch_size - (len(begun) if begun else 0)
                part = select(columns, rows[:wanted])
                rows = rows[wanted:]
                position += len(part)
                begun = _join(begun, part) if begun else part
                if len(begun) == batch_size or position == examples:
                    yield begun
                    begun = None


def evaluation_order(columns: Columns) -> np.ndarray:
    """int64 [n]: longest first, so that memory's peak comes at once and batches have little padding."""
    return np.argsort(-columns.lengths(), kind="stable")


def evaluation_batches(columns: Columns, batch_size: int) -> Iterator[Columns]:
    """Every example once, in evaluation_order; the last batch may be short."""
    order = evaluation_order(columns)
    for start in range(0, len(order), batch_size):
        yield select(columns, order[start : start + batch_size])


# --- Batches as the model takes them --------------------------------------------------------------


def width(columns: Columns, layout: Layout) -> int:
    """W: the longest text with its special tokens, rounded up, at most seq_length."""
    longest = int(columns.lengths().max()) + text.special_count(2 if columns.tokens_b else 1)
    return min(-(-longest // layout.pad_multiple) * layout.pad_multiple, layout.seq_length)


def to_inputs(batches: Iterator[Columns], manifest: Manifest, layout: Layout) -> tf.data.Dataset:
    """This worker's share of the batches as a dataset of an element for each of its replicas in turn: dicts of
    input_word_ids, input_mask, input_type_ids: int32 [B / R, W]; label: int32 or float32 [B / R];
    weight: float32 [B / R], 0 for rows that only fill the batch up.
    """
    pair = manifest.texts == 2
    special = text.SpecialTokens(manifest.vocabulary.start, manifest.vocabulary.end, manifest.vocabulary.padding)
    label_type = tf.float32 if manifest.kind == "regression" else tf.int32
    rows = len(layout.own_rows)

    def arrays() -> Iterator[dict[str, Any]]:
        for columns in batches:
            own = columns
            if layout.workers > 1:
                own = select(columns, np.arange(len(columns))[layout.own_rows.start : layout.own_rows.stop])
            filling = rows - len(own)
            batch: dict[str, Any] = {
                "values": own.tokens.values,
                "lengths": np.pad(own.tokens.lengths(), (0, filling)),
                "label": np.pad(own.labels, (0, filling)),
                "weight": np.pad(np.ones(len(own), np.float32), (0, filling)),
                "width": np.int32(width(columns, layout)),  # of the whole batch: as on one machine
            }
            if own.tokens_b:
                batch["values_b"] = own.tokens_b.values
                batch["lengths_b"] = np.pad(own.tokens_b.lengths(), (0, filling))
            yield batch

    def packed(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        tokens = tf.RaggedTensor.from_row_lengths(batch["values"], batch["lengths"])
        tokens_b = tf.RaggedTensor.from_row_lengths(batch["values_b"], batch["lengths_b"]) if pair else None
        inputs = text.pack(tokens, tokens_b, special, layout.seq_length, layout.truncation, batch["width"])
        inputs = {name: tf.ensure_shape(value, [rows, layout.static_width]) for name, value in inputs.items()}
        return {**inputs, "label": batch["label"], "weight": batch["weight"]}

    replicas = layout.replicas // layout.workers

    def for_replicas(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {
            name: tf.reshape(value, [replicas, rows // replicas, *_sizes(value)[1:]]) for name, value in batch.items()
        }

    lengths = tf.TensorSpec([rows], tf.int64)
    values = tf.TensorSpec([None], tf.int32)
    signature = {
        "values": values,
        "lengths": lengths,
        "label": tf.TensorSpec([rows], label_type),
        "weight": tf.TensorSpec([rows], tf.float32),
        "width": tf.TensorSpec([], tf.int32),
        **({"values_b": values, "lengths_b": lengths} if pair else {}),
    }
    dataset = tf.data.Dataset.from_generator(arrays, output_signature=signature).map(packed, num_parallel_calls=1)
    if replicas > 1:
        dataset = dataset.map(for_replicas).unbatch()
    options = tf.data.Options()
    options.autotune.enabled = False  # nothing is left to it, and ending its thread takes up to a minute
    return dataset.prefetch(4 * replicas).with_options(options)


def _sizes(x: tf.Tensor) -> list[int | tf.Tensor]:
    """The shape, each dimension a number where it is known."""
    return [tf.shape(x)[i] if size is None else size for i, size in enumerate(x.shape)]

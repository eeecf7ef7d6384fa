"""Shards to global batches. The examples of a batch are a function of (seed, step).

The shuffled epochs, one after another, are a stream of examples. Global batch k is positions k * B to (k + 1) * B of
it, where B is the global batch size. An epoch is divided into pools: one pool of all shards, or pools of as many
shards as hold `shuffle_examples`. A pool is read completely and then shuffled, so the order does not depend on which
process reads it, and a run starts at any step by skipping the pools before it without reading them.
"""

import concurrent.futures
import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from trainer.data import records
from trainer.data.manifests import Manifest, Shard
from trainer.data.records import Columns, Ragged

# Texts are sorted by length within groups of this many shuffled batches: enough for little padding, few enough that
# the contents of a batch stay random.
BATCHES_PER_LENGTH_GROUP = 50
MIN_BATCHES_PER_LENGTH_GROUP = 8

# Takes the place of a pool's number in the random generator that shuffles the shards of an epoch.
_SHARDS_OF_AN_EPOCH = 0xFFFFFFFF


@dataclasses.dataclass(frozen=True)
class ShuffleOrder:
    """What the order of the training examples depends on, together with the manifest and the batch size."""

    seed: int
    group_by_length: bool  # Batches hold texts of similar length.
    shuffle_examples: int  # The most examples of a pool, unless a single shard has more.


def _random_generator(seed: int, epoch: int, pool: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=(seed << 64) | (epoch << 32) | pool))


@dataclasses.dataclass(frozen=True)
class Pool:
    """Shards whose examples are shuffled together: a contiguous part of the stream."""

    epoch: int
    number: int  # Counts from 0 in each epoch.
    start: int  # The position of its first example in the stream.
    shards: tuple[Shard, ...]

    @property
    def examples(self) -> int:
        return sum(shard.examples for shard in self.shards)


def iterate_pools(shards: Sequence[Shard], order: ShuffleOrder) -> Iterator[Pool]:
    """The pools of the stream, without end. Each epoch assigns the shards to its pools at random, if it has several."""
    start = epoch = 0
    one_pool = sum(shard.examples for shard in shards) <= order.shuffle_examples
    while True:
        remaining = list(shards)
        if not one_pool:
            random = _random_generator(order.seed, epoch, _SHARDS_OF_AN_EPOCH)
            remaining = [shards[i] for i in random.permutation(len(shards))]
        number = 0
        while remaining:
            selected = [remaining.pop(0)]
            while remaining and sum(s.examples for s in (*selected, remaining[0])) <= order.shuffle_examples:
                selected.append(remaining.pop(0))
            pool = Pool(epoch, number, start, tuple(selected))
            yield pool
            start += pool.examples
            number += 1
        epoch += 1


def shuffle_pool(lengths: np.ndarray, pool: Pool, order: ShuffleOrder, batch_size: int) -> np.ndarray:
    """The order of a pool's rows, int64 [rows]. `lengths`: int64 [rows].

    With group_by_length the rows are sorted by length within groups, and the batches are then shuffled. Batch limits
    are those of the stream: the pool's first rows complete the last batch of the pool before.
    """
    random = _random_generator(order.seed, pool.epoch, pool.number)
    shuffled = random.permutation(len(lengths))
    if not order.group_by_length:
        return shuffled
    first = -pool.start % batch_size
    # At most a quarter of a small data set, or its longest texts would be in one batch again in every epoch.
    group_batches = max(len(lengths) // batch_size // 4, MIN_BATCHES_PER_LENGTH_GROUP)
    group_rows = min(BATCHES_PER_LENGTH_GROUP, group_batches) * batch_size
    batches = []
    for group in np.split(shuffled[first:], range(group_rows, len(lengths) - first, group_rows)):
        longest_first = group[np.argsort(-lengths[group], kind="stable")]
        batches += np.split(longest_first, range(batch_size, len(group), batch_size))
    # A short last batch stays last: the next pool completes it.
    last = [batches.pop()] if batches and len(batches[-1]) < batch_size else []
    order_of_batches = random.permutation(len(batches))
    return np.concatenate([shuffled[:first], *(batches[i] for i in order_of_batches), *last]).astype(np.int64)


def select_rows(columns: Columns, rows: np.ndarray) -> Columns:
    """These rows, in this order, without their texts. `rows`: int64 [selected rows]."""

    def select(tokens: Ragged) -> Ragged:
        return records.to_ragged([tokens.row(row) for row in rows])

    return Columns(
        ids=[columns.ids[row] for row in rows],
        tokens=select(columns.tokens),
        tokens_b=select(columns.tokens_b) if columns.tokens_b else None,
        labels=columns.labels[rows],
        texts=None,
        texts_b=None,
        weights=None if columns.weights is None else columns.weights[rows],
    )


def train_batches(
    folder: str, manifest: Manifest, order: ShuffleOrder, batch_size: int, start_step: int, examples: int
) -> Iterator[Columns]:
    """Global batches from step `start_step` (0 is the first) until the stream's first `examples` are used.

    Only the very last batch may be short. One pool is in memory while a thread reads the next; a data set of one pool
    is read once. Raises what records.read_shards does.
    """
    shards = manifest.splits["train"].shards
    all_shards: list[Columns] = []  # A data set of one pool, once it was read.

    def load(pool: Pool) -> tuple[Pool, Columns]:
        if len(pool.shards) < len(shards):
            return pool, records.read_shards(folder, pool.shards, manifest)
        if not all_shards:
            all_shards.append(records.read_shards(folder, pool.shards, manifest))
        return pool, all_shards[0]

    position = start_step * batch_size
    pools = (pool for pool in iterate_pools(shards, order) if pool.start + pool.examples > position)
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        loading = executor.submit(load, next(pools))
        incomplete: Columns | None = None
        while position < examples:
            pool, columns = loading.result()
            following = next(pools)
            if following.start < examples:
                loading = executor.submit(load, following)
            rows = shuffle_pool(columns.lengths(), pool, order, batch_size)
            rows = rows[position - pool.start : examples - pool.start]
            while len(rows):
                missing = batch_size - (len(incomplete) if incomplete else 0)
                selected = select_rows(columns, rows[:missing])
                rows = rows[missing:]
                position += len(selected)
                incomplete = records.concatenate([incomplete, selected]) if incomplete else selected
                if len(incomplete) == batch_size or position == examples:
                    yield incomplete
                    incomplete = None


def evaluation_order(columns: Columns) -> np.ndarray:
    """int64 [rows]: longest first, so that batches have little padding and the largest comes first."""
    return np.argsort(-columns.lengths(), kind="stable")


def evaluation_batches(columns: Columns, sizes: Sequence[int]) -> Iterator[Columns]:
    """Every example once, in evaluation_order, in batches of these sizes; the last batch may be short."""
    order = evaluation_order(columns)
    for rows in np.split(order, np.cumsum(sizes)[:-1]):
        yield select_rows(columns, rows)

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

import numpy as np

from trainer.data import records
from trainer.data.manifests import Manifest, Shard
from trainer.data.records import Columns, Ragged

# Texts are sorted by length within so many batches of the shuffle: enough for little padding, few
# enough that what a batch holds stays random.
SORTED_BATCHES = 50


@dataclasses.dataclass(frozen=True)
class ShuffleOrder:
    seed: int
    group_by_length: bool
    shuffle_examples: int


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


def iterate_pools(shards: Sequence[Shard], order: ShuffleOrder) -> Iterator[Pool]:
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


def shuffle_pool(lengths: np.ndarray, pool: Pool, order: ShuffleOrder, batch_size: int) -> np.ndarray:
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


def select_rows(columns: Columns, rows: np.ndarray) -> Columns:
    """The columns of these rows, in this order, without texts."""

    def part(tokens: Ragged) -> Ragged:
        return records.to_ragged([tokens.row(row) for row in rows])

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
    folder: str, manifest: Manifest, order: ShuffleOrder, batch_size: int, start_step: int, examples: int
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
    ahead = (pool for pool in iterate_pools(shards, order) if pool.start + pool.examples > position)
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        following = executor.submit(load, next(ahead))
        begun: Columns | None = None
        while position < examples:
            pool, columns = following.result()
            following = executor.submit(load, next(ahead))
            rows = shuffle_pool(columns.lengths(), pool, order, batch_size)[
                position - pool.start : examples - pool.start
            ]
            while len(rows):
                wanted = batch_size - (len(begun) if begun else 0)
                part = select_rows(columns, rows[:wanted])
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
        yield select_rows(columns, order[start : start + batch_size])

"""The order of the training stream and its batches, on shards of texts of random lengths."""

import dataclasses
import itertools

import numpy as np
import pytest

from trainer.data import batching, manifests, records
from trainer.errors import UserError

TOTAL = 203  # Examples of the corpus.
BATCH = 16


@pytest.fixture(scope="module")
def corpus(write_corpus, tmp_path_factory) -> tuple[str, manifests.Manifest]:
    folder = tmp_path_factory.mktemp("corpus")
    return str(folder), write_corpus(folder)


def batches(corpus, order, start=0, examples=3 * TOTAL, batch_size=BATCH):
    return list(batching.train_batches(*corpus, order, batch_size, start, examples))


def ids(stream) -> list[int]:
    return [i for columns in stream for i in columns.ids]


# One pool of all shards; pools of some shards; a pool for each shard, one of them smaller than a batch.
ORDERS = [
    batching.ShuffleOrder(7, grouped, pool) for grouped, pool in itertools.product((False, True), (1 << 18, 95, 1))
]
orders = pytest.mark.parametrize(
    "order", ORDERS, ids=lambda o: f"{'grouped' if o.group_by_length else 'plain'}-{o.shuffle_examples}"
)


@orders
def test_an_epoch_has_every_example_once_in_an_order_of_its_own(corpus, order):
    stream = ids(batches(corpus, order))
    epochs = [stream[start : start + TOTAL] for start in range(0, len(stream), TOTAL)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(TOTAL))] * 3
    for a, b in itertools.combinations([list(range(TOTAL)), *epochs], 2):
        assert sum(x == y for x, y in zip(a, b, strict=True)) < TOTAL / 10


@orders
def test_a_batch_does_not_depend_on_the_step_a_run_starts_at(corpus, order):
    from_the_first = [columns.ids for columns in batches(corpus, order, examples=2 * TOTAL + 5)]
    for start in range(len(from_the_first) + 1):
        resumed = batches(corpus, order, start, examples=2 * TOTAL + 5)
        assert [columns.ids for columns in resumed] == from_the_first[start:]


@orders
def test_only_the_last_batch_of_several_epochs_is_short(corpus, order):
    sizes = [len(columns) for columns in batches(corpus, order, examples=2 * TOTAL + 5)]
    assert TOTAL % BATCH  # An epoch ends inside a batch.
    assert sizes[:-1] == [BATCH] * ((2 * TOTAL + 5) // BATCH)
    assert sizes[-1] == (2 * TOTAL + 5) % BATCH
    assert {len(columns) for columns in batches(corpus, order, examples=20 * BATCH)} == {BATCH}


@orders
def test_an_example_keeps_its_own_tokens_and_label(corpus, order):
    for columns in batches(corpus, order, start=5, examples=TOTAL + 40):
        for row, number in enumerate(columns.ids):
            assert set(columns.tokens.row(row).tolist()) <= {1000 + number}
            assert columns.labels[row] == number % 3


def test_a_batch_keeps_the_weights_of_its_rows(corpus):
    (columns,) = batching.train_batches(*corpus, ORDERS[0], 8, 0, 8)
    weighted = dataclasses.replace(columns, weights=np.arange(8, dtype=np.float32))
    assert batching.select_rows(weighted, np.array([5, 2])).weights.tolist() == [5, 2]
    assert columns.weights is None


@pytest.mark.parametrize("pool", [1 << 18, 95, 1])
def test_the_order_does_not_depend_on_the_batch_size(corpus, pool):
    order = batching.ShuffleOrder(7, False, pool)
    assert ids(batches(corpus, order, batch_size=7)) == ids(batches(corpus, order, batch_size=64))


@orders
def test_the_seed_decides_the_order(corpus, order):
    other = batching.ShuffleOrder(8, order.group_by_length, order.shuffle_examples)
    assert ids(batches(corpus, order)) == ids(batches(corpus, order))
    assert ids(batches(corpus, order)) != ids(batches(corpus, other))


def padding_tokens(stream) -> int:
    return sum(int(columns.lengths().max()) * len(columns) - int(columns.lengths().sum()) for columns in stream)


@pytest.mark.parametrize("pool", [1 << 18, 95])
def test_grouping_by_length_pads_less_and_shuffles_batches(corpus, pool):
    plain, grouped = (batches(corpus, batching.ShuffleOrder(7, g, pool)) for g in (False, True))
    assert padding_tokens(grouped) < padding_tokens(plain) / 2
    longest = [int(columns.lengths().max()) for columns in grouped]
    assert longest != sorted(longest)
    assert longest != sorted(longest, reverse=True)


def test_no_more_is_read_than_is_used(corpus, monkeypatch):
    read = []
    load = records.read_shards
    monkeypatch.setattr(
        records, "read_shards", lambda folder, shards, *rest: read.append(1) or load(folder, shards, *rest)
    )
    shards = len(corpus[1].splits["train"].shards)
    batches(corpus, batching.ShuffleOrder(7, False, 1), examples=TOTAL)
    assert len(read) == shards


def test_a_corrupt_shard_is_named(write_corpus, tmp_path):
    manifest = write_corpus(tmp_path)
    path = tmp_path / manifest.splits["train"].shards[1].name
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=path.name):
        batches((str(tmp_path), manifest), batching.ShuffleOrder(7, False, 95))


def test_evaluation_reads_every_example_once_longest_first(corpus):
    folder, manifest = corpus
    columns = records.read_split(folder, manifest, "train")
    stream = list(batching.evaluation_batches(columns, [100, 100, 100]))
    assert [len(batch) for batch in stream] == [100, 100, 3]
    assert [len(batch) for batch in batching.evaluation_batches(columns, [150, 53])] == [150, 53]
    assert sorted(ids(stream)) == list(range(TOTAL))
    lengths = np.concatenate([batch.lengths() for batch in stream])
    assert (np.diff(lengths) <= 0).all()
    assert ids(stream) == [columns.ids[row] for row in batching.evaluation_order(columns)]

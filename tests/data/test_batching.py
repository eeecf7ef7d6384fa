"""The stream of examples, and the batches cut from it, on shards of random lengths."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from trainer.data import batching, manifests, model_inputs, records
from trainer.data.records import Example
from trainer.storage import fs

SIZES = (50, 41, 3, 60, 49)  # of the shards
TOTAL = sum(SIZES)
BATCH = 16
START, END, PADDING = 101, 102, 0


def write(folder, *, kind="classification", texts=1) -> manifests.Manifest:
    """Shards of texts of 0 to 40 tokens, each its example's number, and their manifest."""
    rng = np.random.default_rng(0)
    shards, number = [], 0
    for index, size in enumerate(SIZES):
        name = manifests.shard_name("train", index, len(SIZES))
        with tf.io.TFRecordWriter(str(folder / name)) as writer:
            for _ in range(size):
                a, b = (np.full(rng.integers(0, 41), 1000 + number, np.int32) for _ in range(2))
                label = number % 3 if kind == "classification" else number / 2
                writer.write(
                    records.serialize_example(
                        Example(number, "a", *(("b", a, b) if texts == 2 else (None, a, None)), label)
                    )
                )
                number += 1
        content = (folder / name).read_bytes()
        shards.append(manifests.Shard(name, size, len(content), fs.crc32c(content)))
    return manifests.Manifest(
        task="csv",
        kind=kind,
        texts=texts,
        labels=("a", "b", "c") if kind == "classification" else (),
        encoder="",
        vocabulary=manifests.Vocabulary("", 2000, True, START, END, PADDING),
        seed=0,
        splits={"train": manifests.Split(TOTAL, tuple(shards), {}, {}, {})},
        removed={},
    )


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    return str(folder), write(folder)


def batches(corpus, order, start=0, examples=3 * TOTAL, batch_size=BATCH):
    return list(batching.train_batches(*corpus, order, batch_size, start, examples))


def ids(found) -> list[int]:
    return [i for columns in found for i in columns.ids]


# All in memory; pools of some shards; each shard a pool, one of them smaller than a batch.
ORDERS = [
    batching.ShuffleOrder(7, grouped, pool) for grouped, pool in itertools.product((False, True), (1 << 18, 95, 1))
]
orders = pytest.mark.parametrize(
    "order", ORDERS, ids=lambda o: f"{'grouped' if o.group_by_length else 'plain'}-{o.shuffle_examples}"
)


@orders
def test_an_epoch_has_every_example_once_and_the_next_another_order(corpus, order):
    stream = ids(batches(corpus, order))
    epochs = [stream[start : start + TOTAL] for start in range(0, len(stream), TOTAL)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(TOTAL))] * 3
    for a, b in itertools.combinations([list(range(TOTAL)), *epochs], 2):
        assert sum(x == y for x, y in zip(a, b, strict=True)) < TOTAL / 10


@orders
def test_a_batch_is_the_same_wherever_the_run_began(corpus, order):
    whole = [columns.ids for columns in batches(corpus, order, examples=2 * TOTAL + 5)]
    for start in range(len(whole) + 1):
        again = batches(corpus, order, start, examples=2 * TOTAL + 5)
        assert [columns.ids for columns in again] == whole[start:]


@orders
def test_batches_are_full_though_epochs_end_inside_them_and_only_the_last_is_short(corpus, order):
    sizes = [len(columns) for columns in batches(corpus, order, examples=2 * TOTAL + 5)]
    assert TOTAL % BATCH  # the epoch ends inside a batch
    assert sizes[:-1] == [BATCH] * ((2 * TOTAL + 5) // BATCH)
    assert sizes[-1] == (2 * TOTAL + 5) % BATCH
    assert {len(columns) for columns in batches(corpus, order, examples=20 * BATCH)} == {BATCH}


@orders
def test_an_example_keeps_its_own_tokens_and_label(corpus, order):
    for columns in batches(corpus, order, start=5, examples=TOTAL + 40):
        for row, number in enumerate(columns.ids):
            assert set(columns.tokens.row(row).tolist()) <= {1000 + number}
            assert columns.labels[row] == number % 3


@pytest.mark.parametrize("pool", [1 << 18, 95, 1])
def test_the_order_does_not_depend_on_the_batch_size(corpus, pool):
    order = batching.ShuffleOrder(7, False, pool)
    assert ids(batches(corpus, order, batch_size=7)) == ids(batches(corpus, order, batch_size=64))


@orders
def test_the_seed_decides_the_order(corpus, order):
    other = batching.ShuffleOrder(8, order.group_by_length, order.shuffle_examples)
    assert ids(batches(corpus, order)) == ids(batches(corpus, order))
    assert ids(batches(corpus, order)) != ids(batches(corpus, other))


def padding(found) -> int:
    return sum(int(columns.lengths().max()) * len(columns) - int(columns.lengths().sum()) for columns in found)


@pytest.mark.parametrize("pool", [1 << 18, 95])
def test_grouping_by_length_pads_less_and_mixes_the_batches(corpus, pool):
    plain, grouped = (batches(corpus, batching.ShuffleOrder(7, g, pool)) for g in (False, True))
    assert padding(grouped) < padding(plain) / 2
    longest = [int(columns.lengths().max()) for columns in grouped]
    assert longest != sorted(longest)
    assert longest != sorted(longest, reverse=True)


def test_a_shard_that_was_changed_is_named(tmp_path):
    manifest = write(tmp_path)
    path = tmp_path / manifest.splits["train"].shards[1].name
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{path.name} is not the shard that its manifest describes"):
        batches((str(tmp_path), manifest), batching.ShuffleOrder(7, False, 95))


def test_evaluation_has_every_example_once_longest_first(corpus):
    folder, manifest = corpus
    columns = records.read_shards(folder, manifest.splits["train"].shards, manifest)
    found = list(batching.evaluation_batches(columns, 100))
    assert [len(part) for part in found] == [100, 100, 3]
    assert sorted(ids(found)) == list(range(TOTAL))
    lengths = np.concatenate([part.lengths() for part in found])
    assert (np.diff(lengths) <= 0).all()
    assert ids(found) == [columns.ids[row] for row in batching.evaluation_order(columns)]


# --- Batches as the model takes them --------------------------------------------------------------


def layout(replicas=1, **changes) -> model_inputs.BatchLayout:
    return model_inputs.BatchLayout(
        **dict(batch_size=5, seq_length=32, truncation="head", pad_multiple=8, replicas=replicas) | changes
    )


def inputs(corpus, layout, examples=18, order=ORDERS[0]):
    """The dataset's elements as NumPy arrays, and the examples they were made of."""
    columns = batches(corpus, order, examples=examples, batch_size=layout.batch_size)
    return list(model_inputs.to_model_inputs(iter(columns), corpus[1], layout).as_numpy_iterator()), columns


def test_rows_are_the_texts_between_special_tokens(corpus):
    found, columns = inputs(corpus, layout())
    assert [len(batch["weight"]) for batch in found] == [5] * 4
    for batch, part in zip(found, columns, strict=True):
        width = batch["input_word_ids"].shape[1]
        longest = min(part.lengths().max() + 2, 32)
        assert longest <= width < longest + 8
        assert width % 8 == 0
        for row in range(len(part)):
            tokens = [START, *part.tokens.row(row)[:30].tolist(), END]
            assert batch["input_word_ids"][row].tolist() == tokens + [PADDING] * (width - len(tokens))
            assert batch["input_mask"][row].tolist() == [1] * len(tokens) + [0] * (width - len(tokens))
        assert not batch["input_type_ids"].any()
        assert batch["label"][: len(part)].tolist() == part.labels.tolist()


def test_a_width_is_never_beyond_seq_length(corpus):
    found, _ = inputs(corpus, layout(seq_length=30, pad_multiple=16))
    assert max(batch["input_word_ids"].shape[1] for batch in found) == 30


def test_reading_ends_at_once(corpus):
    # Where TensorFlow tunes a dataset's parallelism, a thread of it sleeps for up to a minute between two looks, and
    # letting go of the iterator waits for it: a run would end, or stop after a signal, so much later.
    assert model_inputs.to_model_inputs(iter(()), corpus[1], layout()).options().autotune.enabled is False


def test_rows_that_only_fill_up_weigh_nothing(corpus):
    found, _ = inputs(corpus, layout(), examples=18)
    assert [batch["weight"].tolist() for batch in found] == [[1] * 5] * 3 + [[1, 1, 1, 0, 0]]


@pytest.mark.parametrize("replicas", [2, 3])
def test_replicas_share_the_rows_of_one_batch_in_order(corpus, replicas):
    one, _ = inputs(corpus, layout())
    many, _ = inputs(corpus, layout(replicas))
    assert len(many) == replicas * len(one)
    for k, batch in enumerate(one):
        shares = many[k * replicas : (k + 1) * replicas]
        assert {len(share["weight"]) for share in shares} == {2 if replicas == 3 else 3}
        joined = {name: np.concatenate([share[name] for share in shares]) for name in batch}
        assert joined["weight"].sum() == batch["weight"].sum()
        for name, value in batch.items():
            assert (joined[name][:5] == value).all(), name
        assert not joined["weight"][5:].any()


def test_pairs_have_two_types(tmp_path):
    found, columns = inputs((str(tmp_path), write(tmp_path, texts=2)), layout(seq_length=128))
    for batch, part in zip(found, columns, strict=True):
        for row in range(len(part)):
            a, b = part.tokens.row(row).tolist(), part.tokens_b.row(row).tolist()
            used = len(a) + len(b) + 3
            assert batch["input_word_ids"][row, :used].tolist() == [START, *a, END, *b, END]
            assert batch["input_type_ids"][row, :used].tolist() == [0] * (len(a) + 2) + [1] * (len(b) + 1)
            assert batch["input_mask"][row].sum() == used


def test_numbers_stay_numbers(tmp_path):
    found, columns = inputs((str(tmp_path), write(tmp_path, kind="regression")), layout())
    assert found[0]["label"].dtype == np.float32
    assert found[0]["label"].tolist() == [number / 2 for number in columns[0].ids]


# --- Several workers ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("replicas", "parts", "workers", "rows"),
    [(1, 1, 1, 5), (2, 1, 2, 6), (4, 1, 2, 8), (2, 3, 2, 6), (3, 2, 3, 6), (4, 2, 4, 8), (6, 1, 3, 6), (8, 1, 2, 8)],
)
def test_every_row_is_one_workers_own(replicas, parts, workers, rows):
    each = [layout(replicas, parts=parts, workers=workers, worker=worker) for worker in range(workers)]
    assert {one.rows for one in each} == {rows}
    assert [row for one in each for row in one.own_rows] == list(range(rows))
    assert {len(one.own_rows) for one in each} == {rows // workers}
    assert rows // replicas % parts == 0


@pytest.fixture(scope="module")
def any_corpus(request, tmp_path_factory):
    """Of the kind that the test asks for."""
    folder = tmp_path_factory.mktemp("any")
    changes = {"texts": {}, "pairs": {"texts": 2}, "numbers": {"kind": "regression"}}[request.param]
    return str(folder), write(folder, **changes)


# 18 examples: 3 rows in the last batch, which ends inside a share; 16: 1, so that other workers have none.
@pytest.mark.parametrize(
    ("any_corpus", "replicas", "parts", "workers", "examples"),
    [
        ("texts", 2, 3, 2, 18),
        ("texts", 4, 1, 2, 16),
        ("pairs", 2, 1, 2, 16),
        ("pairs", 3, 2, 3, 18),
        ("numbers", 2, 1, 2, 16),
    ],
    indirect=["any_corpus"],
)
def test_workers_have_the_shares_that_one_process_with_as_many_replicas_has(
    any_corpus, replicas, parts, workers, examples
):
    together, columns = inputs(any_corpus, layout(replicas, parts=parts), examples)
    own = replicas // workers
    assert len(together) == len(columns) * replicas
    for worker in range(workers):
        alone, _ = inputs(any_corpus, layout(replicas, parts=parts, worker=worker, workers=workers), examples)
        assert len(alone) == len(columns) * own
        for k in range(len(columns)):
            shares = together[k * replicas + worker * own :][:own]
            for share, mine in zip(shares, alone[k * own : (k + 1) * own], strict=True):
                assert share.keys() == mine.keys()
                for name, value in share.items():
                    assert mine[name].dtype == value.dtype
                    assert mine[name].shape == value.shape  # its width is of the whole batch
                    assert (mine[name] == value).all(), name


@pytest.mark.parametrize(("any_corpus", "replicas"), [("texts", 4), ("pairs", 2)], indirect=["any_corpus"])
def test_the_halves_of_two_workers_are_the_batch_of_one_process(any_corpus, replicas):
    whole, columns = inputs(any_corpus, layout())
    halves = [inputs(any_corpus, layout(replicas, worker=worker, workers=2))[0] for worker in range(2)]
    own = replicas // 2
    for k, batch in enumerate(whole):
        shares = [share for half in halves for share in half[k * own : (k + 1) * own]]
        joined = {name: np.concatenate([share[name] for share in shares]) for name in batch}
        for name, value in batch.items():
            assert (joined[name][:5] == value).all(), name
        assert joined["weight"].sum() == len(columns[k])
        assert not joined["weight"][5:].any()


def test_a_width_is_static_where_it_is_always_the_same(corpus):
    for padding, expected in ((8, None), (16, None), (32, 32), (64, 32)):
        chosen = layout(2, pad_multiple=padding, worker=1, workers=2)
        assert chosen.static_width == expected
        spec = model_inputs.to_model_inputs(iter(()), corpus[1], chosen).element_spec
        assert {tuple(spec[name].shape) for name in ("input_word_ids", "input_mask", "input_type_ids")} == {
            (3, expected)
        }
        assert {tuple(spec[name].shape) for name in ("label", "weight")} == {(3,)}
    found, _ = inputs(corpus, layout(2, pad_multiple=32))
    assert {batch["input_word_ids"].shape for batch in found} == {(3, 32)}

import collections
import itertools
import time

import numpy as np
import pytest

from trainer.data import stratification


def draw_sets(rows, labels, per_row, seed=0):
    """Sets of labels of very different frequencies, `per_row` labels in the mean."""
    rng = np.random.default_rng(seed)
    shares = np.minimum(rng.dirichlet(np.full(labels, 0.7)) * per_row, 0.9)
    chosen = rng.random((rows, labels)) < shares
    return [tuple(f"label {column:02d}" for column in np.flatnonzero(row)) for row in chosen]


def draw(sets, texts=None, fraction=0.1, seed=0):
    texts = np.arange(len(sets)) if texts is None else texts
    keys = np.random.default_rng(seed).integers(0, 1 << 62, texts.max() + 1).astype(np.uint64)
    return stratification.draw_texts(sets, texts, keys, fraction, 0.1)


def label_rows(sets, chosen=None):
    chosen = itertools.repeat(True) if chosen is None else chosen
    return collections.Counter(name for names, one in zip(sets, chosen, strict=False) if one for name in names)


@pytest.mark.parametrize(
    ("rows", "labels", "per_row", "fraction"),
    [(300, 3, 2, 0.1), (300, 10, 3, 0.2), (1000, 20, 3, 0.1), (5000, 28, 1.2, 1 / 9), (2000, 77, 4, 0.1)],
)
def test_every_label_has_its_share(rows, labels, per_row, fraction):
    sets = draw_sets(rows, labels, per_row)
    drawn = draw(sets, fraction=fraction)
    total, found = label_rows(sets), label_rows(sets, drawn)
    assert drawn.sum() == round(rows * fraction)
    assert all(abs(found[name] - fraction * count) <= 2 for name, count in total.items())
    assert all(found[name] < count for name, count in total.items())  # At least one row of each remains.


def test_frequent_combinations_and_rows_without_labels_have_their_share():
    sets = [("a", "b"), ("a",), ("b",), ()] * 100 + [("a", "c")] * 40
    drawn = draw(sets)
    counts = collections.Counter(names for names, one in zip(sets, drawn, strict=True) if one)
    assert counts == {("a", "b"): 10, ("a",): 10, ("b",): 10, (): 10, ("a", "c"): 4}


def test_copies_count_with_their_text_and_frequent_texts_remain():
    rng = np.random.default_rng(1)
    texts = np.concatenate([np.arange(400), rng.integers(0, 400, 400), np.full(200, 400)])
    of_text = [*draw_sets(400, 6, 2), ("label 00",)]
    sets = [of_text[text] for text in texts]
    drawn = draw(sets, texts)
    assert not drawn[400]
    total, found = label_rows(sets), label_rows(sets, drawn[texts])
    assert abs(drawn[texts].sum() - 100) <= 1
    assert all(abs(found[name] - count / 10) <= 6 for name, count in total.items())


def test_some_text_is_drawn_and_some_text_of_each_label_remains():
    sets = [(f"label {row}",) for row in range(12)]
    assert draw(sets).sum() == 0  # Every label has one text.
    sets = [(f"label {row // 2}", "all") for row in range(20)]
    drawn = draw(sets)
    assert drawn.sum() == 2
    assert label_rows(sets, ~drawn).keys() == label_rows(sets).keys()


def test_the_keys_and_not_the_order_of_rows_decide():
    sets = draw_sets(500, 8, 2)
    first, other = draw(sets), draw(sets, seed=1)
    assert not np.array_equal(first, other)
    order = np.random.default_rng(2).permutation(500)
    assert np.array_equal(draw([sets[row] for row in order], order), first)


def test_a_hundred_thousand_rows_take_seconds():
    sets = draw_sets(100_000, 77, 3)
    started = time.process_time()
    drawn = draw(sets)
    assert time.process_time() - started < 20
    total, found = label_rows(sets), label_rows(sets, drawn)
    assert all(abs(found[name] - count / 10) <= 10 for name, count in total.items())

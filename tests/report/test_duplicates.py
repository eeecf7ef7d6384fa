"""Near-duplicates across splits."""

import numpy as np
import pytest

from trainer.data.records import to_ragged
from trainer.report import duplicates


def similarity(a, b):
    sets = [{tuple(row[i : i + 3]) for i in range(len(row) - 2)} for row in (a, b)]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def changed(row, count, rng):
    """The row with `count` of its tokens replaced."""
    row = row.copy()
    row[rng.choice(len(row), count, replace=False)] = rng.integers(5000, 6000, count)
    return row


def test_almost_the_same_texts_are_found_and_others_are_not(rng):
    train = [rng.integers(0, 5000, rng.integers(40, 300)).astype(np.int32) for _ in range(300)]
    near = [changed(train[i], 2, rng) for i in range(100)]
    far = [rng.integers(0, 5000, 100).astype(np.int32) for _ in range(200)]
    found = duplicates.find_near_duplicates(to_ragged([*near, *far]), to_ragged(train))
    expected = [i for i in range(100) if similarity(near[i], train[i]) >= duplicates.MIN_SIMILARITY]
    assert len(expected) > 90
    assert found.rows.tolist() == expected
    assert found.others.tolist() == expected
    assert found.similarities == pytest.approx([similarity(near[i], train[i]) for i in expected])


def test_half_changed_texts_are_none(rng):
    train = [rng.integers(0, 5000, 60).astype(np.int32) for _ in range(50)]
    found = duplicates.find_near_duplicates(to_ragged([changed(row, 30, rng) for row in train]), to_ragged(train))
    assert not len(found.rows)


def test_texts_too_short_to_compare_have_none():
    rows = to_ragged([np.array([], np.int32), np.array([1], np.int32), np.array([1, 2], np.int32)])
    assert not len(duplicates.find_near_duplicates(rows, rows).rows)


def test_empty_rows_do_not_shift_others():
    row, empty = np.arange(20, dtype=np.int32), np.zeros(0, np.int32)
    found = duplicates.find_near_duplicates(to_ragged([empty, row, empty]), to_ragged([empty, empty, row]))
    assert (found.rows.tolist(), found.others.tolist(), found.similarities.tolist()) == ([1], [2], [1.0])


def test_one_text_a_thousand_times_costs_little(rng):
    row = rng.integers(0, 100, 30).astype(np.int32)
    assert len(duplicates.find_near_duplicates(to_ragged([row] * 2000), to_ragged([row] * 2000)).rows) == 2000

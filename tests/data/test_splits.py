import collections

import numpy as np
import pytest

from trainer.data import splits
from trainer.data.sources import Row
from trainer.errors import UserError


def ids(rows):
    return [row.id for row in rows]


def counts(rows):
    return dict(collections.Counter(row.label for row in rows))


def test_one_source_is_split_80_10_10_in_every_class(make_rows):
    parts, duplicates = splits.split_rows(make_rows({"good": 700, "bad": 200, "meh": 100}), "classification", 0)
    assert duplicates == 0
    assert {name: counts(part) for name, part in parts.items()} == {
        "train": {"good": 560, "bad": 160, "meh": 80},
        "validation": {"good": 70, "bad": 20, "meh": 10},
        "test": {"good": 70, "bad": 20, "meh": 10},
    }
    assert sorted(ids(parts["train"] + parts["validation"] + parts["test"])) == list(range(1000))


def test_with_a_test_source_a_fifth_of_train_is_validation(make_rows):
    rows = make_rows({"good": 300, "bad": 200}, "train") + make_rows({"good": 10, "bad": 90}, "test")
    parts, _ = splits.split_rows(rows, "classification", 0)
    assert counts(parts["validation"]) == {"good": 60, "bad": 40}
    assert counts(parts["train"]) == {"good": 240, "bad": 160}
    assert sorted(ids(parts["test"])) == list(range(100))
    assert {row.split for row in parts["test"]} == {"test"}


def test_small_classes_do_not_change_the_fractions(make_rows):
    rows = make_rows({f"class {i}": 7 for i in range(30)})
    parts, _ = splits.split_rows(rows, "classification", 0)
    assert [len(parts[name]) for name in ("train", "validation", "test")] == [168, 21, 21]


def test_a_class_of_one_row_is_in_train(make_rows):
    parts, _ = splits.split_rows(make_rows({"good": 60, "bad": 40, "rare": 1}), "classification", 0)
    assert counts(parts["train"])["rare"] == 1


def test_numbers_are_split_evenly_over_their_range():
    rng = np.random.default_rng(0)
    rows = [Row(i, f"text {i}", None, str(x), "") for i, x in enumerate(rng.normal(size=1000))]
    parts, _ = splits.split_rows(rows, "regression", 0)
    edges = np.quantile([float(row.label) for row in rows], np.linspace(0, 1, 11))
    for name, share in (("validation", 10), ("test", 10), ("train", 80)):
        tenths = np.histogram([float(row.label) for row in parts[name]], edges)[0]
        assert np.abs(tenths - share).max() <= 2


def test_a_split_depends_on_the_seed_and_not_on_the_order_of_rows(make_rows):
    rows = make_rows({"good": 60, "bad": 40})
    first, again = (splits.split_rows(r, "classification", 7)[0] for r in (rows, rows[::-1]))
    other, _ = splits.split_rows(rows, "classification", 8)
    for name in first:
        assert ids(first[name]) == ids(again[name])
        assert ids(first[name]) != ids(other[name])
        assert ids(first[name]) != sorted(ids(first[name]))  # shuffled


def test_texts_of_test_are_removed_from_train_and_counted(make_rows):
    train = make_rows({"good": 50, "bad": 50}, "train")
    test = make_rows({"good": 10, "bad": 10}, "test")
    copies = [Row(100 + i, f"  {row.text}\n", None, row.label, "train") for i, row in enumerate(test[:3])]
    parts, duplicates = splits.split_rows(train + copies + test, "classification", 0)
    assert duplicates == 3
    assert len(parts["train"]) + len(parts["validation"]) == 100
    assert len(parts["test"]) == 20
    shown = {row.text.strip() for row in parts["test"]}
    assert not shown & {row.text.strip() for name in ("train", "validation") for row in parts[name]}


def test_no_text_of_test_is_in_train_if_a_source_repeats_texts():
    rows = [Row(i, f"text {i % 50}", None, "good" if i % 2 else "bad", "") for i in range(200)]
    parts, duplicates = splits.split_rows(rows, "classification", 0)
    assert not {row.text for row in parts["test"]} & {row.text for row in parts["train"] + parts["validation"]}
    assert duplicates == 200 - sum(map(len, parts.values())) > 0


def test_a_pair_is_a_duplicate_only_with_both_texts():
    train, test = (
        [Row(0, "a", "b", "1", ""), Row(1, "a", "c", "1", ""), Row(2, "b", "a", "1", "")],
        [Row(0, "a", "b", "1", "")],
    )
    assert ids(splits.remove_texts_of(train, test)) == [1, 2]


@pytest.mark.parametrize(("rows", "empty"), [(3, "validation, test"), (1, "validation, test")])
def test_too_few_rows_are_refused_with_the_empty_splits(rows, empty, make_rows):
    with pytest.raises(UserError, match=rf"{rows} rows, too few for any row of {empty}"):
        splits.split_rows(make_rows({"good": rows}), "classification", 0)


def test_all_problems_of_labels_are_found(make_rows):
    good, both, unknown = make_rows({"good": 5}), make_rows({"good": 5, "bad": 5}), make_rows({"good": 5, "goood": 1})
    (one_class,) = splits.find_label_problems({"train": good, "validation": good, "test": good})
    assert one_class.received == "one class, 'good'"
    assert splits.find_label_problems({"train": both, "validation": both, "test": both}) == []
    validation, test = splits.find_label_problems({"train": good, "validation": both, "test": unknown})
    assert (validation.received, test.received) == ("'bad' in validation only", "'goood' in test only")
    assert "--label_column" in test.advice

import collections
import dataclasses

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
    found = splits.split_rows(make_rows({"good": 700, "bad": 200, "meh": 100}), "classification", 0)
    parts = found.rows
    assert (found.removed, found.copies, found.contradicting_texts) == ({"duplicates_of_test": 0}, 0, 0)
    assert {name: counts(part) for name, part in parts.items()} == {
        "train": {"good": 560, "bad": 160, "meh": 80},
        "validation": {"good": 70, "bad": 20, "meh": 10},
        "test": {"good": 70, "bad": 20, "meh": 10},
    }
    assert sorted(ids(parts["train"] + parts["validation"] + parts["test"])) == list(range(1000))


def test_with_a_test_source_a_fifth_of_train_is_validation(make_rows):
    rows = make_rows({"good": 300, "bad": 200}, "train") + make_rows({"good": 10, "bad": 90}, "test")
    parts = splits.split_rows(rows, "classification", 0).rows
    assert counts(parts["validation"]) == {"good": 60, "bad": 40}
    assert counts(parts["train"]) == {"good": 240, "bad": 160}
    assert sorted(ids(parts["test"])) == list(range(100))
    assert {row.split for row in parts["test"]} == {"test"}


def test_small_classes_do_not_change_the_fractions(make_rows):
    rows = make_rows({f"class {i}": 7 for i in range(30)})
    parts = splits.split_rows(rows, "classification", 0).rows
    assert [len(parts[name]) for name in ("train", "validation", "test")] == [168, 21, 21]


def test_a_class_of_one_row_is_in_train(make_rows):
    parts = splits.split_rows(make_rows({"good": 60, "bad": 40, "rare": 1}), "classification", 0).rows
    assert counts(parts["train"])["rare"] == 1


def test_numbers_are_split_evenly_over_their_range():
    rng = np.random.default_rng(0)
    rows = [Row(i, f"text {i}", None, str(x), "") for i, x in enumerate(rng.normal(size=1000))]
    parts = splits.split_rows(rows, "regression", 0).rows
    edges = np.quantile([float(row.label) for row in rows], np.linspace(0, 1, 11))
    for name, share in (("validation", 10), ("test", 10), ("train", 80)):
        tenths = np.histogram([float(row.label) for row in parts[name]], edges)[0]
        assert np.abs(tenths - share).max() <= 2


def test_a_split_depends_on_the_seed_and_not_on_the_order_of_rows(make_rows):
    rows = make_rows({"good": 60, "bad": 40})
    first, again = (splits.split_rows(r, "classification", 7).rows for r in (rows, rows[::-1]))
    other = splits.split_rows(rows, "classification", 8).rows
    for name in first:
        assert ids(first[name]) == ids(again[name])
        assert ids(first[name]) != ids(other[name])
        assert ids(first[name]) != sorted(ids(first[name]))  # shuffled


def texts(rows):
    return {" ".join(row.text.split()).casefold() for row in rows}


def assert_apart(parts):
    """No text is in two of the splits."""
    train, validation, test = map(texts, parts.values())
    assert not train & validation | train & test | validation & test


def test_texts_of_given_splits_are_removed_and_counted(make_rows):
    rows = make_rows({"good": 50, "bad": 50}, "train")
    validation, test = (make_rows({"good": 10, "bad": 10}, name) for name in ("validation", "test"))
    of_test = [Row(100 + i, f"  {row.text.upper()}\n", None, row.label, "train") for i, row in enumerate(test[:3])]
    of_validation = [Row(200 + i, row.text.replace(" ", "  "), None, row.label, "") for i, row in enumerate(validation)]
    both = [Row(20, test[4].text, None, "good", "validation")]

    found = splits.split_rows(rows + of_test + test, "classification", 0)
    assert found.removed == {"duplicates_of_test": 3}
    assert {name: len(part) for name, part in found.rows.items()} == {"train": 80, "validation": 20, "test": 20}
    assert_apart(found.rows)

    found = splits.split_rows(rows + of_test + of_validation + validation + both + test, "classification", 0)
    assert found.removed == {"duplicates_of_test": 4, "duplicates_of_validation": 20}
    assert {name: len(part) for name, part in found.rows.items()} == {"train": 100, "validation": 20, "test": 20}
    assert_apart(found.rows)

    found = splits.split_rows(rows + of_validation + validation, "classification", 0)
    assert found.removed == {"duplicates_of_test": 0, "duplicates_of_validation": 20}
    assert {name: len(part) for name, part in found.rows.items()} == {"train": 90, "validation": 20, "test": 10}
    assert_apart(found.rows)


def test_copies_of_a_text_are_in_one_split_and_none_is_lost():
    rng = np.random.default_rng(0)
    for kind in ("classification", "regression"):
        label = {text: str(rng.integers(2) if kind == "classification" else rng.normal()) for text in range(400)}
        copies = [f"{'Text' if i % 3 else ' text '} {i}" for i in range(400) for _ in range(rng.integers(1, 5))]
        rng.shuffle(copies)
        rows = [Row(i, text, None, label[int(text.split()[-1])], "") for i, text in enumerate(copies)]
        found = splits.split_rows(rows, kind, 0)
        assert sorted(ids(row for part in found.rows.values() for row in part)) == list(range(len(rows)))
        assert found.copies == len(rows) - 400
        assert_apart(found.rows)
        for name, fraction in (("validation", 0.1), ("test", 0.1), ("train", 0.8)):
            assert abs(len(found.rows[name]) - fraction * len(rows)) <= 1
            if kind == "classification":
                ones = sum(row.label == "1" for row in found.rows[name]) / len(found.rows[name])
                assert abs(ones - sum(row.label == "1" for row in rows) / len(rows)) < 0.02


def test_frequent_texts_are_in_train_and_the_fractions_hold(make_rows):
    frequent = ("great", "ok", "awful", "worst", "best")
    rows = make_rows({"good": 700, "bad": 700})
    labels = {"great": "good", "best": "good", "ok": "good"}
    rows += [Row(1400 + i, f, None, labels.get(f, "bad"), "") for i, f in enumerate(frequent * 120)]
    found = splits.split_rows(rows, "classification", 0)
    assert {name: len(part) for name, part in found.rows.items()} == {"train": 1600, "validation": 200, "test": 200}
    assert set(frequent) <= texts(found.rows["train"])
    assert_apart(found.rows)
    assert {label: count / 200 for label, count in counts(found.rows["test"]).items()} == {"good": 0.53, "bad": 0.47}


def test_texts_that_are_all_frequent_are_divided_as_well_as_they_can():
    rows = [Row(i, f"text {i % 20}", None, "good" if i % 2 else "bad", "") for i in range(2000)]
    parts = splits.split_rows(rows, "classification", 0).rows
    assert {name: len(part) for name, part in parts.items()} == {"train": 1600, "validation": 200, "test": 200}
    assert all(counts(part).keys() == {"good", "bad"} for part in parts.values())
    few = splits.split_rows([Row(i, f"text {i % 6}", None, "ab"[i % 2], "") for i in range(600)], "classification", 0)
    assert {name: len(part) for name, part in few.rows.items()} == {"train": 400, "validation": 100, "test": 100}


def test_a_class_whose_rows_share_one_text_is_in_train_and_named(make_rows):
    rows = make_rows({"good": 60, "bad": 40}) + [Row(100 + i, "spam", None, "spam", "") for i in range(30)]
    found = splits.split_rows(rows, "classification", 0)
    assert counts(found.rows["train"])["spam"] == 30
    assert found.train_only_classes == ("spam",)
    assert splits.find_label_problems(found.rows) == []
    assert splits.split_rows(make_rows({"good": 60, "bad": 40}), "classification", 0).train_only_classes == ()


def test_texts_with_contradicting_labels_are_counted_and_shown(make_rows):
    rows = make_rows({"good": 60, "bad": 40})
    rows += [Row(100, "So so.", None, "good", ""), Row(101, " so SO.", None, "bad", "")]
    rows += [Row(102 + i, f"text {i // 2} " * 40, None, "ab"[i % 2], "") for i in range(20)]
    found = splits.split_rows(rows, "classification", 0)
    assert (found.copies, found.contradicting_texts) == (11, 11)
    assert found.contradicting_examples[0] == "'So so.': bad, good"
    assert found.contradicting_examples[1].endswith("...': a, b")
    assert len(found.contradicting_examples) == splits.MAX_SHOWN_TEXTS
    assert_apart(found.rows)


def test_a_pair_is_a_copy_only_with_both_texts():
    rows = [Row(i, "a", f"b {i}", "10"[i % 2], "") for i in range(40)] + [Row(40, "A", "B 7", "0", "test")]
    found = splits.split_rows([*rows, Row(41, "b 7", "a", "1", "test")], "classification", 0)
    assert found.removed == {"duplicates_of_test": 1}
    assert 7 not in ids(found.rows["train"] + found.rows["validation"])


@pytest.mark.parametrize(("rows", "empty"), [(3, "validation, test"), (1, "validation, test")])
def test_too_few_rows_are_refused_with_the_empty_splits(rows, empty, make_rows):
    for copies in (1, 5):
        few = [Row(i, row.text, None, "good", "") for i, row in enumerate(make_rows({"good": rows}) * copies)]
        received = rf"{rows * copies} rows with {rows} different texts, too few for any row of {empty}"
        with pytest.raises(UserError, match=received):
            splits.split_rows(few, "classification", 0)


def test_the_likely_reason_of_an_empty_split_is_told(make_rows):
    names = [dataclasses.replace(row, label=f"name {row.id}") for row in make_rows({"good": 60})]
    with pytest.raises(UserError, match=r"60 classes, 60 of which have one row: check --label_column and --label_type"):
        splits.split_rows(names, "classification", 0)
    rows = make_rows({"good": 30, "bad": 30})
    same = [dataclasses.replace(row, split="test") for row in rows]
    with pytest.raises(
        UserError, match=r"Rows that are duplicates of test were removed, 60 of them: check --test_source"
    ):
        splits.split_rows([*rows, *same], "classification", 0)


def test_all_problems_of_labels_are_found(make_rows):
    good, both, unknown = make_rows({"good": 5}), make_rows({"good": 5, "bad": 5}), make_rows({"good": 5, "goood": 1})
    (one_class,) = splits.find_label_problems({"train": good, "validation": good, "test": good})
    assert one_class.received == "one class, 'good'"
    assert splits.find_label_problems({"train": both, "validation": both, "test": both}) == []
    validation, test = splits.find_label_problems({"train": good, "validation": both, "test": unknown})
    assert (validation.received, test.received) == ("'bad' in validation only", "'goood' in test only")
    assert "--label_column" in test.advice


def label_share(rows, name):
    return sum(name in row.labels for row in rows) / len(rows)


def test_texts_with_several_labels_are_split_by_their_sets():
    rng = np.random.default_rng(0)
    sets = [
        tuple(name for name, p in zip("abc", (0.5, 0.2, 0.04), strict=True) if rng.random() < p) for _ in range(900)
    ]
    rows = [Row(i, f"text {i}", None, "", "", names) for i, names in enumerate(sets)]
    rows += [Row(900 + i, f" Text {i}", None, "", "", sets[i]) for i in range(100)]
    found = splits.split_rows(rows, "multi_label", 0)
    assert {name: len(part) for name, part in found.rows.items()} == {"train": 800, "validation": 100, "test": 100}
    assert sorted(ids(row for part in found.rows.values() for row in part)) == list(range(1000))
    assert_apart(found.rows)
    assert (found.copies, found.contradicting_texts, found.train_only_classes) == (100, 0, ())
    for part in found.rows.values():
        assert all(abs(label_share(part, name) - label_share(rows, name)) <= 0.015 for name in "abc")
    again = splits.split_rows(rows[::-1], "multi_label", 0).rows
    assert {name: ids(part) for name, part in again.items()} == {name: ids(part) for name, part in found.rows.items()}


def test_problems_of_several_labels_are_found():
    a, none, both = ([Row(0, "x", None, "", "", names)] for names in (("a",), (), ("a", "b")))
    assert splits.find_label_problems({"train": a, "validation": none, "test": a}, "multi_label") == []
    (unknown,) = splits.find_label_problems({"train": a, "validation": both, "test": a}, "multi_label")
    assert unknown.received == "'b' in validation only"
    (nothing,) = splits.find_label_problems({"train": none, "validation": none, "test": none}, "multi_label")
    assert nothing.received == "none in all rows"


def test_texts_with_contradicting_sets_are_shown():
    sets = [("a", "b"), ("a",), ()]
    rows = [Row(i, "same", None, "", "train", sets[i % 3]) for i in range(6)]
    for split in ("train", "validation", "test"):
        rows += [Row(9 + i, f"{split} {i}", None, "", split, ("a",)) for i in range(3)]
    found = splits.split_rows(rows, "multi_label", 0)
    assert found.contradicting_examples == ("'same': a, a + b, no label",)

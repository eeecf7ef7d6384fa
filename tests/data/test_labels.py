import itertools

import pytest

from trainer.data import labels
from trainer.errors import UserError


@pytest.mark.parametrize(
    ("values", "label_type", "kind"),
    [
        (["0", "1"], "auto", "classification"),
        (["1.0", "2.0", "-3"], "auto", "classification"),
        ([str(i) for i in range(20)], "auto", "classification"),
        ([str(i) for i in range(21)], "auto", "regression"),
        ([str(i) for i in range(20)] * 50, "auto", "classification"),
        ([str(i) for i in range(77)] * 8, "auto", "classification"),
        ([str(i) for i in range(100)] + [str(i) for i in range(40)] * 9, "auto", "regression"),
        (["01", "1_000"], "auto", "classification"),
        (["1e999", "2"], "auto", "classification"),
        (["0", "0.5"], "auto", "regression"),
        (["1e-3", "2"], "auto", "regression"),
        (["0.5", "good"], "auto", "classification"),
        ([f"{i}a" for i in range(50)], "auto", "classification"),
        (["0.5", "nan"], "auto", "classification"),
        (["0.5", "0.7"], "class", "classification"),
        (["0", "1"], "number", "regression"),
    ],
)
def test_the_kind_of_labels_follows_the_flag_or_the_values(values, label_type, kind):
    assert labels.label_kind(values, label_type) == kind


def test_numbers_must_be_finite():
    with pytest.raises(UserError, match="--label_type=number") as caught:
        labels.label_kind(["1", "inf", "nan", "good"], "number")
    assert caught.value.problems[0].received == "'good', 'inf', 'nan'"


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (["10", "9", "-1", "10"], ("-1", "9", "10")),
        (["positive", "negative"], ("negative", "positive")),
        (["b", "10", "9"], ("10", "9", "b")),
    ],
)
def test_class_names_are_ordered_by_value_or_alphabetically(values, names):
    for order in itertools.permutations(values):
        assert labels.class_names(order) == names


@pytest.mark.parametrize(
    ("values", "label_type", "decision"),
    [
        (["a", "b"] * 5, "auto", "2 classes in 10 rows, since not all are numbers (--label_type)"),
        (
            [str(i) for i in range(77)] * 8,
            "auto",
            "77 classes in 616 rows, since whole numbers repeat; --label_type=number predicts them as numbers",
        ),
        (
            ["0", "1", "0"],
            "auto",
            "2 classes in 3 rows, since few whole numbers differ; --label_type=number predicts them as numbers",
        ),
        (
            ["0.5", "1"],
            "auto",
            "numbers, 2 different in 2 rows, since some are not whole; --label_type=class makes each a class",
        ),
        (
            [str(i) for i in range(1000)],
            "auto",
            "numbers, 1,000 different in 1,000 rows, since most occur once; --label_type=class makes each a class",
        ),
        (["0", "1"], "number", "numbers, 2 different in 2 rows (--label_type=number)"),
        (["a", "b"], "", "2 classes in 2 rows"),
    ],
)
def test_the_decision_is_told_with_its_reason_and_the_flag(values, label_type, decision):
    assert labels.describe_decision(values, label_type, labels.label_kind(values, label_type)) == decision


NUMBERS = [str(i / 4) for i in range(97)]


@pytest.mark.parametrize(
    "strays", [["1,000"], ["$5"], ["5 €", "3%"], ["2,5"], ["1'000.50", "1 000"], ["three", "unknown", "-"], ["true"]]
)
def test_a_few_labels_among_numbers_are_strays(strays):
    column = [*NUMBERS, *strays]
    assert labels.find_stray_labels(column, "auto") == list(range(97, len(column)))
    assert labels.find_stray_labels(column, "number") == list(range(97, len(column)))
    assert labels.find_stray_labels(column, "class") == []


@pytest.mark.parametrize("words", [["unknown"], ["-", ".", "n.a.", "#DIV/0!", "not rated"]])
def test_words_for_missing_numbers_are_strays_in_up_to_half_of_the_rows(words):
    column = [*NUMBERS, *(words * 97)[:97]]
    assert labels.find_stray_labels(column, "auto") == list(range(97, 194))
    assert labels.find_stray_labels([*column, words[0]], "auto") == []


def test_written_out_numbers_are_strays_however_many_they_are():
    whole, comma = ["3", "4"] * 30, [f"{i},5" for i in range(30)]
    assert labels.find_stray_labels(whole + comma, "auto") == list(range(60, 90))
    assert labels.find_stray_labels(comma, "auto") == list(range(30))
    assert labels.find_stray_labels(["10%", "20%"] * 30, "auto") == []  # Two classes.


@pytest.mark.parametrize(
    "column",
    [
        NUMBERS,
        ["1", "2", "unknown"] * 30,
        ["1.5", "2.5", "unknown"] * 30,  # Few different numbers.
        [*map(str, range(30)), "other", "none"] * 3,  # Codes.
        ["a", "b"] * 30,
        ["1"] * 18 + ["a"],
        ["1", "0"] * 30 + ["true", "False"],
        [f"{i}.{i % 12 + 1}.2024" for i in range(30)],
    ],
)
def test_other_columns_have_no_strays(column):
    assert labels.find_stray_labels(column, "auto") == []


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (["1", "0", "1.0", "0.0", "+1", "1e0", "01"], ["1", "0", "1", "0", "1", "1", "1"]),
        (["1.0", "1", "true", "TRUE", "false", "0"], ["1.0", "1.0", "1.0", "1.0", "false", "false"]),
        (["True", "false", "true"], ["True", "false", "True"]),
        (["1", "2", "true"], ["1", "2", "true"]),
        (["good", "Good", "1", "1.0"], ["good", "Good", "1", "1"]),
        (["12345678901234567890", "12345678901234567891"], ["12345678901234567890", "12345678901234567891"]),
        (["1_0", "10", "nan"], ["1_0", "10", "nan"]),
    ],
)
def test_equal_numbers_have_the_name_of_the_first(values, names):
    found = labels.name_equal_numbers(values)
    assert [found[value] for value in values] == names


def test_a_number_of_any_exponent_that_is_accepted_can_be_compared():
    assert labels.name_equal_numbers(["1e-999999999", "0"])["0"] == "0"
    assert not labels.is_number("1e-99999999999999999999")


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0, "0.0000"), (-1.5, "-1.5000"), (83.456789, "83.4568"), (8.7634e-14, "8.763e-14"), (1.2e60, "1.2e+60")],
)
def test_a_number_is_shown_with_digits_that_tell_something(value, shown):
    assert labels.format_number(value) == shown

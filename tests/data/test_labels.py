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

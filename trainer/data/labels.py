"""Labels as they are read, strings: whether they are classes or numbers, and the order of the classes."""

import collections
import decimal
import re
from collections.abc import Collection, Iterable, Sequence
from typing import Literal, get_args

from trainer.errors import Problem, UserError

LabelType = Literal["auto", "class", "number"]
LABEL_TYPES = get_args(LabelType)
# The label type of rows with several labels, which no flag of that name sets.
SEVERAL = "several"
# With label_type "auto", whole numbers are classes if at most this many differ.
MAX_INTEGER_CLASSES = 20
# What programs write where there is no label, in lower or upper case.
MISSING_LABELS = ("NA", "N/A", "NaN", "None", "null", "#N/A", "<NA>")
# A column of at least this many rows, of which this share are numbers, is one of numbers with a few mistakes in it.
MIN_NUMBER_ROWS, NUMBER_SHARE = 20, 0.95
# At most this many words stand for numbers that are missing, such as unknown and n.a., in at most half of the rows.
MAX_PLACEHOLDERS = 5

# The module decimal has exponents of so many digits.
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,9})?")
# Numbers with a thousands separator, a decimal comma, a currency or a percent sign.
_DECORATED_NUMBER = re.compile(
    r"[+\-\u2212]?[$€£¥]?\s?([0-9]+([.,][0-9]+)?|[0-9]{1,3}([.,'\s][0-9]{3})+([.,][0-9]+)?)\s?[$€£¥%]?"
)
_BOOLEANS = {"true": decimal.Decimal(1), "false": decimal.Decimal(0)}


class UnusableValue(ValueError):
    """Why a value of a record is no text or label."""


def refuse_missing(label: str, column: str, missing: Collection[str]) -> None:
    """Raises UnusableValue for a label that is one of `missing`, which are in lower case."""
    if label.casefold() in missing:
        raise UnusableValue(f"a missing label in {column!r}, {label!r} (--missing_labels lists what is missing)")


def is_number(label: str) -> bool:
    """Whether the label is a finite number, in decimal digits."""
    return _NUMBER.fullmatch(label) is not None and float(label) - float(label) == 0  # 1e999 is infinite.


def label_kind(labels: Iterable[str], label_type: str) -> str:
    """One of tasks.KINDS. `label_type` is one of LABEL_TYPES, or SEVERAL.

    "auto" is regression if all labels are numbers, and some are not whole, or more than MAX_INTEGER_CLASSES differ and
    most of them occur once. Raises UserError for labels that are no numbers if label_type is "number".
    """
    if label_type == SEVERAL:
        return "multi_label"
    counts = collections.Counter(labels)
    not_numbers = sorted(label for label in counts if not is_number(label))
    if label_type == "number":
        if not_numbers:
            received = ", ".join(repr(label[:80]) for label in not_numbers[:5])
            raise UserError(Problem("--label_type=number", "be given for labels that are finite numbers", received))
        return "regression"
    if label_type == "class" or not_numbers:
        return "classification"
    return "regression" if _some_not_whole(counts) or _most_occur_once(counts) else "classification"


def _some_not_whole(labels: Iterable[str]) -> bool:
    return any(float(label) % 1 for label in labels)


def _most_occur_once(counts: collections.Counter[str]) -> bool:
    once = sum(count == 1 for count in counts.values())
    return len(counts) > MAX_INTEGER_CLASSES and once > len(counts) / 2


def describe_decision(labels: Iterable[str], label_type: str, kind: str) -> str:
    """One line: what the labels are taken for, with counts, why, and the flag that changes it.

    A `label_type` of "" is of a data set that has one kind of labels, which no flag changes.
    """
    counts = collections.Counter(labels)
    rows = f"{len(counts):,} different in {counts.total():,} rows"
    what = f"numbers, {rows}" if kind == "regression" else f"{len(counts):,} classes in {counts.total():,} rows"
    if label_type != "auto":
        return f"{what} (--label_type={label_type})" if label_type else what
    if kind == "regression":
        why = "some are not whole" if _some_not_whole(counts) else "most occur once"
        return f"{what}, since {why}; --label_type=class makes each a class"
    if all(map(is_number, counts)):
        why = "whole numbers repeat" if len(counts) > MAX_INTEGER_CLASSES else "few whole numbers differ"
        return f"{what}, since {why}; --label_type=number predicts them as numbers"
    return f"{what}, since not all are numbers (--label_type)"


def find_stray_labels(labels: Sequence[str], label_type: str) -> list[int]:
    """The indexes of labels that are no numbers in a column of numbers, ascending.

    With label_type "auto" that is a column of MIN_NUMBER_ROWS or more in which NUMBER_SHARE are numbers, those with
    thousands separators, decimal commas, currencies and percent signs included: these alone are strays. true and false
    are none beside 0 and 1. It is also a column of numbers to predict in which a few words stand for missing ones.
    """
    counts = collections.Counter(labels)
    numbers = sum(count for label, count in counts.items() if is_number(label))
    strays = {label for label in counts if not is_number(label)}
    if label_type == "class" or not strays:
        return []
    if label_type == "auto":
        if _booleans_are_numbers(counts):
            strays = {label for label in strays if label.casefold() not in _BOOLEANS}
        decorated = sum(counts[label] for label in strays if _DECORATED_NUMBER.fullmatch(label))
        enough = NUMBER_SHARE * len(labels)
        one_column = numbers >= enough or (
            decorated and numbers + decorated >= enough and (numbers or len(counts) > MAX_INTEGER_CLASSES)
        )
        one_column = one_column or _has_placeholders(counts, strays)
        if not one_column or len(labels) < MIN_NUMBER_ROWS:
            return []
    return [index for index, label in enumerate(labels) if label in strays]


def _has_placeholders(counts: collections.Counter[str], strays: Collection[str]) -> bool:
    """Whether the labels without the strays, which are few different ones, would be numbers to predict."""
    numbers = collections.Counter({label: count for label, count in counts.items() if is_number(label)})
    few = len(strays) <= MAX_PLACEHOLDERS and 2 * numbers.total() >= counts.total()
    return few and len(numbers) > MAX_INTEGER_CLASSES and (_some_not_whole(numbers) or _most_occur_once(numbers))


def _booleans_are_numbers(labels: Iterable[str]) -> bool:
    """Whether all numbers among the labels are 0 and 1, which true and false are then equal to."""
    return all(float(label) in (0, 1) for label in labels if is_number(label))


def name_equal_numbers(labels: Iterable[str]) -> dict[str, str]:
    """Label -> the first label that is the same number: 1, 1.0, +1 and, where all numbers are 0 and 1, true."""
    different = dict.fromkeys(labels)
    booleans = _BOOLEANS if _booleans_are_numbers(different) else {}
    first: dict[decimal.Decimal | str, str] = {}
    names = {}
    for label in different:
        # A float would make large numbers equal that differ in their last digits.
        value = decimal.Decimal(label) if is_number(label) else booleans.get(label.casefold(), label)
        names[label] = first.setdefault(value, label)
    return names


def class_names(labels: Iterable[str]) -> tuple[str, ...]:
    """The different labels: by value if all are numbers, alphabetically otherwise."""
    different = set(labels)
    if all(map(is_number, different)):
        return tuple(sorted(different, key=lambda label: (float(label), label)))
    return tuple(sorted(different))


def format_number(value: float) -> str:
    """A metric or a number in the label's own units for people: four decimals, or four digits if those show too few."""
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e9 else f"{value:.4g}"


def format_figure(value: float | None) -> str:
    """A cell of a table: a count in full, another number by format_number, nothing for None."""
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else format_number(value)

"""Labels as they are read, strings: whether they are classes or numbers, and the order of the classes."""

from collections.abc import Iterable

from trainer.errors import Problem, UserError

LABEL_TYPES = ("auto", "class", "number")
# With label_type "auto", more than this many different integers are numbers to predict.
MAX_INTEGER_CLASSES = 20


def is_number(label: str) -> bool:
    """Whether the label parses as a finite number."""
    try:
        return float(label) - float(label) == 0  # False for inf and nan.
    except ValueError:
        return False


def label_kind(labels: Iterable[str], label_type: str) -> str:
    """ "classification" or "regression". `label_type` is one of LABEL_TYPES.

    "auto" is regression if all labels are numbers, and some are no integers or more than MAX_INTEGER_CLASSES differ.
    Raises UserError for labels that are no numbers if label_type is "number".
    """
    different = set(labels)
    not_numbers = sorted(label for label in different if not is_number(label))
    if label_type == "number":
        if not_numbers:
            received = ", ".join(map(repr, not_numbers[:5]))
            raise UserError(Problem("--label_type=number", "be given for labels that are finite numbers", received))
        return "regression"
    if label_type == "class" or not_numbers:
        return "classification"
    regression = len(different) > MAX_INTEGER_CLASSES or any(float(label) % 1 for label in different)
    return "regression" if regression else "classification"


def class_names(labels: Iterable[str]) -> tuple[str, ...]:
    """The different labels: by value if all are numbers, alphabetically otherwise."""
    different = set(labels)
    if all(map(is_number, different)):
        return tuple(sorted(different, key=lambda label: (float(label), label)))
    return tuple(sorted(different))

"""What is shown of a prediction: a line for people, a JSON line, or columns of a table."""

import dataclasses
import itertools
import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from trainer.data.labels import format_number
from trainer.errors import Problem, UserError
from trainer.export.predict import ScoredInput

LINE_COLUMN = "line"
# What the columns of predictions are called where the table has columns of their names already.
PREFIX = "predicted_"
# JSON escapes the control characters. These end a line too, for Python's str.splitlines and for JavaScript.
_LINE_ENDS = {ord(c): f"\\u{ord(c):04x}" for c in "\x85\u2028\u2029"}


@dataclasses.dataclass(frozen=True)
class Shown:
    """What of a prediction is shown."""

    names: Sequence[str]  # The class of each score; none for regression.
    top_k: int | None  # The number of likeliest classes that are shown with their scores; None is all.
    line_numbers: bool  # Whether the input's number is shown.
    several_labels: bool = False  # Whether a text may have several of the classes, or none.


def rank(scores: np.ndarray, shown: Shown, label: str | None = None) -> list[tuple[str, np.float32]]:
    """The classes by falling score, float32 [classes], `top_k` of them. Equal scores keep the order of the classes.

    The first one is the `label` that the export gives, if it does: a threshold may decide for a class of lower score.
    """
    order = np.argsort(-scores, kind="stable")
    ranked = [(shown.names[i], scores[i]) for i in order]
    return sorted(ranked, key=lambda of_class: of_class[0] != label)[: shown.top_k]


def own_labels(prediction: ScoredInput, shown: Shown) -> list[tuple[str, np.float32]]:
    """Of several labels those of the text with their scores, by falling score. None for a blank text."""
    scores = prediction.scores
    if scores is None:
        return []
    order = np.argsort(-scores, kind="stable")
    return [(shown.names[i], scores[i]) for i in order if i in (prediction.labels or ())]


def format_row(prediction: ScoredInput, shown: Shown) -> str:
    """A line for people: the likeliest classes with their probabilities, or the number, and the text.

    Where there are several labels, those of the text. A blank text has dashes in their place.
    """
    scores, count = prediction.scores, shown.top_k or 1
    if shown.several_labels and not shown.top_k:
        own = [f"{_in_one_line(name)} {score:.4f}" for name, score in own_labels(prediction, shown)]
        cells = ["-" if scores is None else ", ".join(own) or "no label"]
    elif not shown.names:
        cells = [f"{'-' if scores is None else format_number(scores[0]):>9}"]
    else:
        best = (
            [("-", "-")]
            if scores is None
            else [(name, f"{score:.4f}") for name, score in rank(scores, shown, prediction.label)][:count]
        )
        width = max(len(_in_one_line(name)) for name in shown.names)
        cells = [f"{_in_one_line(name):<{width}}  {score:<6}" for name, score in best]
    numbers = [f"{prediction.number:>7}"] if shown.line_numbers else []
    return "  ".join([*numbers, *cells, _in_one_line("\t".join(prediction.texts))])


def _in_one_line(text: str) -> str:
    return " ".join(text.splitlines())


def to_values(prediction: ScoredInput, shown: Shown) -> dict[str, Any]:
    """{"label", "scores": {name: probability}}, or {"score"} for regression; None for a blank text.

    Where there are several labels, "labels" has the names of those of the text in the place of "label".
    """
    scores = prediction.scores
    if not shown.names:
        return {"score": None if scores is None else float(scores[0])}
    if scores is None:
        return {"labels" if shown.several_labels else "label": None, "scores": None}
    ranked = rank(scores, shown, prediction.label)
    probabilities = ranked if shown.top_k else zip(shown.names, scores, strict=True)
    own = [name for name, _ in own_labels(prediction, shown)]
    label = {"labels": own} if shown.several_labels else {"label": ranked[0][0]}
    return {**label, "scores": {name: float(score) for name, score in probabilities}}


def format_json(prediction: ScoredInput, shown: Shown) -> str:
    """The text and to_values as a line of JSON."""
    numbered = {LINE_COLUMN: prediction.number} if shown.line_numbers else {}
    return dump_json({**numbered, "text": "\t".join(prediction.texts), **to_values(prediction, shown)})


def dump_json(row: dict[str, Any]) -> str:
    """JSON in one line for every reader of lines. NaN and infinity are null; what else JSON lacks is a string."""
    finite = {name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in row.items()}
    return json.dumps(finite, ensure_ascii=False, default=str).translate(_LINE_ENDS)


def added_columns(shown: Shown, columns: Sequence[str], source: str) -> dict[str, type]:
    """The names and types of the columns of a prediction, next to the `columns` of the input.

    `added_values` has their values. Raises UserError if the input has columns of these names, with PREFIX and without.
    """
    added: dict[str, type] = {LINE_COLUMN: int} if shown.line_numbers else {}
    if shown.several_labels:
        added["labels"] = list
    elif shown.names and shown.top_k is None:
        added["label"] = str
    if not shown.names:
        added["score"] = np.float32
    elif shown.top_k is None:
        added |= {f"score_{name}": np.float32 for name in shown.names}
    else:
        for place in range(1, min(shown.top_k, len(shown.names)) + 1):
            number = "" if place == 1 else f"_{place}"
            added |= {f"label{number}": str, f"score{number}": np.float32}
    if not set(added) & set(columns):
        return added
    added = {PREFIX + name: kind for name, kind in added.items()}
    if taken := sorted(set(added) & set(columns)):
        required = "have no columns of an earlier prediction"
        raise UserError(Problem(source, required, ", ".join(taken), "Rename them, or leave them out."))
    return added


def added_values(prediction: ScoredInput, shown: Shown, count: int) -> list[Any]:
    """The values of the `count` columns of added_columns; None in all but the number for a blank text."""
    scores = prediction.scores
    values: list[Any] = [prediction.number] if shown.line_numbers else []
    if scores is None:
        return values + [None] * (count - len(values))
    if not shown.names:
        return [*values, scores[0]]
    ranked = rank(scores, shown, prediction.label)
    if shown.several_labels:
        values.append([name for name, _ in own_labels(prediction, shown)])
    elif not shown.top_k:
        values.append(ranked[0][0])
    return [*values, *(itertools.chain.from_iterable(ranked) if shown.top_k else scores)]

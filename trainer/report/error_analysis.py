"""The section on the worst errors of test, with their texts and the words that mattered."""

from collections.abc import Mapping

import numpy as np

from trainer.evals.metrics import Predictions
from trainer.report.facts import ReportFacts
from trainer.report.occlusion import Occlusion
from trainer.report.page import Passage, Piece, Section, percent

MAX_ERRORS = 20
MAX_CHARACTERS = 800
# A word whose effect is below this share of the text's largest has no mark.
_MIN_MARK = 0.15
_STRONGEST_MARK = 0.55  # Of the mark's color, so that the text on it can be read.


def worst_errors(predictions: Predictions, *, by_class: bool) -> np.ndarray:
    """int64: the rows with the highest loss, the worst first; `by_class`, of those that are wrong."""
    rows = np.flatnonzero(predictions.predicted != predictions.labels) if by_class else np.arange(len(predictions.ids))
    chosen: np.ndarray = rows[np.argsort(-predictions.losses[rows], kind="stable")][:MAX_ERRORS]
    return chosen


def section(facts: ReportFacts) -> Section | None:
    if "test" not in facts.columns or facts.manifest.kind not in ("classification", "regression"):
        return None
    predictions = facts.predictions["test"]
    rows = worst_errors(predictions, by_class=facts.by_class)
    if not len(rows):
        return Section("errors", "The worst errors", ["The model is right about every example of test."])
    marked = {occlusion.row: occlusion for occlusion in facts.occlusions}
    what = "was most sure of a wrong class" if facts.by_class else "is furthest from the label"
    sentences = [
        f"The {len(rows)} examples of test in which the model {what}. Read them first: some are hard, some are "
        "mislabeled, and what is left shows what the model has not learned."
    ]
    method = []
    if marked:
        said = "the predicted class" if facts.by_class else "a higher number"
        sentences.append(_describe_marks(len(marked), len(rows), said))
        method.append(
            "Words: the text is scored again without each of them (occlusion); of long texts, without groups of "
            "neighbors. Words that matter only together are not found so."
        )
    return Section(
        "errors",
        "The worst errors",
        sentences,
        passages=[_passage(facts, int(row), marked) for row in rows],
        method=method,
    )


def _describe_marks(marked: int, shown: int, said: str) -> str:
    which = "In the texts" if marked == shown else f"In {marked} of the texts"
    return (
        f"{which}, blue words supported {said}, orange ones opposed it; the stronger the color, the more, compared "
        "with the other words of that text."
    )


def _passage(facts: ReportFacts, row: int, marked: Mapping[int, Occlusion]) -> Passage:
    predictions, columns = facts.predictions["test"], facts.columns["test"]
    if facts.by_class:
        label, said = facts.manifest.labels[predictions.labels[row]], predictions.predicted[row]
        sure = percent(float(predictions.scores[row, said]))
        known = [f"label: {label}", f"predicted: {facts.manifest.labels[said]} ({sure})"]
    else:
        known = [f"label: {predictions.labels[row]:.6g}", f"predicted: {predictions.logits[row, 0]:.6g}"]
    known.append(f"id: {predictions.ids[row]}")
    assert columns.texts is not None
    text = columns.texts[row] if columns.texts_b is None else f"{columns.texts[row]}\n\n{columns.texts_b[row]}"
    pieces = mark(marked[row]) if row in marked else [Piece(text)]
    return cut(Passage(known, pieces))


def mark(occlusion: Occlusion) -> list[Piece]:
    """The text in pieces, with marks relative to the largest effect."""
    effects = np.nan_to_num(np.array(occlusion.effects))
    largest = float(np.abs(effects).max(initial=0.0))
    if largest == 0:
        return [Piece("".join(occlusion.pieces))]
    shares = effects / largest
    return [
        Piece(text, _STRONGEST_MARK * float(share) if abs(share) >= _MIN_MARK else 0.0)
        for text, share in zip(occlusion.pieces, shares, strict=True)
    ]


def cut(passage: Passage) -> Passage:
    """The passage with at most MAX_CHARACTERS of its text."""
    total = sum(len(piece.text) for piece in passage.pieces)
    if total <= MAX_CHARACTERS:
        return passage
    pieces, left = [], MAX_CHARACTERS
    for piece in passage.pieces:
        if left <= 0:
            break
        pieces.append(Piece(piece.text[:left], piece.weight))
        left -= len(piece.text)
    return Passage(passage.facts, [*pieces, Piece(" ...")], f"{total - MAX_CHARACTERS:,} more characters")

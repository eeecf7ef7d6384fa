"""The section on labels that are likely wrong, and label_errors.jsonl with all of them.

An example is suspect if what a model gives its label is improbable: the self-confidence of confident learning
(Northcutt et al., "Confident Learning: Estimating Uncertainty in Dataset Labels", JAIR 2021). The model has not seen
validation and test. What it has learned from says less, so that a cross-check asks bags of words too, which have not
seen the example: the probabilities are then the geometric mean of both, so that the logarithms of odds are averaged.
"""

import dataclasses
import json
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import scipy.special

from trainer.report.facts import ReportFacts
from trainer.report.page import Passage, Piece, Section, percent

SHOWN = 20
LISTED_SHARE = 0.04
_CHARACTERS = 400
_SMALLEST = 1e-7  # A probability of 0 says no more than this one.


@dataclasses.dataclass(frozen=True)
class Suspect:
    split: str
    row: int
    suggested: int  # The class that the models say.
    confidence: float  # The probability that the models together give the example's label.


def section(facts: ReportFacts) -> Section | None:
    if not facts.by_class:
        return None
    found = find_suspects(facts)
    splits = list(facts.predictions)
    looked_at = sum(len(predictions.labels) for predictions in facts.predictions.values())
    which = f"{', '.join(splits[:-1])} and {splits[-1]}" if len(splits) > 1 else splits[0]
    if not found:
        return Section("labels", "Likely label errors", [f"No label of {which} is doubted."])
    sentences = [
        f"Of the {looked_at:,} examples of {which}, the {len(found):,} ({percent(len(found) / looked_at)}) whose "
        f"labels are doubted most are in label_errors.jsonl; here are the first {min(SHOWN, len(found))}. They are "
        "worth a look before more data is collected: some are errors of the labels, others of the model."
    ]
    method = ["Order: the probability of the example's own label, the lowest first."]
    if facts.cross_checked:
        method.append(
            "Cross-checked: it is the geometric mean of the model's, which has learned from train, and that of bags of "
            "words, which have not seen the example (train in five folds)."
        )
    else:
        method.append("The model has learned from train, which was left out: --mode=report --cross_check looks there.")
    return Section(
        "labels",
        "Likely label errors",
        sentences,
        passages=[_passage(facts, suspect) for suspect in found[:SHOWN]],
        method=method,
    )


def judge(facts: ReportFacts, split: str) -> np.ndarray:
    """float64 [rows, C]: the probabilities that the models give to each class, with a cross-check those of both."""
    logs = np.log(np.maximum(facts.predictions[split].scores.astype(np.float64), _SMALLEST))
    if split in facts.cross_checked:
        logs = (logs + np.log(np.maximum(facts.cross_checked[split].astype(np.float64), _SMALLEST))) / 2
    probabilities: np.ndarray = scipy.special.softmax(logs, axis=1)
    return probabilities


def find_suspects(facts: ReportFacts) -> list[Suspect]:
    """The examples whose labels are doubted, the most doubtful first: at most LISTED_SHARE of those looked at."""
    suspects, looked_at = [], 0
    for split in facts.predictions:
        probabilities, labels = judge(facts, split), facts.columns[split].labels
        looked_at += len(labels)
        said = probabilities.argmax(axis=1)
        for row in np.flatnonzero(said != labels):
            confidence = float(probabilities[row, labels[row]])
            suspects.append(Suspect(split, int(row), int(said[row]), confidence))
    suspects.sort(key=lambda suspect: suspect.confidence)
    return suspects[: int(np.ceil(LISTED_SHARE * looked_at))]


def write(facts: ReportFacts) -> str:
    """label_errors.jsonl: a line for each of find_suspects."""
    return "".join(_lines(facts, find_suspects(facts)))


def _lines(facts: ReportFacts, suspects: Iterable[Suspect]) -> Iterator[str]:
    for suspect in suspects:
        columns = facts.columns[suspect.split]
        content = {
            "split": suspect.split,
            "id": columns.ids[suspect.row],
            "label": facts.manifest.labels[columns.labels[suspect.row]],
            "suggested": facts.manifest.labels[suspect.suggested],
            "confidence": round(suspect.confidence, 6),
            "text": (columns.texts or [])[suspect.row],
            **({"text_b": columns.texts_b[suspect.row]} if columns.texts_b else {}),
        }
        yield json.dumps(content, ensure_ascii=False) + "\n"


def _passage(facts: ReportFacts, suspect: Suspect) -> Passage:
    columns, labels = facts.columns[suspect.split], facts.manifest.labels
    known = [
        f"label: {labels[columns.labels[suspect.row]]}",
        f"predicted: {labels[suspect.suggested]}",
        f"probability of the label: {percent(suspect.confidence, 2)}",
        f"{suspect.split}, id: {columns.ids[suspect.row]}",
    ]
    texts: Sequence[str] = [column[suspect.row] for column in (columns.texts, columns.texts_b) if column]
    shown = "\n\n".join(text if len(text) <= _CHARACTERS else f"{text[:_CHARACTERS]} ..." for text in texts)
    return Passage(known, [Piece(shown)])

"""The section on labels that are likely wrong, and label_errors.jsonl with all of them.

An example is suspect if what a model gives its label is improbable: the self-confidence of confident learning
(Northcutt et al., "Confident Learning: Estimating Uncertainty in Dataset Labels", JAIR 2021). What a model has learned
from its own example says little, so that validation and test are judged by the model, and train by a bag of words that
has not seen the example (five folds), where that was asked for.
"""

import dataclasses
import json
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

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
    looked_at = sum(len(probabilities) for probabilities in judgements(facts).values())
    if not found:
        return Section("labels", "Likely label errors", ["The model doubts no label of validation and test."])
    which = " and ".join([", ".join(judgements(facts))]).replace("validation, test", "validation and test")
    sentences = [
        f"Of the {looked_at:,} examples of {which}, the {len(found):,} ({percent(len(found) / looked_at)}) whose labels "
        f"are doubted most are in label_errors.jsonl; here are the first {min(SHOWN, len(found))}. They are worth a look "
        "before more data is collected: some are errors of the labels, others of the model."
    ]
    method = ["Order: the probability of the example's own label, the lowest first."]
    if facts.cross_checked is not None:
        method.append("Train is judged by models that have not seen the example (a bag of words, out of fold).")
    else:
        method.append("Train was not looked at: --mode=report --cross_check does.")
    return Section(
        "labels",
        "Likely label errors",
        sentences,
        passages=[_passage(facts, suspect) for suspect in found[:SHOWN]],
        method=method,
    )


def judgements(facts: ReportFacts) -> dict[str, np.ndarray]:
    """Split -> float [rows, C]: probabilities of the classes, from models that have not seen the example."""
    judged = {name: p.scores for name, p in facts.predictions.items() if name in ("validation", "test")}
    if facts.cross_checked is not None:
        judged["train"] = facts.cross_checked
    return judged


def find_suspects(facts: ReportFacts) -> list[Suspect]:
    """The examples whose labels are doubted, the most doubtful first: at most LISTED_SHARE of those looked at."""
    judged = judgements(facts)
    suspects = []
    for name, probabilities in judged.items():
        labels = facts.columns[name].labels
        own = np.clip(probabilities[np.arange(len(labels)), labels], _SMALLEST, 1)
        said = probabilities.argmax(axis=1)
        for row in np.flatnonzero(said != labels):
            suspects.append(Suspect(name, int(row), int(said[row]), float(own[row])))
    suspects.sort(key=lambda suspect: suspect.confidence)
    return suspects[: int(np.ceil(LISTED_SHARE * sum(map(len, judged.values()))))]


def rows(facts: ReportFacts, suspects: Iterable[Suspect]) -> Iterator[str]:
    """The lines of label_errors.jsonl."""
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
        f"the model says: {labels[suspect.suggested]}",
        f"probability of the label: {percent(suspect.confidence, 2)}",
        f"{suspect.split}, id: {columns.ids[suspect.row]}",
    ]
    texts: Sequence[str] = [column[suspect.row] for column in (columns.texts, columns.texts_b) if column]
    shown = "\n\n".join(text if len(text) <= _CHARACTERS else f"{text[:_CHARACTERS]} ..." for text in texts)
    return Passage(known, [Piece(shown)])

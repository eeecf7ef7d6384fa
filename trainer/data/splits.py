"""Rows to the splits train, validation and test: seeded, stratified, and with every text in one of them only."""

import collections
import dataclasses
import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from trainer.data import stratification, tasks
from trainer.data.stored_rows import AnyRow
from trainer.errors import Problem, UserError

# Of all rows of a source without a test split.
TEST_FRACTION, VALIDATION_FRACTION = 0.1, 0.1
# Numbers to predict are stratified by the tenths of their ranks.
REGRESSION_STRATA = 10
# A text with more copies than this share of the rows to draw stays in train, as long as others can be drawn.
MAX_TEXT_SHARE = 0.1
MAX_SHOWN_TEXTS, MAX_SHOWN_CHARACTERS = 3, 80


@dataclasses.dataclass(frozen=True)
class SplitRows:
    """The rows of train, validation and test, and what was found on the way."""

    rows: dict[str, list[AnyRow]]
    removed: dict[str, int]  # Reason -> rows that are in no split.
    copies: int  # Rows whose text an earlier row has.
    contradicting_texts: int  # Texts whose copies have different labels.
    contradicting_examples: tuple[str, ...]  # The first of them, with their labels.
    train_only_classes: tuple[str, ...]  # Classes that have too few texts for each split.


def _shuffle_keys(rows: Sequence[AnyRow], seed: int) -> np.ndarray:
    """Sorting by them shuffles: uint64 [rows]. They depend on the seed and the rows' ids alone, on any machine."""

    def key(row: AnyRow) -> int:
        return int.from_bytes(hashlib.sha256(f"{seed}:{row.id!r}".encode()).digest()[:8], "big")

    return np.fromiter(map(key, rows), np.uint64, len(rows))


def hash_text(text: str, text_b: str | None = None) -> int:
    """64 bits, equal for equal texts or pairs. White space and case make no difference."""
    texts = (" ".join(each.split()).casefold() for each in (text, text_b or ""))
    key = "\0".join(texts).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big")


def _number_texts(rows: Sequence[AnyRow]) -> np.ndarray:
    """int32 [rows], from 0, equal for equal texts or pairs by hash_text."""
    # Hashes, since the texts themselves may be more than fit in memory.
    hashes = np.fromiter((hash_text(*row.texts()[:2]) for row in rows), np.uint64, len(rows))
    order = np.argsort(hashes)
    hashes = hashes[order]
    texts = np.empty(len(rows), np.int32)
    texts[order[:1]] = 0
    texts[order[1:]] = np.cumsum(hashes[1:] != hashes[:-1], dtype=np.int32)
    return texts


def _take(rows: Sequence[AnyRow], indexes: np.ndarray) -> list[AnyRow]:
    return [rows[int(index)] for index in indexes]


def _strata(rows: Sequence[AnyRow], kind: str) -> np.ndarray:
    """Each row's class, by alphabet, or its tenth of the numbers' ranks: int32 [rows]."""
    if kind == "classification":
        index = {label: number for number, label in enumerate(sorted({row.label for row in rows}))}
        return np.fromiter((index[row.label] for row in rows), np.int32, len(rows))
    ranks = np.argsort(np.fromiter((float(row.label) for row in rows), np.float64, len(rows)), kind="stable")
    strata = np.empty(len(rows), np.int32)
    strata[ranks] = np.arange(len(rows)) * REGRESSION_STRATA // max(len(rows), 1)
    return strata


def _fill(sizes: np.ndarray, target: int) -> list[int]:
    """The indexes of texts that have `target` rows together, as nearly as can be; never of all texts.

    `sizes` (int64 [texts]) are their numbers of rows. They are taken in their order, the frequent ones last.
    """
    frequent = sizes > max(1, int(target * MAX_TEXT_SHARE))
    chosen: list[int] = []
    for index in np.argsort(frequent, kind="stable"):
        if target <= 0 or len(chosen) == len(sizes) - 1:
            return chosen
        if sizes[index] <= target:
            chosen.append(int(index))
            target -= int(sizes[index])
    others = np.setdiff1d(np.arange(len(sizes)), chosen)
    if target > 0 and len(others) > 1:
        smallest = int(others[np.argmin(sizes[others])])
        if sizes[smallest] < 2 * target:  # Then too many is nearer than too few.
            chosen.append(smallest)
    return chosen


def draw(rows: Sequence[AnyRow], texts: np.ndarray, keys: np.ndarray, fraction: float, kind: str) -> np.ndarray:
    """Which rows are drawn, bool [rows]: `fraction` of them, as nearly as whole texts allow.

    They are drawn in the same proportion from every class, and at least one text of each remains. A text of several
    classes counts for the rarest. `texts` (integers [rows]) are the numbers of the texts, `keys` (uint64 [rows]) what
    shuffles them. Rows with several labels are drawn by stratification.draw_texts.
    """
    sizes = np.bincount(texts)
    key_of_text = np.full(len(sizes), np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(key_of_text, texts, keys)
    if kind == "multi_label":
        sets = [row.label_names for row in rows]
        return stratification.draw_texts(sets, texts, key_of_text, fraction, MAX_TEXT_SHARE)[texts]
    strata = _strata(rows, kind)
    by_rarity = np.argsort(np.bincount(strata), kind="stable")
    rarest = np.full(len(sizes), len(by_rarity), np.int32)  # Which no stratum is: of numbers that are no text's.
    np.minimum.at(rarest, texts, np.argsort(by_rarity).astype(np.int32)[strata])
    drawn = np.zeros(len(sizes), bool)
    seen = selected = 0
    for rank in np.argsort(by_rarity):
        members = np.flatnonzero(rarest == rank)
        members = members[np.argsort(key_of_text[members])]
        seen += int(sizes[members].sum())
        # Rounding the running total, not the count of each class, makes the overall fraction exact.
        chosen = members[_fill(sizes[members], round(seen * fraction) - selected)]
        drawn[chosen] = True
        selected += int(sizes[chosen].sum())
    return drawn[texts]


def split_rows(
    rows: Sequence[AnyRow], kind: str, seed: int, validation_fraction: float = tasks.VALIDATION_FRACTION_OF_TRAIN
) -> SplitRows:
    """Rows whose split is "test" or "validation" are that split, if there are any; the others are divided.

    Of the others, those whose text is in a given split are removed, and also those of a given validation split whose
    text is in a given test split. `validation_fraction` is the share of them that becomes validation, where test is
    given. Raises UserError if a split would be empty.
    """
    texts, keys = _number_texts(rows), _shuffle_keys(rows, seed)
    different = int(texts.max(initial=-1)) + 1
    given = np.fromiter(({"test": 2, "validation": 1}.get(row.split, 0) for row in rows), np.int8, len(rows))
    train, validation, test = (np.flatnonzero(given == number) for number in range(3))
    given_validation, given_test = len(validation) > 0, len(test) > 0

    def without(part: np.ndarray, other: np.ndarray) -> np.ndarray:
        present = np.zeros(different, bool)
        present[texts[other]] = True
        return part[~present[texts[part]]]

    def divide(part: np.ndarray, fraction: float) -> tuple[np.ndarray, np.ndarray]:
        drawn = draw(_take(rows, part), texts[part], keys[part], fraction, kind)
        return part[drawn], part[~drawn]

    total = len(train) + len(validation)
    train, validation = without(train, test), without(validation, test)
    removed = {"duplicates_of_test": total - len(train) - len(validation)}
    if given_validation:
        total, train = len(train), without(train, validation)
        removed["duplicates_of_validation"] = total - len(train)
    if not given_test:
        test, train = divide(train, TEST_FRACTION)
    if not given_validation:
        fraction = validation_fraction if given_test else VALIDATION_FRACTION / (1 - TEST_FRACTION)
        validation, train = divide(train, fraction)
    parts = {"train": train, "validation": validation, "test": test}
    empty = [name for name, part in parts.items() if not len(part)]
    if empty:
        required = "have enough different texts for train, validation and test"
        received = f"{len(rows):,} rows with {different:,} different texts, too few for any row of {', '.join(empty)}"
        raise UserError(Problem("The source", required, received, _advise_on_empty_splits(rows, kind, removed)))
    by_split = {name: _take(rows, part[np.argsort(keys[part], kind="stable")]) for name, part in parts.items()}
    contradicting, examples = _find_contradictions(rows, texts)
    train_only = _find_train_only_classes(by_split) if kind != "regression" else ()
    return SplitRows(by_split, removed, len(rows) - different, contradicting, examples, train_only)


def _advise_on_empty_splits(rows: Sequence[AnyRow], kind: str, removed: Mapping[str, int]) -> str:
    """What may be the reason, as sentences of advice."""
    advice = [
        f"Rows that are {name.replace('_', ' ')} were removed, {count:,} of them: check --test_source and "
        "--validation_source."
        for name, count in removed.items()
        if count
    ]
    if kind == "classification":
        counts = collections.Counter(row.label for row in rows)
        single = sum(count == 1 for count in counts.values())
        if 2 * single > len(counts):  # Every class keeps a text to train on.
            advice.append(
                f"The labels are {len(counts):,} classes, {single:,} of which have one row: check --label_column and "
                "--label_type."
            )
    return " ".join(advice)


def _find_contradictions(rows: Sequence[AnyRow], texts: np.ndarray) -> tuple[int, tuple[str, ...]]:
    """(the number of texts with several labels, the first of them for a person to read)."""
    numbers: dict[tuple[str, ...], int] = {}
    labels = np.fromiter((numbers.setdefault(row.label_names, len(numbers)) for row in rows), np.int32, len(rows))
    first = np.empty(texts.max() + 1, np.int64)
    first[texts[::-1]] = np.arange(len(rows))[::-1]  # The last that is written stays.
    several = np.unique(texts[labels != labels[first][texts]])
    examples = []
    for text in several[np.argsort(first[several])][:MAX_SHOWN_TEXTS]:
        names = {row.label_names for row in _take(rows, np.flatnonzero(texts == text))}
        found = sorted(" + ".join(labels_of_row) or "no label" for labels_of_row in names)
        start = " ".join(rows[int(first[text])].texts().text.split())
        start = start if len(start) <= MAX_SHOWN_CHARACTERS else start[:MAX_SHOWN_CHARACTERS] + "..."
        examples.append(f"{start!r}: {', '.join(found[:5])}")
    return len(several), tuple(examples)


def _find_train_only_classes(splits: Mapping[str, Sequence[AnyRow]]) -> tuple[str, ...]:
    """Classes that validation or test lacks."""
    known = {name: _known_labels(part) for name, part in splits.items()}
    return tuple(sorted(known["train"] - (known["validation"] & known["test"])))


def _known_labels(rows: Sequence[AnyRow]) -> set[str]:
    return {name for row in rows for name in row.label_names}


def find_label_problems(splits: Mapping[str, Sequence[AnyRow]], kind: str = "classification") -> list[Problem]:
    """What is wrong with the classes: there is only one, or a split has classes that train has not.

    Of texts with several labels, one label is enough.
    """
    labels = {name for rows in splits.values() for name in _known_labels(rows)}
    if kind == "multi_label" and not labels:
        return [Problem("The labels", "be there for some rows", "none in all rows", "Check --label_column.")]
    if kind == "classification" and len(labels) < 2:
        return [Problem("The labels", "be of at least two classes", f"one class, {min(labels)!r}")]
    known = _known_labels(splits["train"])
    problems = []
    for name, rows in splits.items():
        unknown = sorted(_known_labels(rows) - known)
        if unknown:
            received = f"{', '.join(map(repr, unknown[:5]))} in {name} only"
            advice = "Check --label_column and the labels of all files, and texts whose copies have different labels."
            problems.append(Problem("Every label", "appear in train", received, advice))
    return problems

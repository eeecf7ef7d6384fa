"""Rows to the splits train, validation and test: seeded, stratified, and with no text of test in the others."""

import collections
import hashlib
from collections.abc import Mapping, Sequence

from trainer.data.sources import Row
from trainer.errors import Problem, UserError

# Of a source that has a test split, as in the tutorial.
VALIDATION_FRACTION_OF_TRAIN = 0.2
# Of all rows of a source without a test split.
TEST_FRACTION, VALIDATION_FRACTION = 0.1, 0.1
# Numbers to predict are stratified by the tenths of their ranks.
REGRESSION_STRATA = 10


def _shuffle_key(row: Row, seed: int) -> bytes:
    """Sorting by it shuffles. It depends on the seed and the row's id alone, on any machine and version."""
    return hashlib.sha256(f"{seed}:{row.id!r}".encode()).digest()


def _group_by_stratum(rows: Sequence[Row], kind: str) -> Mapping[object, list[Row]]:
    """Rows by class, or by tenth of the numbers' ranks."""
    groups: dict[object, list[Row]] = collections.defaultdict(list)
    if kind == "classification":
        for row in rows:
            groups[row.label].append(row)
    else:
        for rank, row in enumerate(sorted(rows, key=lambda row: float(row.label))):
            groups[rank * REGRESSION_STRATA // len(rows)].append(row)
    return groups


def stratified_split(rows: Sequence[Row], fraction: float, kind: str, seed: int) -> tuple[list[Row], list[Row]]:
    """(selected, remaining): `fraction` of the rows, rounded, in the same proportion from every class; both shuffled.

    At least one row of each class remains.
    """
    selected: list[Row] = []
    seen = 0
    groups = _group_by_stratum(rows, kind)
    for key in sorted(groups, key=str):
        group = sorted(groups[key], key=lambda row: _shuffle_key(row, seed))
        seen += len(group)
        # Rounding the running total, not the count of each class, makes the overall fraction exact.
        count = min(round(seen * fraction) - len(selected), len(group) - 1)
        selected += group[: max(count, 0)]
    ids = {row.id for row in selected}
    remaining = [row for row in rows if row.id not in ids]
    return (
        sorted(selected, key=lambda row: _shuffle_key(row, seed)),
        sorted(remaining, key=lambda row: _shuffle_key(row, seed)),
    )


def remove_texts_of(rows: Sequence[Row], others: Sequence[Row]) -> list[Row]:
    """The rows whose text or pair of texts is none of the others'. White space around a text is ignored."""

    def key(row: Row) -> tuple[str, str]:
        return row.text.strip(), (row.text_b or "").strip()

    texts = {key(row) for row in others}
    return [row for row in rows if key(row) not in texts]


def split_rows(rows: Sequence[Row], kind: str, seed: int) -> tuple[dict[str, list[Row]], int]:
    """(rows of "train", "validation" and "test", the number of rows removed because their text is in test).

    Rows whose split is "test" are the test split, if there are any. Raises UserError if a split would be empty.
    """
    test = [row for row in rows if row.split == "test"]
    if test:
        others = [row for row in rows if row.split != "test"]
        fraction = VALIDATION_FRACTION_OF_TRAIN
    else:
        test, others = stratified_split(rows, TEST_FRACTION, kind, seed)
        fraction = VALIDATION_FRACTION / (1 - TEST_FRACTION)
    unique = remove_texts_of(others, test)
    validation, train = stratified_split(unique, fraction, kind, seed)
    splits = {"train": train, "validation": validation, "test": sorted(test, key=lambda row: _shuffle_key(row, seed))}
    empty = [name for name, part in splits.items() if not part]
    if empty:
        required = "have enough rows for train, validation and test"
        raise UserError(Problem("The source", required, f"{len(rows)} rows, too few for any row of {', '.join(empty)}"))
    return splits, len(others) - len(unique)


def find_label_problems(splits: Mapping[str, Sequence[Row]]) -> list[Problem]:
    """What is wrong with the classes: there is only one, or a split has classes that train has not."""
    labels = {row.label for rows in splits.values() for row in rows}
    if len(labels) < 2:
        return [Problem("The labels", "be of at least two classes", f"one class, {min(labels)!r}")]
    known = {row.label for row in splits["train"]}
    problems = []
    for name, rows in splits.items():
        unknown = sorted({row.label for row in rows} - known)
        if unknown:
            received = f"{', '.join(map(repr, unknown[:5]))} in {name} only"
            advice = "Check that --label_column is right in both files."
            problems.append(Problem("Every label", "appear in train", received, advice))
    return problems

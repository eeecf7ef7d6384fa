"""The section on parts of test: by length, and by the columns that were kept at preparation."""

import collections
from collections.abc import Mapping, Sequence

import numpy as np

from trainer.data.records import Columns
from trainer.evals import intervals
from trainer.report.facts import ReportFacts
from trainer.report.page import Cell, Section, Table, number, percent

# A column's values of which a table shows the most frequent ones.
MAX_VALUES = 12
# Of fewer examples, the interval says more than the figure, and no sentence is made of it.
MIN_EXAMPLES = 30


def section(facts: ReportFacts) -> Section | None:
    columns = facts.columns.get("test")
    if columns is None or facts.manifest.kind not in ("classification", "regression"):
        return None
    groups = {
        "length in tokens": by_length(columns),
        **{name: by_value(values) for name, values in columns.kept.items()},
    }
    tables = [_table(facts, name, rows) for name, rows in groups.items()]
    return Section(
        "slices",
        "Where it is better and worse",
        [describe(facts, rows, name) for name, rows in groups.items()],
        tables=tables,
        method=["Intervals: 95 %, bootstrap. Small groups differ by chance."] if facts.by_class else [],
    )


def by_length(columns: Columns) -> dict[str, np.ndarray]:
    """ "17 to 32" -> rows, int64: groups that double, without empty ones."""
    lengths = columns.lengths()
    bounds = np.ceil(np.log2(np.maximum(lengths, 1))).astype(int)
    return {
        f"{(1 << int(b)) // 2 + 1:,} to {1 << int(b):,}" if b else "0 to 1": np.flatnonzero(bounds == b)
        for b in np.unique(bounds)
    }


def by_value(values: Sequence[str]) -> dict[str, np.ndarray]:
    """A value -> its rows, the most frequent first; those of the others together."""
    counts = collections.Counter(values)
    shown = [value for value, _ in counts.most_common(MAX_VALUES)]
    array = np.array(values, dtype=object)
    rows = {value: np.flatnonzero(array == value) for value in shown}
    others = len(counts) - len(shown)
    if others:
        rows[f"({others:,} other values)"] = np.flatnonzero([value not in rows for value in values])
    return rows


def _scores(facts: ReportFacts) -> np.ndarray:
    """float64 or bool [N]: whether each example of test is right, or its absolute error."""
    predictions = facts.predictions["test"]
    if facts.by_class:
        right: np.ndarray = predictions.predicted == predictions.labels
        return right
    return np.abs(predictions.logits[:, 0].astype(np.float64) - predictions.labels)


def describe(facts: ReportFacts, groups: Mapping[str, np.ndarray], name: str) -> str:
    """Whether a group differs from the rest by more than chance, as a sentence."""
    scores = _scores(facts)
    large = {value: rows for value, rows in groups.items() if len(rows) >= MIN_EXAMPLES}
    if len(large) < 2:
        return f"By {name}: too few examples in all groups but one to compare them."
    means = {value: float(scores[rows].mean()) for value, rows in large.items()}
    worst = (min if facts.by_class else max)(means, key=lambda value: means[value])
    if not facts.by_class:
        return f"By {name}: the mean absolute error is largest for {worst} ({means[worst]:.4g})."
    low, high = intervals.share_interval(scores[large[worst]])
    if high < scores.mean():
        return (
            f"By {name}: it is worst for {worst}, right {percent(means[worst])} of the time "
            f"({percent(low)} to {percent(high)}), where it is {percent(float(scores.mean()))} for all."
        )
    return f"By {name}: no group of {MIN_EXAMPLES} examples or more is clearly worse than the whole."


def _table(facts: ReportFacts, name: str, groups: Mapping[str, np.ndarray]) -> Table:
    scores = _scores(facts)
    rows = []
    for value, chosen in groups.items():
        note = intervals.describe(intervals.share_interval(scores[chosen])) if facts.by_class else ""
        rows.append([Cell(value), number(len(chosen)), number(float(scores[chosen].mean()), note=note)])
    return Table(f"Test by {name}", ["", "examples", "accuracy" if facts.by_class else "mean absolute error"], rows)

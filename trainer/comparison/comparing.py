"""Runs to what is shown of their comparison: plain values, and the same as a table of text."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trainer.comparison import compared_runs, paired
from trainer.comparison.compared_runs import ComparedRun
from trainer.comparison.paired import Difference, McNemar
from trainer.data.labels import format_figure, format_number
from trainer.runtime import text_tables

SHOWN_TEXTS = 20


@dataclasses.dataclass(frozen=True)
class Pair:
    """A run, compared with the first."""

    name: str
    differences: Sequence[Difference]
    mcnemar: McNemar | None  # None for numbers.


@dataclasses.dataclass(frozen=True)
class Example:
    """A test text on which the runs disagree."""

    example_id: str
    text: str  # "" if the data set cannot be read any more.
    label: str
    predicted: Sequence[str]  # Of each run.
    right: Sequence[bool]  # False for numbers.


@dataclasses.dataclass(frozen=True)
class Comparison:
    names: Sequence[str]  # Of the runs.
    examples: int  # Of the test.
    resamples: int
    settings: Mapping[str, Sequence[Any]]  # Those that differ, by key.
    figures: Mapping[str, Sequence[str]]  # Metrics, steps, seconds, as text.
    pairs: Sequence[Pair]
    disagreements: Sequence[Example]  # Those of the largest difference in loss.


def compare_runs(runs: Sequence[ComparedRun], resamples: int) -> Comparison:
    """Compare each run with the first one. Reads the data set for the texts that are shown, where it is there."""
    first, *others = runs
    pairs = [
        Pair(
            run.name,
            paired.bootstrap_differences(first.predictions, run.predictions, resamples),
            paired.compare_right_answers(first.predictions, run.predictions),
        )
        for run in others
    ]
    return Comparison(
        names=[run.name for run in runs],
        examples=len(first.predictions.ids),
        resamples=resamples,
        settings=compared_runs.find_differing_settings(runs),
        figures=_collect_figures(runs),
        pairs=pairs,
        disagreements=_find_disagreements(runs),
    )


def _collect_figures(runs: Sequence[ComparedRun]) -> dict[str, list[str]]:
    figures: dict[str, list[str]] = {}
    for split in ("test", "validation"):
        for metric in dict.fromkeys(name for run in runs for name in run.result[split]):
            figures[f"{split} {metric.replace('_', ' ')}"] = [
                format_figure(run.result[split].get(metric)) for run in runs
            ]
    for key in ("best_step", "steps", "seconds"):
        figures[key.replace("_", " ")] = [format_figure(round(run.result[key])) for run in runs]
    return figures


def _find_disagreements(runs: Sequence[ComparedRun]) -> list[Example]:
    """Of classes the examples that some runs have right and others wrong; of numbers all. The largest losses first."""
    first = runs[0].predictions
    losses = np.stack([run.predictions.losses for run in runs])
    predicted = np.stack([run.predictions.predicted for run in runs])
    names = np.array(first.source.labels, object)
    right = np.stack([run.predictions.right for run in runs])
    differ = right.any(axis=0) & ~right.all(axis=0) if len(names) else np.ones(len(first.ids), bool)
    spread = np.where(differ, losses.max(axis=0) - losses.min(axis=0), -np.inf)
    order = np.argsort(-spread, kind="stable")[: min(SHOWN_TEXTS, int(differ.sum()))]
    rows = [int(row) for row in order]
    texts = compared_runs.read_texts(runs, rows) or [""] * len(rows)

    def show(value: Any) -> str:
        if not len(names):
            return format_number(float(value))
        return ", ".join(np.atleast_1d(names[value])) or "none"

    return [
        Example(
            example_id=first.ids[row],
            text=text,
            label=show(first.labels[row]),
            predicted=[show(value) for value in predicted[:, row]],
            right=[bool(each) and bool(len(names)) for each in right[:, row]],
        )
        for row, text in zip(rows, texts, strict=True)
    ]


def format_comparison(comparison: Comparison) -> str:
    """The settings that differ, the figures, and how each run differs from the first."""
    cells = [["", *comparison.names]]
    cells += [[key, *map(str, values)] for key, values in comparison.settings.items()]
    cells += [[name, *values] for name, values in comparison.figures.items()]
    lines = [text_tables.align_columns(cells)]
    for pair in comparison.pairs:
        lines += ["", f"{pair.name} minus {comparison.names[0]}, on the same {comparison.examples:,} test texts"]
        rows = [[each.metric.replace("_", " "), *describe_difference(each)] for each in pair.differences]
        lines.append(text_tables.align_columns([["", "difference", "95 % interval"], *rows]))
        if pair.mcnemar:
            lines.append(describe_mcnemar(pair.mcnemar, comparison.names[0], pair.name))
    return "\n".join(lines)


def describe_difference(difference: Difference) -> tuple[str, str]:
    """("+0.0120", "-0.0010 to +0.0250")."""
    value, low, high = (f"{each:+.4f}" for each in (difference.value, difference.low, difference.high))
    return value, f"{low} to {high}"


def describe_mcnemar(found: McNemar, first: str, second: str) -> str:
    return (
        f"Right by {second} alone {found.only_second:,}, by {first} alone {found.only_first:,}: McNemar's exact "
        f"p = {found.p_value:.3g}"
    )

"""A comparison as a page like a run's report."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from trainer.comparison import comparing
from trainer.comparison.comparing import Comparison, Example
from trainer.comparison.paired import Difference
from trainer.report import charts, page
from trainer.report.page import Cell, Figure, Passage, Piece, Section, Table

_INTERVAL_INCHES = (5.0, 1.1)


def render_page(comparison: Comparison) -> str:
    """The page."""
    names = comparison.names
    sections = [
        Section("results", "Results", tables=[_table("The same test texts", names, comparison.figures)]),
        Section(
            "settings",
            "Settings that differ",
            [] if comparison.settings else ["None."],
            tables=[_table("Settings", names, comparison.settings)] if comparison.settings else [],
        ),
        _difference_section(comparison),
    ]
    if comparison.disagreements:
        passages = [_passage(example, names) for example in comparison.disagreements]
        sections.append(Section("texts", "Where they differ most", passages=passages))
    subtitle = f"On the same {comparison.examples:,} test texts. Differences are those from {names[0]}."
    return page.render(", ".join(names), subtitle, sections)


def _table(caption: str, names: Sequence[str], rows: Mapping[str, Sequence[Any]]) -> Table:
    cells = [[Cell(name), *(Cell(str(value)) for value in values)] for name, values in rows.items()]
    return Table(caption, ["", *names], cells)


def _difference_section(comparison: Comparison) -> Section:
    first = comparison.names[0]
    of_pair = {f"{pair.name} minus {first}": pair for pair in comparison.pairs}
    return Section(
        "differences",
        "Differences",
        [f"{comparing.describe_mcnemar(pair.mcnemar, first, pair.name)}." for pair in comparison.pairs if pair.mcnemar],
        figures=[
            Figure(_draw_interval(f"pair{number}{each.metric}", each), f"{name}. The dashed line is no difference.")
            for number, (name, pair) in enumerate(of_pair.items())
            for each in pair.differences
        ],
        tables=[_difference_table(name, pair.differences) for name, pair in of_pair.items()],
        method=[
            f"Intervals: percentiles of {comparison.resamples:,} resamples of the test texts, the same for both runs, "
            "with a fixed seed. They say what other test texts could change; what another seed of training changes, "
            "several runs show. Several comparisons are not corrected for."
        ],
    )


def _difference_table(caption: str, differences: Sequence[Difference]) -> Table:
    rows = [[Cell(_title(each)), *map(Cell, comparing.describe_difference(each))] for each in differences]
    return Table(caption, ["", "difference", "95 % interval"], rows)


def _title(difference: Difference) -> str:
    return difference.metric.replace("_", " ")


def _draw_interval(chart: str, difference: Difference) -> str:
    return charts.draw(chart, _title(difference), functools.partial(_plot_interval, difference), _INTERVAL_INCHES)


def _plot_interval(difference: Difference, axes: Any) -> None:
    axes.axvline(0, color=charts.MUTED, linewidth=1, linestyle="dashed")
    axes.plot([difference.low, difference.high], [0, 0], color=charts.ACCENT)
    axes.plot([difference.value], [0], "o", color=charts.ACCENT)
    axes.set_yticks([])


def _passage(example: Example, names: Sequence[str]) -> Passage:
    answers = [
        f"{name}: {predicted}{' ✓' if right else ''}"
        for name, predicted, right in zip(names, example.predicted, example.right, strict=True)
    ]
    return Passage([f"{example.example_id}: {example.label}", *answers], [Piece(example.text)])

"""The chart of results: what was measured once as bars, and growth as curves."""

import io
import math
from collections.abc import Sequence
from typing import Any

from trainer.benchmarks.results import ALL_ROWS, Line, Results, format_number, summarize
from trainer.benchmarks.rows import PEER
from trainer.storage import fs

COLUMNS = 3
_OWN_COLOR, _PEER_COLOR = "tab:blue", "tab:orange"


def draw_results(results: Results, path: str) -> None:
    """A panel for each figure: bars of the medians with half the spread on each side, or medians by size."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels: dict[tuple[str, str], list[Line]] = {}
    for line in summarize(results.samples):
        panels.setdefault((line.row, line.key), []).append(line)
    if not panels:
        return
    rows = math.ceil(len(panels) / COLUMNS)
    size = (5.2 * COLUMNS, 2.6 * rows)
    figure, axes = pyplot.subplots(rows, COLUMNS, figsize=size, dpi=100, squeeze=False, layout="constrained")
    for each, lines in zip(axes.flat, panels.values(), strict=False):
        if lines[0].size is None:
            _draw_bars(each, lines[0])
        else:
            _draw_curve(each, lines)
        unit = f", {lines[0].figure.unit}" if lines[0].figure.unit else ""
        better = "higher" if lines[0].figure.higher_is_better else "lower"
        title = f"{ALL_ROWS[lines[0].row].title}{lines[0].figure.title}{unit}\n({better} is better)"
        each.set_title(title, fontsize=8, parse_math=False)
        each.grid(alpha=0.3)
    for each in axes.flat[len(panels) :]:
        each.set_visible(False)
    machine = results.machine
    title = f"{machine['cores']} cores of {machine['processor']}, trained in {results.settings['precision']}"
    figure.suptitle(title, parse_math=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    pyplot.close(figure)
    fs.write_bytes(path, buffer.getvalue())


def _color(contender: str) -> str:
    return _PEER_COLOR if contender.startswith(PEER) else _OWN_COLOR


def _draw_bars(axes: Any, line: Line) -> None:
    names = list(line.statistics)
    medians = [each.median for each in line.statistics.values()]
    spreads = [each.spread / 2 for each in line.statistics.values()]
    bars = axes.barh(names, medians, xerr=spreads, color=[_color(name) for name in names], alpha=0.8)
    axes.bar_label(bars, [format_number(value) for value in medians], padding=4, fontsize=7)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.tick_params(labelsize=7)


def _draw_curve(axes: Any, lines: Sequence[Line]) -> None:
    for number, name in enumerate(dict.fromkeys(name for line in lines for name in line.statistics)):
        points = sorted((line.size or 0, line.statistics[name].median) for line in lines if name in line.statistics)
        style = "-" if number == 0 else "--"
        axes.plot(*zip(*points, strict=True), style, marker="o", markersize=3, color=_color(name), label=name)
    sizes = [line.size or 1 for line in lines]
    if max(sizes) / min(sizes) > 20:
        axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.tick_params(labelsize=7)
    axes.legend(fontsize=7)

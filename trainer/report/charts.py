"""Charts as SVG for the page, drawn by matplotlib and colored by the page's variables, so that they fit light and dark.

Texts stay texts (svg.fonttype none), and ids have the chart's name before them, since all are in one document.
"""

import io
import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

# matplotlib writes each of these colors as it is; the page has the variable in its place.
INK, MUTED, LINE, ACCENT, WARM = "#0a0b01", "#0a0b02", "#0a0b03", "#0a0b04", "#0a0b05"
_VARIABLES = {INK: "ink", MUTED: "muted", LINE: "line", ACCENT: "accent", WARM: "warm"}
# A page shows no more points of a curve than this, and a browser draws no more in a reasonable time.
MAX_POINTS = 300
_SIZE_INCHES = (5.0, 3.2)
_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "hubtune",
    "font.size": 10,
    "text.color": INK,
    "text.parse_math": False,  # A class's name may have dollar signs.
    "axes.labelcolor": MUTED,
    "axes.edgecolor": LINE,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.6,
}


def draw(name: str, title: str, plot: Callable[[Any], None], size_inches: tuple[float, float] = _SIZE_INCHES) -> str:
    """The SVG of one chart. `plot` draws into matplotlib's Axes; `name` is unique in a page, of letters."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    # A letter that matplotlib's font lacks is the browser's to draw.
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        figure = Figure(figsize=size_inches, layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        plot(axes)
        axes.set_title(title)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _for_page(buffer.getvalue(), name, title)


def _for_page(svg: str, name: str, title: str) -> str:
    """The <svg> element alone, with the page's colors, its own ids and a title for screen readers."""
    from markupsafe import escape

    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r"url\(#", f"url(#{name}-", svg)
    svg = re.sub(r'href="#', f'href="#{name}-', svg)
    for color, variable in _VARIABLES.items():
        svg = svg.replace(color, f"var(--{variable})")
    # The element's size is the page's to decide; its viewBox keeps the proportions.
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(title)}" ', 1)


def thin(*columns: Sequence[float] | np.ndarray) -> list[np.ndarray]:
    """At most MAX_POINTS points of a curve, evenly chosen, its first and last among them.

    A column has a coordinate of each point: [points].
    """
    count = len(columns[0])
    chosen = np.unique(np.linspace(0, count - 1, min(count, MAX_POINTS)).round().astype(int))
    return [np.asarray(column)[chosen] for column in columns]

"""sweep.png: the metric of every trial by each setting of the space."""

import io
import math
from collections.abc import Sequence
from typing import Any

from trainer.config import loading
from trainer.storage import fs
from trainer.sweeps import results
from trainer.sweeps.results import TrialState

PICTURE_FILE = "sweep.png"
# Values that span more than this factor are drawn on a logarithmic scale.
LOG_SCALE_FACTOR = 10
MAX_PANELS_IN_A_ROW = 3


def draw_sweep(states: Sequence[TrialState], metric: str, path: str) -> None:
    """Draw a panel for each setting: the mean of a trial with its lowest and highest, and a point for each seed.

    Trials that are not finished are hollow. Nothing is drawn of a sweep without an evaluation.
    """
    from matplotlib.figure import Figure

    valued = [each for each in states if each.value is not None]
    if not valued:
        return
    keys = list(valued[0].trial.settings)
    columns = min(len(keys), MAX_PANELS_IN_A_ROW)
    rows = math.ceil(len(keys) / columns)
    figure = Figure(figsize=(4.2 * columns, 3.6 * rows), dpi=110)
    panels = figure.subplots(rows, columns, squeeze=False)
    for axes, key in zip(panels.flat, keys, strict=False):
        _draw_setting(axes, valued, key, metric)
    for axes in panels.flat[len(keys) :]:
        axes.set_visible(False)
    figure.suptitle(f"{metric.replace('_', ' ')} on validation by setting; hollow: not trained to the end")
    figure.tight_layout()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    fs.write_bytes(path, buffer.getvalue())


def _draw_setting(axes: Any, states: Sequence[TrialState], key: str, metric: str) -> None:
    values = [each.trial.settings[key] for each in states]
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    names = list(dict.fromkeys(loading.format_value(value) for value in values))
    for each, value in zip(states, values, strict=True):
        x = value if numbers else names.index(loading.format_value(value))
        assert each.value is not None
        below, above = each.value.mean - each.value.min, each.value.max - each.value.mean
        face = "tab:blue" if each.finished else "white"
        axes.errorbar(
            [x], [each.value.mean], yerr=[[below], [above]], fmt="o", color="tab:blue", mfc=face, capsize=3, alpha=0.8
        )
        seeds = [line[metric] for state in each.runs if (line := results.best_evaluation(state, metric))]
        axes.plot([x] * len(seeds), seeds, ".", color="grey", markersize=4, alpha=0.6)
    if not numbers:
        axes.set_xticks(range(len(names)), names)
    elif min(values) > 0 and max(values) / min(values) >= LOG_SCALE_FACTOR:
        axes.set_xscale("log")
    axes.margins(x=0.15)
    axes.set_xlabel(key)
    axes.grid(alpha=0.3)

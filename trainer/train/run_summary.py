"""What a run shows at its end: history.png, tables and the closing summary."""

import collections
import io
import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from trainer.data.labels import format_figure, format_number
from trainer.runtime import text_tables
from trainer.storage import fs
from trainer.train import decisions, metrics_log

# Of more classes, a terminal has no room for the confusion, and the table shows those that are worst.
MAX_SHOWN_CLASSES = 10
MAX_NAME_CHARACTERS = 24
# How a split is drawn in history.png.
_STYLES: dict[str, dict[str, Any]] = {
    "train": dict(color="tab:blue", linewidth=1.2, alpha=0.8),
    "validation": dict(color="tab:orange", marker="o"),
    "test": dict(color="tab:green", marker="*", markersize=12, linestyle="none"),
}


def draw_history(
    history: metrics_log.MetricsHistory,
    metric: str,
    best_step: int,
    path: str,
    title: str,
    squared_unit: float | None = None,
) -> None:
    """Draw loss and metric over the steps, for training and validation, with the best step and the test marked.

    For numbers, whose loss is that of standardized ones, `squared_unit` is the square of their deviation: the mean
    squared error in their own units is drawn instead.
    """
    from matplotlib.figure import Figure  # Not pyplot: its backend may be a notebook's.

    figure = Figure(figsize=(11, 4.2), dpi=110)
    left, right = figure.subplots(1, 2)
    _draw_metric(left, history, "loss", best_step, squared_unit or 1.0)
    if squared_unit is not None:
        left.set_title("mean squared error")
    _draw_metric(right, history, metric, best_step)
    figure.suptitle(title, parse_math=False)  # A path in it may have dollar signs.
    figure.tight_layout()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    fs.write_bytes(path, buffer.getvalue())


def _draw_metric(axes: Any, history: metrics_log.MetricsHistory, name: str, best_step: int, unit: float = 1.0) -> None:
    """Draw a metric times `unit` over the steps. A value that is not finite is left out."""
    for split, style in _STYLES.items():
        lines = [line for line in history.of(split) if math.isfinite(line.get(name, math.nan))]
        points = [(line["step"], line[name] * unit) for line in lines]
        if points:
            label = f"test: {format_number(points[-1][1])}" if split == "test" else split
            axes.plot(*zip(*points, strict=True), label=label, **style)
    axes.axvline(best_step, color="grey", linestyle=":", linewidth=1, label=f"best step: {best_step}")
    axes.set_xlabel("step")
    axes.set_title(name.replace("_", " "))
    axes.grid(alpha=0.3)
    axes.legend()


def format_duration(seconds: float) -> str:
    """75.2 -> "1 min 15 s"."""
    total = round(seconds)
    parts = [(total // 3600, "h"), (total % 3600 // 60, "min"), (total % 60, "s")]
    shown = [f"{count} {unit}" for count, unit in parts if count][:2]
    return " ".join(shown) or "0 s"


def format_table(rows: Sequence[tuple[str, Mapping[str, float]]]) -> str:
    """A table of (name, metrics): a row for each name, a column for each metric."""
    names = list(dict.fromkeys(name for _, metrics in rows for name in metrics))
    cells = [["", *(name.replace("_", " ") for name in names)]]
    for name, metrics in rows:
        cells.append([name, *(format_figure(metrics.get(column)) for column in names)])
    return text_tables.align_columns(cells)


def _shorten(names: Iterable[str]) -> dict[str, str]:
    """Each name in one line, and cut if that leaves it different from the others."""
    lines = {name: " ".join(name.split()) for name in names}
    cut = {
        name: line if len(line) <= MAX_NAME_CHARACTERS else f"{line[: MAX_NAME_CHARACTERS - 3]}..."
        for name, line in lines.items()
    }
    counts = collections.Counter(cut.values())
    return {name: cut[name] if counts[cut[name]] == 1 else line for name, line in lines.items()}


def format_classes(classes: Mapping[str, Any], split: str) -> list[str]:
    """What the metrics are of, a table by class, and the confusion, as lines. `classes` is of runs.describe_classes.

    Of more than MAX_SHOWN_CLASSES classes, those of lowest F1, and no confusion, which several labels do not have.
    Nothing for regression.
    """
    if not classes:
        return []
    by_class, positive = classes["by_class"], classes.get("positive_class")
    several = "confusion" not in classes
    of = "means over the classes" if positive is None else f"those of the class {positive!r}"
    shown = sorted(by_class, key=lambda name: by_class[name]["f1"])[:MAX_SHOWN_CLASSES]
    many = len(by_class) > MAX_SHOWN_CLASSES
    what = "labels" if several else "classes"
    which = f", the {len(shown)} of {len(by_class)} {what} with the lowest F1" if many else ""
    short = _shorten(by_class)
    rows = [(short[name], by_class[name]) for name in (shown if many else by_class)]
    explained = (
        "macro F1 is the mean over all labels, average precision that over the labels that occur; micro counts each "
        "pair of an example and a label alike"
        if several
        else f"precision, recall, F1, ROC AUC and average precision are {of}; macro F1 is the mean over all classes"
    )
    lines = [explained, f"{split} by {'label' if several else 'class'}{which}", format_table(rows)]
    if many or several:
        return lines
    cells = [["", *short.values()]]
    cells += [
        [short[name], *(f"{classes['confusion'][name].get(predicted, 0):,}" for predicted in by_class)]
        for name in by_class
    ]
    return [*lines, f"{split} by class (rows) and predicted class (columns)", text_tables.align_columns(cells)]


def format_evaluation(rows: Sequence[tuple[str, Mapping[str, float]]], classes: Mapping[str, Any]) -> str:
    """The metrics of (name, metrics), and of the first by class."""
    return "\n".join([format_table(rows), *format_classes(classes, rows[0][0])])


def format_summary(result: Mapping[str, Any], model_dir: str, export: str, tensorboard: str, page: str = "") -> str:
    """The closing summary of a run from result.json's values. `export` and `tensorboard` are folders.

    `page` is the path of report.html, "" if there is none.
    """
    # A tab separates the texts of a pair.
    example = r"$'the first text\tthe second'" if result.get("texts") == 2 else '"this is such an amazing movie!"'
    events = f"{tensorboard.removeprefix(f'{model_dir}/')}/"
    metric = f" {result['best_metric'].replace('_', ' ')}" if "best_metric" in result else ""
    planned = f" of {result['planned_steps']:,} planned" if result.get("stopped_early") else ""
    lines = [
        "",
        f"finished: {result['steps']:,} steps{planned} in {format_duration(result['seconds'])}; "
        f"best at step {result['best_step']:,} by validation{metric}",
        format_table([(split, result[split]) for split in ("validation", "test")]),
        *format_classes(result.get("test_classes", {}), "test"),
    ]
    lines += decisions.format_decision(result)
    if scale := result.get("label_scale"):
        sign = "-+"[scale["mean"] < 0]
        lines.append(
            f"the loss is that of (label {sign} {abs(scale['mean']):.6g}) / {scale['deviation']:.6g}; the mean squared "
            "error is in the label's own units"
        )
    lines += [
        *(f"note: {note}" for note in result.get("notes", [])),
        f"results    {shlex.quote(f'{model_dir}/result.json')}, metrics.jsonl, history.png, {events}",
        *([f"report     {shlex.quote(page)}"] if page else []),
        f"model      {shlex.quote(export)}",
        f"try it     python scripts/predict.py --model={shlex.quote(export)} {example}",
    ]
    return "\n".join(lines)

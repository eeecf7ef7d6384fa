"""What a run shows at its end: history.png, tables and the closing summary."""

import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from trainer.storage import fs
from trainer.train import metrics_log


def draw_history(history: metrics_log.MetricsHistory, metric: str, path: str, title: str) -> None:
    """Draw loss and metric over the steps, for training and validation, with the best step and the test marked."""
    import io

    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    best = history.best(metric)
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.2), dpi=110)
    for axes, name in ((left, "loss"), (right, metric)):
        for split, style in (
            ("train", dict(color="tab:blue", linewidth=1.2, alpha=0.8)),
            ("validation", dict(color="tab:orange", marker="o")),
        ):
            points = [
                (line["step"], line[name]) for line in history.of(split) if name in line and math.isfinite(line[name])
            ]
            if points:
                axes.plot(*zip(*points, strict=True), label=split, **style)
        for line in history.of("test"):
            axes.plot(
                line["step"],
                line[name],
                marker="*",
                markersize=12,
                linestyle="none",
                color="tab:green",
                label=f"test: {line[name]:.4f}",
            )
        if best:
            axes.axvline(best["step"], color="grey", linestyle=":", linewidth=1, label=f"best step: {best['step']}")
        axes.set_xlabel("step")
        axes.set_title(name.replace("_", " "))
        axes.grid(alpha=0.3)
        axes.legend()
    figure.suptitle(title)
    figure.tight_layout()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    pyplot.close(figure)
    fs.write_bytes(path, buffer.getvalue())


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
        cells.append([name, *(_cell(metrics.get(column)) for column in names)])
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    )


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.4f}"


def format_summary(result: Mapping[str, Any], model_dir: str, export: str, tensorboard: str) -> str:
    """The closing summary of a run from result.json's values. `export` and `tensorboard` are folders."""
    events = f"{tensorboard.removeprefix(f'{model_dir}/')}/"
    lines = [
        "",
        f"finished: {result['steps']:,} steps in {format_duration(result['seconds'])}; "
        f"best at step {result['best_step']:,} by validation",
        format_table([(split, result[split]) for split in ("validation", "test")]),
        f"results    {shlex.quote(f'{model_dir}/result.json')}, metrics.jsonl, history.png, {events}",
        f"model      {shlex.quote(export)}",
        f'try it     python scripts/predict.py --model={shlex.quote(export)} "this is such an amazing movie!"',
    ]
    return "\n".join(lines)

"""What a run says of itself: metrics.jsonl, TensorBoard's events, history.png, and the closing summary."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from trainer import storage

Line = dict[str, Any]  # {"step", "split", "examples", "loss", metric...}


@dataclasses.dataclass
class History:
    """metrics.jsonl. It is small, and written whole: it is never cut."""

    path: str | None  # None: only in memory
    lines: list[Line]

    def add(self, line: Line) -> None:
        self.lines.append(line)
        # An object takes one write a second (https://cloud.google.com/storage/quotas): train's lines go with the next
        # checkpoint, before which a run that was cut does them again.
        if line["split"] != "train" or not (self.path and storage.in_bucket(self.path)):
            self.publish()

    def drop_after(self, step: int) -> None:
        """Forget what was logged beyond a checkpoint's step: the run does it again."""
        self.lines = [line for line in self.lines if line["step"] <= step]
        self.publish()

    def of(self, split: str) -> list[Line]:
        return [line for line in self.lines if line["split"] == split]

    def at(self, split: str, step: int) -> Line | None:
        return next((line for line in self.of(split) if line["step"] == step), None)

    def best(self, metric: str) -> Line | None:
        """The validation line with the highest metric, the earliest of equals."""
        return max(self.of("validation"), key=lambda line: (line[metric], -line["step"]), default=None)

    def publish(self) -> None:
        """Write the file as the lines are."""
        if self.path:
            storage.write_text(self.path, "".join(json.dumps(line) + "\n" for line in self.lines))


def read_history(path: str, *, keep: bool = True) -> History:
    """The history so far. With `keep` off, what is added to it is not written."""
    text = storage.read_text(path) if storage.exists(path) else ""
    return History(path if keep else None, [json.loads(line) for line in text.splitlines()])


def metrics_of(line: Mapping[str, Any]) -> dict[str, float]:
    """A line's results, without when they were had."""
    return {key: value for key, value in line.items() if key not in ("step", "split", "seconds")}


@dataclasses.dataclass(frozen=True)
class Events:
    """TensorBoard's events: a folder a split, so that it draws their curves over one another.

    TensorFlow writes them `here`: to a bucket, it would upload a file whole again for every line.
    """

    folder: str
    here: str
    writers: dict[str, tf.summary.SummaryWriter] = dataclasses.field(default_factory=dict)

    def add(self, line: Line) -> None:
        split = line["split"]
        if split not in self.writers:
            self.writers[split] = tf.summary.create_file_writer(storage.join(self.here, split))
        with self.writers[split].as_default(step=line["step"]):
            for name, value in metrics_of(line).items():
                tf.summary.scalar(name, value)
        self.writers[split].flush()

    def publish(self) -> None:
        """Bring the folder up to date, where it is in a bucket. Raises what writing there raises."""
        if self.here != self.folder:
            storage.copy_folder(self.here, self.folder)


def open_events(folder: str) -> Events:
    return Events(folder, storage.scratch(folder))


def write_picture(history: History, metric: str, path: str, title: str) -> None:
    """history.png: loss and metric, training and validation, over the steps; the best step and the test marked."""
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
    storage.write_bytes(path, buffer.getvalue())


def duration(seconds: float) -> str:
    """75.2 -> "1 min 15 s"."""
    whole = round(seconds)
    parts = [(whole // 3600, "h"), (whole % 3600 // 60, "min"), (whole % 60, "s")]
    shown = [f"{count} {unit}" for count, unit in parts if count][:2]
    return " ".join(shown) or "0 s"


def table(rows: Sequence[tuple[str, Mapping[str, float]]]) -> str:
    """Metrics as columns, a row for each name."""
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


def summary(result: Mapping[str, Any], model_dir: str, export: str, tensorboard: str) -> str:
    """The closing words of a run, from its result.json; `export` and `tensorboard` are folders."""
    events = f"{tensorboard.removeprefix(f'{model_dir}/')}/"
    lines = [
        "",
        f"finished: {result['steps']:,} steps in {duration(result['seconds'])}; best at step {result['best_step']:,} "
        "by validation",
        table([(split, result[split]) for split in ("validation", "test")]),
        f"results    {model_dir}/result.json, metrics.jsonl, history.png, {events}",
        f"model      {export}",
        f'try it     python scripts/predict.py --model={export} "this is such an amazing movie!"',
    ]
    return "\n".join(lines)

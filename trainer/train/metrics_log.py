"""What a run logs: metrics.jsonl and TensorBoard's events."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from trainer.data import tasks
from trainer.storage import fs

LogLine = dict[str, Any]  # {"step", "split", "examples", "loss", metric...}


@dataclasses.dataclass
class MetricsHistory:
    """metrics.jsonl. It is small and always replaced as a unit, so that it is never truncated."""

    path: str | None  # None: the history is only in memory.
    lines: list[LogLine]

    def add(self, line: LogLine) -> None:
        self.lines.append(line)
        # An object accepts one write a second (https://cloud.google.com/storage/quotas). Train lines are written with
        # the next checkpoint; a run that is interrupted before it computes them again.
        if line["split"] != "train" or not (self.path and fs.in_bucket(self.path)):
            self.publish()

    def drop_after(self, step: int) -> None:
        """Delete the lines after a checkpoint's step: the resumed run writes them again."""
        self.lines = [line for line in self.lines if line["step"] <= step]
        self.publish()

    def of(self, split: str) -> list[LogLine]:
        return [line for line in self.lines if line["split"] == split]

    def at(self, split: str, step: int) -> LogLine | None:
        return next((line for line in self.of(split) if line["step"] == step), None)

    def best(self, metric: str) -> LogLine | None:
        """The best validation line (rank), the earliest of equals."""
        return max(self.of("validation"), key=lambda line: (*rank(line, metric), -line["step"]), default=None)

    def evaluations_since_best(self, metric: str) -> int:
        """How many validation lines in a row, the newest ones, are no better than one before them."""
        best = self.best(metric)
        return sum(line["step"] > best["step"] for line in self.of("validation")) if best else 0

    def publish(self) -> None:
        """Write the file."""
        if self.path:
            fs.write_text(self.path, "".join(json.dumps(line) + "\n" for line in self.lines))


def read_history(path: str, *, keep: bool = True) -> MetricsHistory:
    """The history so far. With `keep` off, what is added to it is not written to the file."""
    text = fs.read_text(path) if fs.exists(path) else ""
    return MetricsHistory(path if keep else None, [json.loads(line) for line in text.splitlines()])


def rank(line: Mapping[str, Any], metric: str) -> tuple[float, float]:
    """tasks.rank of an evaluation's line."""
    return tasks.rank(metric, line[metric], line["loss"])


def metric_values(line: Mapping[str, Any]) -> dict[str, float]:
    """A line's results, without its step, split and time."""
    return {key: value for key, value in line.items() if key not in ("step", "split", "seconds")}


@dataclasses.dataclass(frozen=True)
class EventLog:
    """TensorBoard's events: a folder for each split, so that it draws their curves in one chart.

    TensorFlow writes them to `local_folder`: in a bucket it would upload the complete file again for every line.
    """

    folder: str
    local_folder: str
    writers: dict[str, tf.summary.SummaryWriter] = dataclasses.field(default_factory=dict)

    def add(self, line: LogLine) -> None:
        split = line["split"]
        if split not in self.writers:
            self.writers[split] = tf.summary.create_file_writer(fs.join(self.local_folder, split))
        with self.writers[split].as_default(step=line["step"]):
            for name, value in metric_values(line).items():
                # Of a Python float that float32 cannot hold, such as a squared error, TensorFlow makes an exception.
                tf.summary.scalar(name, np.float64(value))
        self.writers[split].flush()

    def publish(self) -> None:
        """Upload the events if `folder` is in a bucket. Raises what writing there raises."""
        if self.local_folder != self.folder:
            fs.copy_folder(self.local_folder, self.folder)


def open_event_log(folder: str) -> EventLog:
    return EventLog(folder, fs.local_scratch(folder))

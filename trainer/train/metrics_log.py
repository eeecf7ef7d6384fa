"""What a run logs: metrics.jsonl and TensorBoard's events."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from trainer.storage import fs

LogLine = dict[str, Any]  # {"step", "split", "examples", "loss", metric...}


@dataclasses.dataclass
class MetricsHistory:
    """metrics.jsonl. It is small, and written whole: it is never cut."""

    path: str | None  # None: only in memory
    lines: list[LogLine]

    def add(self, line: LogLine) -> None:
        self.lines.append(line)
        # An object takes one write a second (https://cloud.google.com/storage/quotas): train's lines go with the next
        # checkpoint, before which a run that was cut does them again.
        if line["split"] != "train" or not (self.path and fs.in_bucket(self.path)):
            self.publish()

    def drop_after(self, step: int) -> None:
        """Forget what was logged beyond a checkpoint's step: the run does it again."""
        self.lines = [line for line in self.lines if line["step"] <= step]
        self.publish()

    def of(self, split: str) -> list[LogLine]:
        return [line for line in self.lines if line["split"] == split]

    def at(self, split: str, step: int) -> LogLine | None:
        return next((line for line in self.of(split) if line["step"] == step), None)

    def best(self, metric: str) -> LogLine | None:
        """The validation line with the highest metric, the earliest of equals."""
        return max(self.of("validation"), key=lambda line: (line[metric], -line["step"]), default=None)

    def publish(self) -> None:
        """Write the file as the lines are."""
        if self.path:
            fs.write_text(self.path, "".join(json.dumps(line) + "\n" for line in self.lines))


def read_history(path: str, *, keep: bool = True) -> MetricsHistory:
    """The history so far. With `keep` off, what is added to it is not written."""
    text = fs.read_text(path) if fs.exists(path) else ""
    return MetricsHistory(path if keep else None, [json.loads(line) for line in text.splitlines()])


def metric_values(line: Mapping[str, Any]) -> dict[str, float]:
    """A line's results, without when they were had."""
    return {key: value for key, value in line.items() if key not in ("step", "split", "seconds")}


@dataclasses.dataclass(frozen=True)
class EventLog:
    """TensorBoard's events: a folder a split, so that it draws their curves over one another.

    TensorFlow writes them `here`: to a bucket, it would upload a file whole again for every line.
    """

    folder: str
    here: str
    writers: dict[str, tf.summary.SummaryWriter] = dataclasses.field(default_factory=dict)

    def add(self, line: LogLine) -> None:
        split = line["split"]
        if split not in self.writers:
            self.writers[split] = tf.summary.create_file_writer(fs.join(self.here, split))
        with self.writers[split].as_default(step=line["step"]):
            for name, value in metric_values(line).items():
                tf.summary.scalar(name, value)
        self.writers[split].flush()

    def publish(self) -> None:
        """Bring the folder up to date, where it is in a bucket. Raises what writing there raises."""
        if self.here != self.folder:
            fs.copy_folder(self.here, self.folder)


def open_event_log(folder: str) -> EventLog:
    return EventLog(folder, fs.local_scratch(folder))

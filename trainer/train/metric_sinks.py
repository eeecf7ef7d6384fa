"""What a run logs, sent to other services as well: the lines of metrics.jsonl, the configuration and the result.

A service may be slow or gone. So a thread sends, training never waits for it, and its first failure is a warning and
the end of that sink for this process. metrics.jsonl has everything in any case.

The model_dir keeps a sink's run and the last step that was sent of each split, before it is sent: a run that resumes
goes on in the same run, and no step is in it twice. A process that is killed while it sends may leave out lines.
"""

import dataclasses
import hashlib
import json
import logging
import queue
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from trainer.config.sink_targets import ON
from trainer.errors import describe_error
from trainer.storage import fs
from trainer.train.metrics_log import LogLine, metric_values
from trainer.train.sink_services import SERVICES, Service, SinkRequest, SinkRun

# Lines within this time are sent together: an object in a bucket, which keeps what was sent, takes one write a second.
BATCH_INTERVAL_S = 1.0
# How long the end of a run waits for what is not sent yet.
CLOSE_TIMEOUT_S = 20.0

_LOG = logging.getLogger(__name__)
_RECORD_LOCK = threading.Lock()  # The sinks of a run share a file.


@dataclasses.dataclass
class MetricSink:
    """A service's run of a model_dir. Nothing is opened before the first line."""

    key: str  # Of SERVICES.
    target: str
    model_dir: str
    record: str  # The file that keeps what was sent.
    config: Mapping[str, Any]
    lines: queue.Queue[LogLine | None] = dataclasses.field(default_factory=queue.Queue)  # None: the last one has come.
    queued: int = 0  # How many lines of the history are in the queue or sent.
    result: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    thread: threading.Thread | None = None

    def sync(self, history: Sequence[LogLine]) -> None:
        """Send the lines of the history that were not sent yet, in the background."""
        for line in history[self.queued :]:
            self.lines.put(line)
        self.queued = len(history)
        if self.thread is None:
            self.thread = threading.Thread(target=_send, args=(self,), name=f"sink-{self.key}", daemon=True)
            self.thread.start()


def open_sinks(targets: Mapping[str, str], model_dir: str, record: str, config: Mapping[str, Any]) -> list[MetricSink]:
    """A sink for each service that has a target. `targets` is by key of SERVICES, `record` a file in the model_dir."""
    return [MetricSink(key, target, model_dir, record, config) for key, target in targets.items() if target]


def close_sinks(sinks: Sequence[MetricSink], history: Sequence[LogLine], result: Mapping[str, Any]) -> None:
    """Send what is left, and the result of a run that is finished ({}: it was stopped).

    Waits CLOSE_TIMEOUT_S at most for each sink.
    """
    for sink in sinks if result else ():
        sink.sync(history)  # All its lines may be of earlier processes.
    open_ones = [sink for sink in sinks if sink.thread is not None]
    for sink in open_ones:
        sink.result = result
        sink.lines.put(None)
    for sink in open_ones:
        assert sink.thread is not None
        sink.thread.join(CLOSE_TIMEOUT_S)
        if sink.thread.is_alive():
            name = SERVICES[sink.key].name
            _LOG.warning("%s did not take all lines within %.0f s; metrics.jsonl has them.", name, CLOSE_TIMEOUT_S)


def _send(sink: MetricSink) -> None:
    """Send until the last line has come. A failure ends it with a warning."""
    service = SERVICES[sink.key]
    try:
        kept = _read_record(sink)
        run = _open_run(sink, service, kept)
        last = False
        while not last:
            batch, last = _take_batch(sink.lines)
            new = [line for line in batch if line["step"] > kept["sent"].get(line["split"], -1)]
            if new:
                kept["sent"].update({line["split"]: line["step"] for line in new})
                _write_record(sink, kept)
                for line in new:
                    run.log(line["step"], _name_metrics(line))
        run.finish(sink.result)
    except Exception as error:  # Of any type, since it is a library's and a network's: it must not cost the run.
        where = "" if sink.target == ON else f" ({sink.target})"
        _LOG.warning("nothing more is sent to %s%s: %s", service.name, where, describe_error(error))


def _take_batch(lines: queue.Queue[LogLine | None]) -> tuple[list[LogLine], bool]:
    """The lines of BATCH_INTERVAL_S from the next one on; whether the last one has come."""
    batch, line = list[LogLine](), lines.get()
    while line is not None:
        batch.append(line)
        try:
            line = lines.get(timeout=BATCH_INTERVAL_S)
        except queue.Empty:
            return batch, False
    return batch, True


def _name_metrics(line: LogLine) -> dict[str, float]:
    """{"split": "train", "loss": 0.5, ...} -> {"train/loss": 0.5, ...}, with the seconds."""
    values = {**metric_values(line), **({"seconds": line["seconds"]} if "seconds" in line else {})}
    return {f"{line['split']}/{name}": float(value) for name, value in values.items()}


def _open_run(sink: MetricSink, service: Service, kept: dict[str, Any]) -> SinkRun:
    """The service's run: the one that the model_dir keeps, or a new one. Keeps its id before anything is sent."""
    name = sink.model_dir.rstrip("/").rpartition("/")[2]
    request = SinkRequest(sink.target, kept["run_id"], bool(kept["run_id"]), name, sink.model_dir, sink.config)
    if not request.resumes:
        kept["run_id"] = service.new_id(request)
        request = dataclasses.replace(request, run_id=kept["run_id"])
        _write_record(sink, kept)
    return service.open(request)


def _describe(sink: MetricSink) -> dict[str, str]:
    """What a kept run must have been opened with: a run that began again with other settings is another one."""
    config = json.dumps(dict(sink.config), sort_keys=True)
    return {"target": sink.target, "config_sha256": hashlib.sha256(config.encode()).hexdigest()}


def _read_record(sink: MetricSink) -> dict[str, Any]:
    kept = _read_records(sink.record).get(sink.key, {})
    opened_with = _describe(sink)
    if {key: kept.get(key) for key in opened_with} == opened_with:
        return {**kept, "sent": dict(kept["sent"])}
    return {**opened_with, "run_id": "", "sent": {}}


def _read_records(path: str) -> dict[str, Any]:
    return fs.read_json(path) if fs.exists(path) else {}


def _write_record(sink: MetricSink, kept: Mapping[str, Any]) -> None:
    with _RECORD_LOCK:
        fs.write_json(sink.record, {**_read_records(sink.record), sink.key: dict(kept)})

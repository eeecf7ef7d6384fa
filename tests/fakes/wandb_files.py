"""What Weights & Biases keeps of a run offline: its .wandb files, read with its own message types.

The files are LevelDB logs (https://github.com/google/leveldb/blob/main/doc/log_format.md) after a header of 7 bytes.
"""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HEADER_BYTES, BLOCK_BYTES, RECORD_HEADER = 7, 32768, struct.Struct("<IHB")
COMPLETE, LAST_PART = 1, 4


def _records(path: Path) -> Iterator[Any]:
    from wandb.proto import wandb_internal_pb2

    data, position, content = path.read_bytes(), HEADER_BYTES, b""
    while position + RECORD_HEADER.size <= len(data):
        left = BLOCK_BYTES - position % BLOCK_BYTES
        if left < RECORD_HEADER.size:
            position += left
            continue
        _, length, kind = RECORD_HEADER.unpack_from(data, position)
        position += RECORD_HEADER.size + length
        content += data[position - length : position]
        if kind in (COMPLETE, LAST_PART):
            yield wandb_internal_pb2.Record.FromString(content)
            content = b""


def _values(items: Any) -> dict[str, Any]:
    return {"/".join(each.nested_key) or each.key: json.loads(each.value_json) for each in items}


def read_offline_runs(folder: Path) -> dict[str, Any]:
    """{"ids", "config", "history": [(step, metrics)...], "summary", "ends"} of a folder's files, the oldest first.

    "ends" counts the processes that have ended: their files are complete.
    """
    found: dict[str, Any] = {"ids": set(), "config": {}, "history": [], "summary": {}, "ends": 0}
    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        for record in _records(path):
            if record.HasField("run"):
                found["ids"].add(record.run.run_id)
                found["config"] |= _values(record.run.config.update)
            elif record.HasField("exit"):
                found["ends"] += 1
            elif record.HasField("history"):
                values = _values(record.history.item)
                metrics = {name: value for name, value in values.items() if not name.startswith("_")}
                found["history"].append((values["_step"], metrics))
            elif record.HasField("summary"):
                found["summary"] |= _values(record.summary.update)
    return found

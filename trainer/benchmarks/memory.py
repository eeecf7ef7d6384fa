"""The memory of a process, from outside; and that of a long run."""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from trainer import child_process

# What a run begins with is compiled, and its memory settles.
SETTLED_SHARE = 0.2
SAMPLED_SHARE = 0.1
SAMPLE_INTERVAL_S = 0.1


def watch_memory(command: Sequence[str], steps: int) -> dict[str, float]:
    """Run a job of this many steps, and compare its memory in the first steps after it has settled and at the end.

    {"steady_mb", "growth_percent"}; `command` lacks --model_dir.
    """
    with tempfile.TemporaryDirectory() as folder, open(Path(folder) / "log", "wb") as log:
        metrics = Path(folder) / "run/metrics.jsonl"
        whole = [*command, f"--model_dir={folder}/run"]
        process = subprocess.Popen(whole, stdout=log, stderr=log, env=child_process.environment())
        samples: list[tuple[int, float]] = []
        try:
            while process.poll() is None:
                time.sleep(SAMPLE_INTERVAL_S)
                if resident := read_status_mb(process.pid, "VmRSS"):
                    samples.append((_last_step(metrics), resident))
        finally:
            if process.poll() is None:
                process.kill()
        if process.returncode:
            print((Path(folder) / "log").read_text(errors="replace")[-2000:], file=sys.stderr)
            raise SystemExit(process.returncode)
    return compare_memory(samples, steps)


def compare_memory(samples: Sequence[tuple[int, float]], steps: int) -> dict[str, float]:
    """{"steady_mb", "growth_percent"} of (step, MB), by the medians of a tenth of the steps at each end.

    The first SETTLED_SHARE is left out, and what follows the last step: evaluations and the export have their own.
    """
    settled, sampled = SETTLED_SHARE * steps, SAMPLED_SHARE * steps
    first = [mb for step, mb in samples if settled <= step < settled + sampled]
    last = [mb for step, mb in samples if steps - sampled <= step < steps]
    if not first or not last:
        raise ValueError(f"The run must be longer: it has {len(first)} and {len(last)} samples at its ends.")
    steady = statistics.median(first)
    return {"steady_mb": steady, "growth_percent": 100 * (statistics.median(last) / steady - 1)}


def read_status_mb(pid: int, name: str) -> float:
    """The memory of a process by Linux, in MB: VmRSS is what it has now, VmHWM the most it had. 0 if it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(f"{name}:")), 0.0)


def _last_step(metrics: Path) -> int:
    lines = metrics.read_text(encoding="utf-8").splitlines() if metrics.exists() else []
    return int(json.loads(lines[-1])["step"]) if lines else 0

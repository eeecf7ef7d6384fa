"""One process, measured: its time, its memory and what it printed."""

import dataclasses
import json
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from trainer import child_process
from trainer.benchmarks import memory
from trainer.errors import EXIT_DONE, Problem, UserError
from trainer.runtime.signals import Stopped, StopRequest

# What a time can be wrong by. Looking more often would take time from what is measured.
POLL_INTERVAL_S = 0.02
STARTED_VARIABLE = "BENCHMARK_STARTED"  # time.time() when the process was started, for what it measures from there.
_QUOTED_CHARACTERS = 2000


@dataclasses.dataclass(frozen=True)
class Measured:
    seconds: float  # From its start to its end, or until the file appeared.
    peak_mb: float  # The most memory of it, without those that it started, in MB.
    output: str

    def figures(self) -> dict[str, float]:
        return {"seconds": self.seconds, "memory_mb": self.peak_mb}


def run_process(
    what: str,
    command: Sequence[str],
    log: Path,
    request: StopRequest,
    *,
    variables: Mapping[str, str] | None = None,
    until: Path | None = None,
    exit_code: int = EXIT_DONE,
) -> Measured:
    """Run a command to its end, which has this exit code; with `until`, until that file is not empty, and kill it then.

    `log` receives both of its outputs. `what` names it for the user, as the first words of a sentence. Raises
    signals.Stopped if this process was asked to stop, UserError if the command failed.
    """
    if request.reason:
        raise Stopped(f"stopped by {request.reason}. Run the same command again to continue.")
    with log.open("wb") as output:
        process = child_process.start_session(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            variables={STARTED_VARIABLE: repr(time.time()), **(variables or {})},
        )
        started = time.monotonic()
        appeared: float | None = None
        peak_mb = 0.0
        try:
            while True:
                # Not from wait4, whose maximum begins with this process's own, from before the command was executed.
                peak_mb = max(peak_mb, memory.read_status_mb(process.pid, "VmHWM"))
                if process.poll() is not None:
                    break
                if appeared is None and until and until.exists() and until.stat().st_size:
                    appeared = time.monotonic() - started
                    child_process.kill_session(process)
                if request.reason:
                    raise Stopped(f"{what} was stopped by {request.reason}. Run the same command again to continue.")
                time.sleep(POLL_INTERVAL_S)
        finally:
            if process.returncode is None:
                child_process.kill_session(process)
    seconds = time.monotonic() - started if appeared is None else appeared
    text = log.read_text(encoding="utf-8", errors="replace")
    if process.returncode != exit_code and appeared is None:
        ended = child_process.describe_exit(process.returncode)
        raise UserError(Problem(what, "end without an error", f"{ended}, after: {text[-_QUOTED_CHARACTERS:].strip()}"))
    return Measured(seconds, peak_mb, text)


def print_figures(figures: Mapping[str, float]) -> None:
    """Print what a process of a measurement found, as its last line."""
    print(json.dumps(figures), flush=True)


def read_printed(output: str) -> dict[str, float]:
    """What print_figures printed. Libraries may write lines after it, when their process ends."""
    figures: dict[str, float] = json.loads([line for line in output.splitlines() if line.startswith("{")][-1])
    return figures

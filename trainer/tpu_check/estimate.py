"""What a job needs on each TPU topology, and the largest batch that fits: asks the tracer and the compiler.

Each of the two is a process of its own, with packages of its own: tensorflow-tpu and JAX's libtpu
cannot be loaded together, and neither with the TensorFlow that trains here. Imports no TensorFlow.
"""

import contextlib
import dataclasses
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from trainer.tpu_check.compiler import Compiled

ROOT = Path(__file__).parents[2]
TRACER = ROOT / ".venv-tpu-trace/bin/python"
COMPILER = ROOT / ".venv-tpu-compile/bin/python"

MULTIPLE = 8  # of a replica's batch: what a TPU pads it to
SHOWN = 1e9  # bytes in a GB, as the tables have them


@dataclasses.dataclass(frozen=True)
class Worker:
    process: subprocess.Popen[str]
    log: Path


@dataclasses.dataclass(frozen=True)
class Job:
    """An encoder, and a replica's batch of it. It is lowered for a number of replicas, of whatever kind."""

    encoder: str
    replicas: int
    seq_length: int
    batch_size: int  # of a replica
    accumulation_steps: int = 1  # parts that a replica's batch is computed in; divides batch_size


@dataclasses.dataclass(frozen=True)
class Workers:
    tracer: Worker
    compiler: Worker
    folder: Path  # for programs on their way from one to the other
    lowered: dict[Job, dict[str, Any]]  # what the tracer has answered
    compiled: dict[tuple[str, str], Compiled]  # what the compiler has, by program and topology


@dataclasses.dataclass(frozen=True)
class Fit:
    """A job on a topology. HBM in bytes of one replica, the job's other variables included."""

    fits: bool
    used: int  # by the hungrier of the two programs; 0 if the compiler refused it
    capacity: int
    train: Compiled
    programs: int

    @property
    def free(self) -> int:
        return self.capacity - self.used


@contextlib.contextmanager
def workers() -> Iterator[Workers]:
    """Both processes, ended at the end. Raises ValueError if their environments are not installed."""
    for python in (TRACER, COMPILER):
        if not python.exists():
            raise ValueError(
                f"{python.parent.parent.name} must be installed. Received: no {python}. Run `make tpu-check`."
            )
    with (
        tempfile.TemporaryDirectory() as folder,
        _start(TRACER, "trace", folder) as tracer,
        _start(COMPILER, "compiler", folder) as compiler,
    ):
        yield Workers(tracer, compiler, Path(folder), {}, {})


@contextlib.contextmanager
def _start(python: Path, module: str, folder: str) -> Iterator[Worker]:
    """`python -m trainer.MODULE`; what it says on standard error goes to a file."""
    log = Path(folder) / f"{module}.txt"
    command = [str(python), "-m", f"trainer.tpu_check.{module}"]
    pipe = subprocess.PIPE
    with (
        log.open("w") as said,
        subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=said, text=True) as process,
    ):
        try:
            yield Worker(process, log)
        finally:
            process.kill()


def _ask(worker: Worker, request: dict[str, Any]) -> dict[str, Any]:
    """Its answer. Raises ValueError if that is an error; RuntimeError, a defect of ours, if it has ended."""
    stdin, stdout = worker.process.stdin, worker.process.stdout
    assert stdin
    assert stdout
    stdin.write(json.dumps(request) + "\n")
    stdin.flush()
    line = stdout.readline()
    if not line:
        raise RuntimeError(
            f"asked for {request}, it ended with {worker.process.wait()}:\n{worker.log.read_text()[-3000:]}"
        )
    answer = json.loads(line)
    if "error" in answer:
        raise ValueError(answer["error"])
    return dict(answer)


def fit(at: Workers, job: Job, topology: str, steps: Sequence[str] = ("train", "evaluation")) -> Fit:
    """Whether these steps of a job fit a topology, the first being train. Raises ValueError for what a TPU cannot, or
    should not, compile."""
    if job not in at.lowered:
        folder = at.folder / str(len(at.lowered))
        at.lowered[job] = _ask(at.tracer, {"job": dataclasses.asdict(job), "folder": str(folder)})
    lowered = at.lowered[job]
    compiled = [_compile(at, lowered[step]["hlo"], topology) for step in steps]
    used = max(x.memory + lowered[step]["elsewhere"] for x, step in zip(compiled, steps, strict=True))
    train, known = compiled[0], all(x.memory for x in compiled)
    return Fit(known and used <= train.capacity, used * known, train.capacity, train, lowered["programs"])


def _compile(at: Workers, program: str, topology: str) -> Compiled:
    if (program, topology) not in at.compiled:
        answer = _ask(at.compiler, {"hlo": program, "topology": topology})
        at.compiled[program, topology] = Compiled(**answer)
    return at.compiled[program, topology]


def largest(at: Workers, job: Job, topology: str, within: float) -> Job:
    """The job with the largest batch that fits, within a share of it; with one of 0 if none does.

    Says on standard error what it tries: near the limit, where the compiler computes again what it cannot keep, a
    size takes minutes.
    """

    def fits(batch_size: int, steps: Sequence[str] = ("train",)) -> bool:
        found = fit(at, dataclasses.replace(job, batch_size=batch_size), topology, steps)
        uses = f"uses {found.used / SHOWN:.2f} of {found.capacity / SHOWN:.2f} GB" if found.used else "does not fit"
        print(f"{job.encoder} on {topology}: {' and '.join(steps)} of {batch_size} texts {uses}", file=sys.stderr)
        return found.fits

    # Training is the hungrier, so that the search does without the evaluation, which is held against its end.
    found = largest_batch(fits, job.batch_size, within)
    while found and not fits(found, ("train", "evaluation")):
        found -= MULTIPLE
    return dataclasses.replace(job, batch_size=found)


def largest_batch(fits: Callable[[int], bool], first: int, within: float, limit: int = 1 << 14) -> int:
    """The largest batch of a replica, a multiple of MULTIPLE up to `limit`, that fits; 0 if none does.

    From `first`, doubled until one does not fit, then by halves, until less than the share `within` of it, or
    MULTIPLE, is open: 1 ends with the doubling. Memory does not grow evenly near the limit, so nothing is guessed.
    """
    below, above, batch = 0, limit + MULTIPLE, max(first // MULTIPLE, 1) * MULTIPLE
    while True:
        below, above = (batch, above) if fits(batch) else (below, batch)
        if above - below <= max(MULTIPLE, within * below):
            return below
        batch = min(2 * below, limit) if above > limit else max((below + above) // 2 // MULTIPLE, 1) * MULTIPLE


# --- Tables, in Markdown --------------------------------------------------------------------------


def row(job: Job, topology: str) -> list[str]:
    """An encoder, a topology, and the batch."""
    rows = f"{job.batch_size:,}", f"{job.batch_size * job.replicas:,}"
    return [job.encoder, topology, str(job.seq_length), str(job.replicas), *rows]


def figures(fit: Fit) -> list[str]:
    """What a replica's train step takes, in units of 10^12 operations and 10^9 bytes."""
    if not fit.fits:
        return ["does not fit", "", "", "", "", str(fit.programs)]
    train = fit.train
    sizes = [f"{bytes_ / SHOWN:.2f}" for bytes_ in (train.accessed, fit.used, fit.free)]
    return [f"{train.flops / 1e12:.3g}", *sizes, str(train.all_reduces), str(fit.programs)]


def heading(columns: Sequence[str]) -> str:
    return f"{line(columns)}\n{line(['---'] * 2 + ['---:'] * (len(columns) - 2))}"


def line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"

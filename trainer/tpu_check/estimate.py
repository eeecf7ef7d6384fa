"""Estimate what a fine-tuning job needs on each TPU topology, and the largest batch that fits, without a TPU.

Tracing and compiling each have a child process with an environment of its own: tensorflow-tpu and JAX's libtpu cannot
be loaded together, and neither can be loaded with the TensorFlow that trains here. This module imports no TensorFlow.
"""

import contextlib
import dataclasses
import logging
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from trainer.data import widths
from trainer.errors import Problem, UserError
from trainer.tpu_check import child_requests
from trainer.tpu_check.compiler import TOPOLOGIES, CompiledProgram

TRACE_PYTHON = child_requests.ROOT / ".venv-tpu-trace/bin/python"
COMPILE_PYTHON = child_requests.ROOT / ".venv-tpu-compile/bin/python"

# A TPU pads a replica's batch to a multiple of this.
BATCH_SIZE_MULTIPLE = 8
MAX_BATCH_SIZE = 1 << 14
BYTES_PER_GB = 1e9

# The data sets whose batches batch_widths counts, and the data.seq_length at which it does.
DATA_SETS = {"imdb": 256, "movie_snippets": 64}

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class CompileCase:
    """What is traced and compiled: an encoder, the batch of a replica, and the number of replicas."""

    encoder: str
    replicas: int
    seq_length: int
    batch_size: int  # The examples of one replica.
    accumulation_steps: int = 1  # The number of micro-batches of a replica's batch. It divides batch_size.
    max_windows: int = 1  # Of a text. With more than 1, all examples are computed in that many windows.


@dataclasses.dataclass(frozen=True)
class Toolchain:
    """The tracing and the compiling process, and their answers so far, since an answer takes minutes."""

    tracer: child_requests.ChildProcess
    compiler: child_requests.ChildProcess
    folder: Path  # The tracer writes programs here, and the compiler reads them.
    lowered: dict[CompileCase, dict[str, Any]]
    compiled: dict[tuple[str, str], CompiledProgram]  # The key is (path of a program, topology).


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What a case needs on a topology. HBM is that of one replica, the job's other variables included."""

    fits: bool
    used_bytes: int  # HBM of the step that needs more; 0 if the compiler rejected a step.
    capacity_bytes: int
    train: CompiledProgram
    programs: int  # The number of programs that a complete run compiles.

    @property
    def free_bytes(self) -> int:
        return self.capacity_bytes - self.used_bytes


@contextlib.contextmanager
def start_toolchain() -> Iterator[Toolchain]:
    """Start both processes, and end them with the context. Raises UserError if an environment is not installed."""
    for python in (TRACE_PYTHON, COMPILE_PYTHON):
        if not python.exists():
            name = python.parent.parent.name
            raise UserError(Problem(name, "be installed", f"no {python}", "Run `make tpu-check`."))

    def start(python: Path, module: str) -> contextlib.AbstractContextManager[child_requests.ChildProcess]:
        command = [str(python), "-m", f"trainer.tpu_check.{module}"]
        return child_requests.start_child(f"The child process {module}", command, folder / f"{module}.txt")

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with start(TRACE_PYTHON, "trace") as tracer, start(COMPILE_PYTHON, "compiler") as compiler:
            yield Toolchain(tracer, compiler, folder, {}, {})


def estimate_case(
    toolchain: Toolchain, case: CompileCase, topology: str, steps: Sequence[str] = ("train", "evaluation")
) -> Estimate:
    """Lower and compile these steps of a case, of which the first must be "train".

    Raises UserError for what a TPU cannot, or should not, compile.
    """
    if case not in toolchain.lowered:
        request = {"case": dataclasses.asdict(case), "folder": str(toolchain.folder / str(len(toolchain.lowered)))}
        toolchain.lowered[case] = child_requests.send_request(toolchain.tracer, request)
    lowered = toolchain.lowered[case]
    programs = [_compile(toolchain, lowered[step]["hlo"], topology) for step in steps]
    used = max(x.memory_bytes + lowered[step]["other_bytes"] for x, step in zip(programs, steps, strict=True))
    if not all(program.memory_bytes for program in programs):
        used = 0
    capacity = TOPOLOGIES[topology].hbm_bytes
    return Estimate(0 < used <= capacity, used, capacity, programs[0], lowered["programs"])


def _compile(toolchain: Toolchain, hlo: str, topology: str) -> CompiledProgram:
    if (hlo, topology) not in toolchain.compiled:
        answer = child_requests.send_request(toolchain.compiler, {"hlo": hlo, "topology": topology})
        toolchain.compiled[hlo, topology] = CompiledProgram(**answer)
    return toolchain.compiled[hlo, topology]


def find_largest_case(toolchain: Toolchain, case: CompileCase, topology: str, tolerance: float) -> CompileCase:
    """Return the case with the largest batch that fits, up to `tolerance`; with a batch of 0 if none fits.

    Logs each attempt: near the limit, where the compiler recomputes what it cannot store, one takes minutes.
    """

    def fits(batch_size: int, steps: Sequence[str] = ("train",)) -> bool:
        result = estimate_case(toolchain, dataclasses.replace(case, batch_size=batch_size), topology, steps)
        used, capacity = result.used_bytes / BYTES_PER_GB, result.capacity_bytes / BYTES_PER_GB
        memory = f"uses {used:.2f} of {capacity:.2f} GB" if used else "does not fit"
        _LOG.info("%s on %s: %s of %d texts %s", case.encoder, topology, " and ".join(steps), batch_size, memory)
        return result.fits

    # Training needs more memory than evaluation, so the search compiles the evaluation only for its result.
    batch_size = find_largest_batch_size(fits, case.batch_size, tolerance)
    while batch_size and not fits(batch_size, ("train", "evaluation")):
        batch_size -= BATCH_SIZE_MULTIPLE
    return dataclasses.replace(case, batch_size=batch_size)


def find_largest_batch_size(fits: Callable[[int], bool], first: int, tolerance: float) -> int:
    """Return the largest multiple of BATCH_SIZE_MULTIPLE up to MAX_BATCH_SIZE that fits; 0 if none does.

    Doubles `first` until a batch does not fit, then bisects, until the open interval is at most `tolerance` of the
    result, or BATCH_SIZE_MULTIPLE. A tolerance of 1 ends with the doubling. Each batch is compiled rather than
    interpolated, since memory does not grow evenly near the limit.
    """
    multiple = BATCH_SIZE_MULTIPLE
    below, above, batch = 0, MAX_BATCH_SIZE + multiple, max(first // multiple, 1) * multiple
    while True:
        below, above = (batch, above) if fits(batch) else (below, batch)
        if above - below <= max(multiple, tolerance * below):
            return below
        if above > MAX_BATCH_SIZE:
            batch = min(2 * below, MAX_BATCH_SIZE)
        else:
            batch = max((below + above) // 2 // multiple, 1) * multiple


# --- What padding costs ---------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class PaddingCost:
    """What the train steps of a data set compute, with all batches of one width and with each of its own."""

    tokens: int  # Of all texts, without padding.
    batches: dict[int, int]  # Width -> global batches.
    one_width_flops: float  # For each token. NaN if a program does not fit.
    flops: float


def estimate_padding(
    toolchain: Toolchain, case: CompileCase, topology: str, data_set: str, pad_multiple: int
) -> PaddingCost:
    """Compile the train step of every width that batches of `data_set`, at case.seq_length tokens, have.

    Widths are as a TPU's job has them for this data.pad_multiple. Raises UserError as estimate_case does.
    """
    coarse = widths.coarse_pad_multiple(case.seq_length, pad_multiple)
    batch_size = case.batch_size * case.replicas
    request = {"data_set": data_set, "seq_length": case.seq_length, "pad_multiple": coarse, "batch_size": batch_size}
    counted = child_requests.send_request(toolchain.tracer, request)
    tokens, batches = counted["tokens"], dict(counted["batches"])
    one_width = {case.seq_length: sum(batches.values())}
    return PaddingCost(
        tokens,
        batches,
        flops_per_token(toolchain, case, topology, one_width, tokens),
        flops_per_token(toolchain, case, topology, batches, tokens),
    )


def flops_per_token(
    toolchain: Toolchain, case: CompileCase, topology: str, batches: dict[int, int], tokens: int
) -> float:
    """The FLOPs of a train step for each of `batches` (width -> how many), by `tokens`. NaN if a step does not fit."""
    flops = 0.0
    for width, count in batches.items():
        step = estimate_case(toolchain, dataclasses.replace(case, seq_length=width), topology, ["train"])
        flops += count * case.replicas * (step.train.flops if step.fits else math.nan)
    return flops / tokens


# --- Tables, in Markdown --------------------------------------------------------------------------

CASE_COLUMNS = "encoder", "topology", "tokens", "replicas", "batch", "global batch"
PADDING_COLUMNS = (
    *("data set", "widths", "padding, one width", "padding, these widths"),
    *("MFLOPs a token, one width", "MFLOPs a token, these widths", "fewer"),
)
ESTIMATE_COLUMNS = "TFLOPs a step", "GB accessed", "HBM used, GB", "HBM free, GB", "all-reduces", "programs"


def case_cells(case: CompileCase, topology: str) -> list[str]:
    """Return the cells of CASE_COLUMNS."""
    batches = f"{case.batch_size:,}", f"{case.batch_size * case.replicas:,}"
    return [case.encoder, topology, str(case.seq_length), str(case.replicas), *batches]


def estimate_cells(estimate: Estimate) -> list[str]:
    """Return the cells of ESTIMATE_COLUMNS: those of a replica's train step, in 10^12 operations and 10^9 bytes."""
    if not estimate.fits:
        return ["does not fit", "", "", "", "", str(estimate.programs)]
    train = estimate.train
    sizes = (train.bytes_accessed, estimate.used_bytes, estimate.free_bytes)
    cells = [f"{size / BYTES_PER_GB:.2f}" for size in sizes]
    return [f"{train.flops / 1e12:.3g}", *cells, str(train.all_reduces), str(estimate.programs)]


def padding_cells(data_set: str, case: CompileCase, cost: PaddingCost) -> list[str]:
    """Return the cells of PADDING_COLUMNS."""
    count = sum(cost.batches.values())
    examples = case.batch_size * case.replicas
    one_width, own = case.seq_length * count * examples, sum(w * n for w, n in cost.batches.items()) * examples
    return [
        data_set,
        ", ".join(map(str, cost.batches)),
        *(f"{1 - cost.tokens / positions:.1%}" for positions in (one_width, own)),
        *(f"{flops / 1e6:.4g}" for flops in (cost.one_width_flops, cost.flops)),
        f"{1 - cost.flops / cost.one_width_flops:.1%}",
    ]


def format_heading(columns: Sequence[str]) -> str:
    return f"{format_row(columns)}\n{format_row(['---'] * 2 + ['---:'] * (len(columns) - 2))}"


def format_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"

"""GROWTH: rows that are measured at several sizes, and what has to hold of their curves."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

from trainer import child_process
from trainer.benchmarks.inputs import Inputs
from trainer.benchmarks.rows import (
    FOLDER,
    MEMORY,
    OURS,
    Contender,
    Figure,
    Row,
    job,
    ours,
    script,
    steps_of,
)

# The encoder of rows that are about documents: its own time would hide theirs.
SMALL_ENCODER = "random:tiny"
GROWTH_TEXTS = 8  # Of a step whose length grows.
FLAT = 0.10  # The largest share by which what has to be flat may differ.
MAX_GROWTH_PERCENT = 1.0


def _lengths(inputs: Inputs) -> list[Contender]:
    widths = inputs.settings.sizes.growth_widths
    return [each for width in widths for each in steps_of(inputs, {"step": (GROWTH_TEXTS, width)}, size=width)]


def _batches(inputs: Inputs) -> list[Contender]:
    batches, width = inputs.settings.sizes.growth_batches, inputs.settings.sizes.growth_width
    return [each for batch in batches for each in steps_of(inputs, {"step": (batch, width)}, size=batch)]


def _prepared_documents(inputs: Inputs) -> list[Contender]:
    found = []
    for size in inputs.settings.sizes.documents:
        source = (f"--source={inputs.table(size)}", f"--encoder={inputs.encoder(SMALL_ENCODER)}")
        flags = ("--task=csv", *source, f"--output={FOLDER}/data")
        found.append(script(OURS, "prepare_data.py", *flags, size=size))
    return found


def _trained_documents(inputs: Inputs) -> list[Contender]:
    """The same number of steps on each, so that only the number of documents differs."""
    sizes = inputs.settings.sizes
    # Evaluations of validation and test would grow with them.
    settings = (
        *("--data.seq_length=64", f"--training.log_every={sizes.document_steps // 10}"),
        *(f"--training.{key}={sizes.document_steps}" for key in ("steps", "eval_every")),
    )
    stopped = f"--stop_at_step={sizes.document_steps - 1}"
    encoder = inputs.encoder(SMALL_ENCODER)
    return [
        dataclasses.replace(
            job(OURS, encoder, inputs.reviews(size, SMALL_ENCODER), *settings, stopped), size=size, stops=True
        )
        for size in sizes.documents
    ]


def _long_run(inputs: Inputs) -> list[Contender]:
    sizes = inputs.settings.sizes
    encoder, data = inputs.encoder(SMALL_ENCODER), inputs.reviews(sizes.reviews, SMALL_ENCODER)
    settings = (
        *(f"--training.steps={sizes.long_run_steps}", f"--training.eval_every={sizes.long_run_steps // 10}"),
        *("--data.seq_length=64", "--logging.report=off"),
    )
    command = child_process.command("trainer.task", f"--encoder={encoder}", f"--data_dir={data}", "--strategy=cpu")
    return [ours(OURS, "watch_memory", command=[*command, *settings], steps=sizes.long_run_steps)]


GROWTH = {
    "length": Row("step of 8 texts, by their tokens", {"step": Figure("", "ms")}, _lengths),
    "batch": Row("step at 128 tokens, by its texts", {"step": Figure("", "ms"), "memory_mb": MEMORY}, _batches),
    "prepare_documents": Row(
        "documents prepared", {"seconds": Figure("", "s"), "memory_mb": MEMORY}, _prepared_documents, once=True
    ),
    "train_documents": Row(
        "training on documents",
        {"examples_per_second": Figure("", "examples/s", higher_is_better=True), "memory_mb": MEMORY},
        _trained_documents,
        once=True,
    ),
    "long_run": Row(
        "10,000 steps of the tiny encoder",
        {"growth_percent": Figure(", growth of memory", "%"), "steady_mb": Figure(", memory", "MB")},
        _long_run,
        once=True,
    ),
}


# --- What has to hold ------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Verdict:
    title: str
    value: float
    limit: float

    @property
    def holds(self) -> bool:
        return self.value <= self.limit


# (row, figure) -> size -> median. The size of a row without any is None.
Medians = Mapping[tuple[str, str], Mapping[int | None, float]]


def judge(medians: Medians) -> list[Verdict]:
    """What has to hold of ours, as far as it was measured."""
    found = [
        Verdict(f"{GROWTH[row].title}: memory differs by", spread(list(peaks.values())), FLAT)
        for row in ("prepare_documents", "train_documents")
        if len(peaks := medians.get((row, "memory_mb"), {})) > 1
    ]
    if len(seconds := medians.get(("prepare_documents", "seconds"), {})) > 2:
        title = "documents prepared: time of one more differs by"
        found.append(Verdict(title, spread(seconds_of_one_more(seconds)), FLAT))
    if len(rates := medians.get(("train_documents", "examples_per_second"), {})) > 1:
        found.append(Verdict("training on documents: time of one differs by", spread(list(rates.values())), FLAT))
    if grown := medians.get(("long_run", "growth_percent"), {}):
        (percent,) = grown.values()
        found.append(Verdict("10,000 steps: memory grows by", percent / 100, MAX_GROWTH_PERCENT / 100))
    return found


def spread(values: Sequence[float]) -> float:
    """By which share the largest is above the smallest."""
    return max(values) / min(values) - 1


def seconds_of_one_more(seconds: Mapping[int | None, float]) -> list[float]:
    """From each size to the next, the seconds of a document. So the start of a process, and imports, do not count."""
    points = sorted((size, value) for size, value in seconds.items() if size is not None)
    return [(later - earlier) / (more - fewer) for (fewer, earlier), (more, later) in itertools.pairwise(points)]

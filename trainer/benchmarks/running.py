"""Rows measured, the contenders of each in turn, so that other work slows all of them alike."""

import json
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path

from trainer.benchmarks import processes
from trainer.benchmarks.inputs import Inputs
from trainer.benchmarks.results import ALL_ROWS, Results, Sample
from trainer.benchmarks.rows import FOLDER, Contender
from trainer.errors import EXIT_DONE, EXIT_STOPPED, Problem, UserError
from trainer.runtime.signals import StopRequest

_LOG = logging.getLogger(__name__)


def run_rows(names: Sequence[str], inputs: Inputs, repetitions: int, results: Results) -> list[Problem]:
    """Measure what the results lack of these rows. Returns the problems of what failed: the others are measured.

    Raises signals.Stopped after a signal.
    """
    problems: list[Problem] = []
    for name in names:
        row = ALL_ROWS[name]
        try:
            contenders = row.contenders(inputs)
        except UserError as error:
            problems += error.problems
            continue
        run_in_turn(name, contenders, 1 if row.once else repetitions, results, inputs.request, problems)
    return problems


def run_in_turn(
    row: str,
    contenders: Sequence[Contender],
    repetitions: int,
    results: Results,
    request: StopRequest,
    problems: list[Problem],
) -> None:
    """Each contender once, then each a second time, and so on; but none that the results have, or that has failed."""
    failed: set[tuple[str, int | None]] = set()
    for repetition in range(repetitions):
        for each in contenders:
            key = (row, each.name, each.size, repetition)
            if key in results.done() or (each.name, each.size) in failed:
                continue
            _LOG.info("%s: %s", describe(row, each), f"{repetition + 1} of {repetitions}")
            try:
                figures = measure_contender(row, each, request)
            except UserError as error:
                problems += error.problems
                failed.add((each.name, each.size))
            else:
                results.add(Sample(*key, figures))


def describe(row: str, contender: Contender) -> str:
    """ "step, ours", "length 32, ours"."""
    return f"{row}{'' if contender.size is None else f' {contender.size}'}, {contender.name}"


def measure_contender(row: str, contender: Contender, request: StopRequest) -> dict[str, float]:
    """Run a contender's command in an empty folder, and return all figures of it.

    They are its seconds and its memory, what it printed, and what its run logged. Raises UserError if it failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        measured = processes.run_process(
            f"The benchmark of {describe(row, contender)}",
            [part.replace(FOLDER, folder) for part in contender.command],
            Path(folder) / "log",
            request,
            variables=contender.variables,
            until=Path(folder) / contender.until if contender.until else None,
            exit_code=EXIT_STOPPED if contender.stops else EXIT_DONE,
        )
        figures = measured.figures()
        if contender.printed:
            figures |= processes.read_printed(measured.output)
        if contender.run:
            figures |= read_training_rate(f"{folder}/{contender.run}/metrics.jsonl")
    return figures


def read_training_rate(metrics: str) -> dict[str, float]:
    """{"examples_per_second"} over all train lines of a metrics.jsonl: evaluations in between are left out."""
    text = Path(metrics).read_text(encoding="utf-8")
    lines = [line for line in map(json.loads, text.splitlines()) if line["split"] == "train"]
    seconds = sum(line["examples"] / line["examples_per_second"] for line in lines)
    return {"examples_per_second": sum(line["examples"] for line in lines) / seconds} if seconds else {}

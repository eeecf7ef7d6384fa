"""What was measured, in a JSON file: samples, their medians and spreads, and the table of them."""

import dataclasses
import datetime
import platform
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from trainer.benchmarks.growth import GROWTH, Medians, Verdict, judge
from trainer.benchmarks.rows import OURS, PEER, ROWS, Figure, Row
from trainer.distributed import processor
from trainer.errors import Problem, UserError
from trainer.storage import fs

ALL_ROWS: Mapping[str, Row] = {**ROWS, **GROWTH}
UTILIZATION = Figure(", share of the largest rate (MFU)", "", higher_is_better=True)


@dataclasses.dataclass(frozen=True)
class Sample:
    """One measurement."""

    row: str
    contender: str
    size: int | None
    repetition: int
    figures: Mapping[str, float]

    @property
    def key(self) -> tuple[str, str, int | None, int]:
        return self.row, self.contender, self.size, self.repetition


@dataclasses.dataclass
class Results:
    """The file. It is written again after every sample, so that a run that is cut goes on."""

    path: str
    settings: Mapping[str, Any]
    machine: Mapping[str, Any]
    samples: list[Sample]

    def add(self, sample: Sample) -> None:
        self.samples.append(sample)
        self.write()

    def write(self) -> None:
        content = {
            "settings": self.settings,
            "machine": self.machine,
            "date": datetime.date.today().isoformat(),
            "summary": [line.describe() for line in summarize(self.samples)],
            "checks": [
                {**dataclasses.asdict(verdict), "holds": verdict.holds} for verdict in judge(own_medians(self.samples))
            ],
            "samples": [dataclasses.asdict(sample) for sample in self.samples],
        }
        fs.write_json(self.path, content)

    def done(self) -> set[tuple[str, str, int | None, int]]:
        return {sample.key for sample in self.samples}


def describe_machine() -> dict[str, Any]:
    """{"processor": its name, "instructions": those that multiply matrices fast, "cores", "python": its version}."""
    described = processor.describe_processor()
    return {
        "processor": described.name,
        "instructions": [each for each in ("avx512f", "avx512_bf16", "amx_bf16") if each in described.features],
        "cores": described.cores,
        "python": platform.python_version(),
    }


def read_results(path: str) -> Results:
    """The results of a file. Raises UserError if there is none."""
    if not fs.exists(path):
        raise UserError(Problem("--output", "name the results to print", f"{path}, which does not exist"))
    content = fs.read_json(path)
    samples = [Sample(**sample) for sample in content["samples"]]
    settings = {"precision": "bfloat16", **content["settings"]}  # Files from before it was a setting lack it.
    return Results(path, settings, content["machine"], samples)


def open_results(path: str, settings: Mapping[str, Any], machine: Mapping[str, Any]) -> Results:
    """The results of a file, to go on with, or new ones. Raises UserError for those of another machine or settings."""
    if not fs.exists(path):
        return Results(path, settings, machine, [])
    found = read_results(path)
    for own, kept in ((settings, found.settings), (machine, found.machine)):
        if kept != own:
            received = f"{path}, of {kept}"
            advice = f"Now: {own}. Name another file, or delete it."
            raise UserError(Problem("--output", "hold results of this machine and these settings", received, advice))
    return found


# --- Medians ---------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Statistic:
    median: float
    spread: float  # The interquartile range; 0 of one sample.
    samples: int


def describe_values(values: Sequence[float]) -> Statistic:
    if len(values) < 2:
        return Statistic(values[0], 0.0, 1)
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return Statistic(statistics.median(values), third - first, len(values))


@dataclasses.dataclass(frozen=True)
class Line:
    """A figure of a row at a size, by contender."""

    row: str
    size: int | None
    key: str
    figure: Figure
    statistics: Mapping[str, Statistic]

    def best(self, side: str) -> float | None:
        """The best median of the contenders whose name begins with OURS or PEER."""
        medians = [each.median for name, each in self.statistics.items() if name.startswith(side)]
        return (max if self.figure.higher_is_better else min)(medians, default=None)

    @property
    def ratio(self) -> float | None:
        """Above 1, ours is better, each at its best."""
        own, peer = self.best(OURS), self.best(PEER)
        if not own or not peer:
            return None
        return own / peer if self.figure.higher_is_better else peer / own

    def describe(self) -> dict[str, Any]:
        return {
            "row": self.row,
            "size": self.size,
            "figure": self.key,
            "unit": self.figure.unit,
            "contenders": {name: dataclasses.asdict(each) for name, each in self.statistics.items()},
            "ratio": self.ratio,
        }


def summarize(samples: Sequence[Sample]) -> list[Line]:
    """The figures that rows name, in the order of the rows, and the utilization of steps."""
    found = []
    for name, row in ALL_ROWS.items():
        of_row = [sample for sample in samples if sample.row == name]
        for size in dict.fromkeys(sample.size for sample in of_row):
            at_size = [sample for sample in of_row if sample.size == size]
            for key, figure in row.figures.items():
                if line := _line(name, size, key, figure, at_size):
                    found.append(line)
                    found += _utilization(line, at_size, samples)
    return found


def _line(row: str, size: int | None, key: str, figure: Figure, samples: Iterable[Sample]) -> Line | None:
    values: dict[str, list[float]] = {}
    for sample in samples:
        if key in sample.figures:
            values.setdefault(sample.contender, []).append(sample.figures[key])
    return Line(row, size, key, figure, {n: describe_values(v) for n, v in values.items()}) if values else None


def _utilization(line: Line, at_size: Sequence[Sample], samples: Sequence[Sample]) -> list[Line]:
    """The share that a step's products, by its median time, are of the largest rate that any contender reached."""
    gflop = next((value for sample in at_size if (value := sample.figures.get(f"gflop_{line.key}"))), None)
    ceiling = max((sample.figures["product"] for sample in samples if sample.row == "product"), default=None)
    if not gflop or not ceiling:
        return []
    shares = {
        name: Statistic(1000 * gflop / each.median / ceiling, 0.0, each.samples)
        for name, each in line.statistics.items()
    }
    figure = dataclasses.replace(UTILIZATION, title=f"{line.figure.title}{UTILIZATION.title}")
    return [Line(line.row, line.size, f"mfu_{line.key}", figure, shares)]


def own_medians(samples: Sequence[Sample]) -> Medians:
    """What growth.judge takes: of the plain contender of ours."""
    found: dict[tuple[str, str], dict[int | None, float]] = {}
    for line in summarize([sample for sample in samples if sample.contender == OURS]):
        found.setdefault((line.row, line.key), {})[line.size] = line.statistics[OURS].median
    return found


# --- The table -------------------------------------------------------------------------------------


def format_table(results: Results) -> str:
    """The results as Markdown, for docs/benchmarks.md: the machine, a table, and the checks of growth."""
    machine = results.machine
    lines = [
        f"{machine['cores']} cores of {machine['processor']} ({', '.join(machine['instructions']) or 'no AVX-512'}), "
        f"encoder {results.settings['encoder']}, trained in {results.settings['precision']}. "
        "Medians, with the interquartile range of several samples in brackets.",
        "",
        "| what | HubTune | the peer | ratio, above 1 is HubTune's |",
        "| --- | --- | --- | --- |",
    ]
    for line in summarize(results.samples):
        size = "" if line.size is None else f" {line.size:,}"
        unit = f", {line.figure.unit}" if line.figure.unit else ""
        cells = (_format_side(line, OURS), _format_side(line, PEER))
        ratio = f"{line.ratio:.2f}" if line.ratio else "-"
        title = f"{ALL_ROWS[line.row].title}{size}{line.figure.title}{unit}"
        lines.append(f"| {title} | {cells[0]} | {cells[1]} | {ratio} |")
    lines += [f"\n{_format_verdict(verdict)}" for verdict in judge(own_medians(results.samples))]
    return "\n".join(lines)


def _format_side(line: Line, side: str) -> str:
    shown = []
    for name, each in line.statistics.items():
        if name.startswith(side):
            label = name.removeprefix(side).lstrip(", ")
            spread = f" ({format_number(each.spread)})" if each.spread else ""
            shown.append(f"{label} {format_number(each.median)}{spread}".strip())
    return "; ".join(shown) or "-"


def format_number(value: float) -> str:
    """Three digits, or all of those before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _format_verdict(verdict: Verdict) -> str:
    outcome = "holds" if verdict.holds else "does not hold"
    return f"{verdict.title} {100 * verdict.value:.1f} %, at most {100 * verdict.limit:.0f} %: {outcome}."

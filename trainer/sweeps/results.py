"""What the runs of a sweep have reached, read from their model_dirs, and the trials ranked by it.

The model_dirs are all that a sweep remembers of its runs: whatever is decided is decided of them anew.
"""

import dataclasses
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from trainer.data import tasks
from trainer.storage import fs
from trainer.sweeps.trials import Trial, TrialRun

FINISHED, STARTED, MISSING = "finished", "started", "missing"


@dataclasses.dataclass(frozen=True)
class RunState:
    run: TrialRun
    status: str  # FINISHED: it has a result.json. STARTED: it has an evaluation. MISSING: neither.
    evaluations: Sequence[Mapping[str, Any]]  # The validation lines of metrics.jsonl.
    result: Mapping[str, Any]  # result.json's values. {} unless it is finished.

    @property
    def step(self) -> int:
        """The step of the newest evaluation, 0 if there is none."""
        return max((line["step"] for line in self.evaluations), default=0)


@dataclasses.dataclass(frozen=True)
class Spread:
    """A metric over seeds."""

    n: int
    mean: float
    std: float | None  # The standard deviation of a sample (n - 1). None of one value.
    min: float
    max: float


@dataclasses.dataclass(frozen=True)
class TrialState:
    trial: Trial
    runs: Sequence[RunState]
    value: Spread | None  # The best on validation of each run. None unless every run has one.
    loss: float  # The mean of the same steps' losses, which decides between equal means.

    @property
    def finished(self) -> bool:
        return all(state.status == FINISHED for state in self.runs)

    @property
    def step(self) -> int:
        """The step that every run has reached."""
        return min(state.step for state in self.runs)


def read_run(run: TrialRun) -> RunState:
    """The state of a run in its model_dir."""
    paths = [fs.join(run.model_dir, name) for name in ("result.json", "metrics.jsonl")]
    result, metrics = (fs.read_text(path) if fs.exists(path) else "" for path in paths)
    lines = [json.loads(line) for line in metrics.splitlines()]
    evaluations = [line for line in lines if line["split"] == "validation"]
    status = FINISHED if result else STARTED if evaluations else MISSING
    return RunState(run, status, evaluations, json.loads(result) if result else {})


def measure_spread(values: Sequence[float]) -> Spread:
    std = statistics.stdev(values) if len(values) > 1 else None
    return Spread(len(values), statistics.fmean(values), std, min(values), max(values))


def best_evaluation(state: RunState, metric: str, up_to_step: int | None = None) -> Mapping[str, Any] | None:
    """The best evaluation of a run, of those up to a step if one is given: what best/ held then."""
    lines = [line for line in state.evaluations if up_to_step is None or line["step"] <= up_to_step]
    return max(lines, key=lambda line: (*tasks.rank(metric, line[metric], line["loss"]), -line["step"]), default=None)


def summarize_trials(states: Iterable[RunState], metric: str, up_to_step: int | None = None) -> list[TrialState]:
    """The trials of the runs, in the order of their first runs."""
    by_trial: dict[str, list[RunState]] = {}
    for state in states:
        by_trial.setdefault(state.run.trial.name, []).append(state)
    return [_summarize(runs, metric, up_to_step) for runs in by_trial.values()]


def _summarize(runs: Sequence[RunState], metric: str, up_to_step: int | None) -> TrialState:
    best = [line for state in runs if (line := best_evaluation(state, metric, up_to_step)) is not None]
    complete = len(best) == len(runs)
    value = measure_spread([line[metric] for line in best]) if complete else None
    return TrialState(runs[0].run.trial, runs, value, statistics.fmean(line["loss"] for line in best) if best else 0.0)


def rank_trials(trials: Iterable[TrialState], metric: str) -> list[TrialState]:
    """The trials with a value, the best mean first; of equals the lower loss, then the first."""
    valued = [(each, each.value) for each in trials if each.value is not None]
    ranked = sorted(valued, key=lambda pair: tasks.rank(metric, pair[1].mean, pair[0].loss), reverse=True)
    return [each for each, _ in ranked]


def choose_trial(trials: Iterable[TrialState], metric: str) -> TrialState | None:
    """The best of the trials whose runs are all finished."""
    return next(iter(rank_trials((each for each in trials if each.finished), metric)), None)


def describe_test(chosen: TrialState) -> dict[str, Spread]:
    """The test metrics of the chosen trial, over its seeds."""
    tests = [state.result["test"] for state in chosen.runs]
    shared = [name for name in tests[0] if name != "examples" and all(name in test for test in tests)]
    return {name: measure_spread([float(test[name]) for test in tests]) for name in shared}

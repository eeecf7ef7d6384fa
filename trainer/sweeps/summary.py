"""What a sweep shows and keeps: sweep.json, and the table for people."""

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from trainer.data.labels import format_number
from trainer.runtime import text_tables
from trainer.storage import fs
from trainer.sweeps import results, trials
from trainer.sweeps.results import FINISHED, RunState, Spread, TrialState

SWEEP_FILE = "sweep.json"
# The test metric of the chosen trial that the closing lines show beside the one that it was chosen by.
SHOWN_TEST_METRICS = 3


@dataclasses.dataclass(frozen=True)
class Sweep:
    """What a sweep's files are made of."""

    metric: str  # The validation metric that trials are ranked by.
    base: Mapping[str, Any]  # trials.describe_base of this command, and of earlier ones what is in its space.
    space: Mapping[str, Any]
    seeds: Sequence[int]
    trials: Sequence[TrialState]
    errors: Mapping[str, str]  # Name of a run -> the end of what it wrote. Of this command's runs.
    jobs: Mapping[str, str]  # Name of a run -> what was printed when it was submitted.

    @property
    def ranked(self) -> list[TrialState]:
        """The finished trials, the best first; then the others, those that came furthest first."""
        finished = results.rank_trials((each for each in self.trials if each.finished), self.metric)
        others = [each for each in self.trials if not each.finished]
        behind = results.rank_trials(others, self.metric)
        behind += [each for each in others if each.value is None]
        return [*finished, *sorted(behind, key=lambda each: -each.step)]

    @property
    def chosen(self) -> TrialState | None:
        return results.choose_trial(self.trials, self.metric)


def read_sweep(output: str) -> dict[str, Any]:
    """sweep.json's values, {} if there is none."""
    path = fs.join(output, SWEEP_FILE)
    return fs.read_json(path) if fs.exists(path) else {}


def write_sweep(output: str, sweep: Sweep) -> None:
    fs.write_json(fs.join(output, SWEEP_FILE), describe_sweep(sweep), ensure_ascii=False)


def describe_sweep(sweep: Sweep) -> dict[str, Any]:
    """sweep.json's values. A test metric is in it of the chosen trial alone: to choose by it would be to fit it."""
    chosen = sweep.chosen
    return {
        "metric": sweep.metric,
        "seeds": list(sweep.seeds),
        "chosen": chosen
        and {
            "name": chosen.trial.name,
            "settings": dict(chosen.trial.settings),
            "validation": _describe_spread(chosen.value),
            "test": {name: _describe_spread(spread) for name, spread in results.describe_test(chosen).items()},
        },
        "trials": [_describe_trial(each, sweep) for each in sweep.ranked],
        "space": dict(sweep.space),
        "base": dict(sweep.base),
        "jobs": dict(sweep.jobs),
    }


def _describe_trial(each: TrialState, sweep: Sweep) -> dict[str, Any]:
    return {
        "name": each.trial.name,
        "settings": dict(each.trial.settings),
        "status": describe_status(each, sweep),
        "step": each.step,
        "validation": _describe_spread(each.value),
        "runs": [_describe_run(state, sweep) for state in each.runs],
    }


def _describe_run(state: RunState, sweep: Sweep) -> dict[str, Any]:
    best = results.best_evaluation(state, sweep.metric)
    error = sweep.errors.get(state.run.name)
    return {
        "seed": state.run.seed,
        "model_dir": state.run.model_dir,
        "status": state.status,
        "step": state.step,
        "best_step": best["step"] if best else None,
        "validation": best[sweep.metric] if best else None,
        "seconds": state.result.get("seconds"),
        **({"error": error} if error is not None else {}),
    }


def _describe_spread(spread: Spread | None) -> dict[str, Any] | None:
    return dataclasses.asdict(spread) if spread else None


def describe_status(each: TrialState, sweep: Sweep) -> str:
    """finished, failed, at step N, submitted or missing."""
    if each.finished:
        return FINISHED
    if any(state.run.name in sweep.errors for state in each.runs):
        return "failed"
    if each.step:
        return f"at step {each.step:,}"
    return "submitted" if any(state.run.name in sweep.jobs for state in each.runs) else "missing"


def format_sweep(sweep: Sweep, output: str) -> str:
    """The table of the trials, what failed, and the chosen trial with its test."""
    keys = list(sweep.trials[0].trial.settings)
    name = sweep.metric.replace("_", " ")
    cells = [["", *(key.rpartition(".")[2] for key in keys), f"{name}: mean", "std", "min", "max", "seeds", "status"]]
    for place, each in enumerate(sweep.ranked, 1):
        values = trials.flag_values(each.trial.settings)
        numbers = _format_spread(each.value) if each.value else ["", "", "", "", f"0 of {len(each.runs)}"]
        cells.append([str(place), *(values[key] for key in keys), *numbers, describe_status(each, sweep)])
    lines = [f"by {name} on validation, the best evaluation of each run", text_tables.align_columns(cells)]
    lines += [f"failed: {run}: {message}" for run, message in sweep.errors.items()]
    chosen = sweep.chosen
    if chosen:
        values = trials.flag_values(chosen.trial.settings)
        settings = " ".join(f"--{key}={shlex.quote(value)}" for key, value in values.items())
        tests = results.describe_test(chosen)
        shown = [sweep.metric, *(metric for metric in tests if metric not in (sweep.metric, "loss"))]
        lines.append(f"chosen  {settings}")
        for metric in [metric for metric in shown if metric in tests][:SHOWN_TEST_METRICS]:
            mean, std, low, high, seeds = _format_spread(tests[metric])
            spread = f" (std {std}, {low} to {high}, {seeds} seeds)" if std else " (1 seed)"
            lines.append(f"test    {metric.replace('_', ' ')} {mean}{spread}")
        lines.append("the test is that of the chosen trial alone: it had no part in the choice")
    lines.append(
        f"results {fs.join(output, SWEEP_FILE)}, sweep.png; tensorboard --logdir={fs.join(output, 'tensorboard')}"
    )
    return "\n".join(lines)


def _format_spread(spread: Spread) -> list[str]:
    std = "" if spread.std is None else format_number(spread.std)
    return [format_number(spread.mean), std, format_number(spread.min), format_number(spread.max), str(spread.n)]

"""Which runs of a sweep go on, and to which step: all of them to their end, or by successive halving."""

import dataclasses
import logging
import math
from collections.abc import Callable, Sequence

from trainer.sweeps import results
from trainer.sweeps.results import FINISHED, RunState
from trainer.sweeps.space import Halving
from trainer.sweeps.trials import TrialRun

_LOG = logging.getLogger(__name__)

# Runs every run to a step, or to its end; a run that fails is left where it is. Raises signals.Stopped after a signal.
Execute = Callable[[Sequence[TrialRun], int | None], None]


@dataclasses.dataclass(frozen=True)
class Rung:
    step: int
    trials: int  # How many come to it.


def plan_rungs(halving: Halving | None, trials: int) -> list[Rung]:
    """The steps at which trials are compared, before the last ones train to their end."""
    rungs: list[Rung] = []
    while halving and trials > 1:
        rungs.append(Rung(halving.first_steps * halving.factor ** len(rungs), trials))
        trials = math.ceil(trials / halving.factor)
    return rungs


def run_search(runs: Sequence[TrialRun], halving: Halving | None, metric: str, execute: Execute) -> None:
    """Train the runs, each one no further than its trial's rank allows.

    A trial of which a run failed before a rung is not compared there, and goes no further. Runs that have gone further,
    in a sweep of a smaller space, keep what they have.
    """
    going = list(runs)
    for rung in plan_rungs(halving, len({run.trial.name for run in runs})):
        execute([run for run in going if not has_reached(results.read_run(run), rung.step)], rung.step)
        states = [state for state in map(results.read_run, going) if has_reached(state, rung.step)]
        complete = [each for each in results.summarize_trials(states, metric, rung.step) if _all_of(going, each.runs)]
        assert halving is not None
        kept = results.rank_trials(complete, metric)[: math.ceil(rung.trials / halving.factor)]
        names = {each.trial.name for each in kept}
        _LOG.info("step %s: %d of %d trials go on", f"{rung.step:,}", len(names), rung.trials)
        going = [run for run in going if run.trial.name in names]
    execute([run for run in going if results.read_run(run).status != FINISHED], None)


def has_reached(state: RunState, step: int | None) -> bool:
    """Whether a run is evaluated at this step, or finished; None is its end."""
    return state.status == FINISHED or (step is not None and state.step >= step)


def _all_of(runs: Sequence[TrialRun], states: Sequence[RunState]) -> bool:
    trial = states[0].run.trial.name
    return len(states) == sum(run.trial.name == trial for run in runs)

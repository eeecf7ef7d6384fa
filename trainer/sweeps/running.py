"""A sweep from its trials to its files: its runs as processes of this machine, or as submitted jobs."""

import contextlib
import dataclasses
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from trainer import child_process
from trainer.errors import EXIT_STOPPED, Problem, UserError
from trainer.runtime.signals import Stopped, StopRequest
from trainer.storage import fs
from trainer.sweeps import job_runs, plot, results, search, summary, trials
from trainer.sweeps.job_runs import EndedJob, JobRun
from trainer.sweeps.results import RunState
from trainer.sweeps.space import Space
from trainer.sweeps.summary import Sweep
from trainer.sweeps.trials import Trial, TrialRun

_LOG = logging.getLogger(__name__)

SUBMIT_TIMEOUT_S = 600.0
LOG_FOLDER = "logs"


@dataclasses.dataclass(frozen=True)
class SweepPlan:
    """What is run and where."""

    output: str
    trials: Sequence[Trial]
    seeds: Sequence[int]
    space: Space
    metric: str  # The validation metric that trials are ranked by.
    base: Mapping[str, Any]  # trials.describe_base
    flags: Sequence[str]  # The user's own flags of the configuration, for trainer.task and for submit.py.

    @property
    def runs(self) -> list[TrialRun]:
        return trials.plan_runs(self.trials, self.seeds, self.output)


@contextlib.contextmanager
def hold_sweep(plan: SweepPlan) -> Iterator[Mapping[str, Any]]:
    """Hold the folder of the sweep for this process; yields the sweep.json that is there, {} if there is none.

    Raises UserError if another sweep holds it, or if it has a sweep of another base.
    """
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(fs.exclusive_lock(plan.output))
            before = summary.read_sweep(plan.output)
            if differences := trials.find_base_differences(before.get("base", {}), plan.base):
                required = "be new, or have a sweep of this configuration and data"
                received = f"{plan.output}, with a sweep of another ({'; '.join(differences)})"
                advice = "The space alone may change: its new trials are added, and those that have left it are kept."
                raise UserError(Problem("--output", required, received, advice))
            held = stack.pop_all()
    except UserError as error:
        first = error.problems[0]
        if first.setting == "--model_dir":  # What the lock says of any folder.
            raise UserError(Problem("--output", "be used by one sweep at a time", first.received)) from None
        raise
    with held:
        yield before


def run_sweep(
    plan: SweepPlan,
    before: Mapping[str, Any],
    request: StopRequest,
    *,
    strategy: str,
    slots: Sequence[Mapping[str, str]],
    timeout_s: float,
) -> Sweep:
    """Train what is missing, and write the files of the sweep. Raises signals.Stopped after a signal."""
    errors: dict[str, str] = {}
    runs = plan.runs

    def report(ended: EndedJob, stop_at_step: int | None) -> None:
        states = _read_runs(plan)
        state = next(state for state in states if state.run.name == ended.job.name)
        best = results.best_evaluation(state, plan.metric)
        if ended.exit_code not in (0, EXIT_STOPPED) or not (request.reason or search.has_reached(state, stop_at_step)):
            errors[ended.job.name] = f"{ended.message} (its output: {ended.job.log})"
            _LOG.warning("%s failed: %s", ended.job.name, errors[ended.job.name])
        elif best:
            value = f"validation {plan.metric} {best[plan.metric]:.4f} at step {best['step']:,}"
            _LOG.info("%s: %s; %s", ended.job.name, value, _describe_progress(states))
        _write(plan, before, errors, states)

    def execute(pending: Sequence[TrialRun], stop_at_step: int | None) -> None:
        jobs = [_task_job(plan, run, strategy, stop_at_step) for run in pending if run.name not in errors]
        job_runs.run_jobs(
            jobs, request, slots=slots, timeout_s=timeout_s, on_end=lambda ended: report(ended, stop_at_step)
        )

    _write(plan, before, errors, _read_runs(plan))
    try:
        search.run_search(runs, plan.space.halving, plan.metric, execute)
    except Stopped as stopped:
        states = _read_runs(plan)
        _write(plan, before, errors, states)
        progress = _describe_progress(states)
        raise Stopped(f"{stopped}: {progress}. Run the same command again to go on.") from None
    return _finish(plan, before, errors, _read_runs(plan))


def submit_sweep(
    plan: SweepPlan, before: Mapping[str, Any], submit: Callable[[TrialRun], str], *, again: bool, keep: bool
) -> Sweep:
    """Submit a job for each run that has no result and, unless `again`, was not submitted before.

    `submit` returns what the submission printed; a UserError of it is kept as the run's error. With `keep` off, as for
    a dry run, what was submitted is not remembered.
    """
    jobs, errors = dict(before.get("jobs", {})), dict[str, str]()
    states = _read_runs(plan)  # Once: each is a few requests to a bucket.
    for run in (state.run for state in states if state.status != results.FINISHED):
        if run.name in jobs and not again:
            continue
        try:
            printed = submit(run)
        except UserError as error:
            errors[run.name] = str(error)
            continue
        if keep:
            jobs[run.name] = printed
            _write(plan, {**before, "jobs": jobs}, errors, states)  # Before the next one: it is not submitted twice.
    return _finish(plan, {**before, "jobs": jobs}, errors, states)


def submit_run(plan: SweepPlan, run: TrialRun, script: str, flags: Sequence[str]) -> str:
    """Submit the job of a run with submit.py, at `script`; return what that prints. Raises UserError if it fails."""
    where = [f"--name={run.name}", f"--base_output_directory={run.model_dir}"]
    command = [sys.executable, script, *flags, *plan.flags, *run.flags, *where]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=SUBMIT_TIMEOUT_S, env=child_process.environment()
        )
    except subprocess.TimeoutExpired:
        required = f"be submitted within {SUBMIT_TIMEOUT_S:g} s"
        advice = "It may have been submitted all the same: look for it in the console before you run the command again."
        raise UserError(Problem(f"The job of {run.name}", required, "no answer", advice)) from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no output"]
        raise UserError(Problem(f"The job of {run.name}", "be submitted", lines[-1]))
    return done.stdout.strip()


def _task_job(plan: SweepPlan, run: TrialRun, strategy: str, stop_at_step: int | None) -> JobRun:
    flags = [*plan.flags, *run.flags, f"--model_dir={run.model_dir}", f"--strategy={strategy}"]
    flags += ["--logging.progress=false", *([f"--stop_at_step={stop_at_step}"] if stop_at_step else [])]
    log = os.path.join(plan.output, LOG_FOLDER, f"{run.name}.log")
    return JobRun(run.name, child_process.command("trainer.task", *flags), log)


def _read_runs(plan: SweepPlan) -> list[RunState]:
    return [results.read_run(run) for run in plan.runs]


def _describe_progress(states: Sequence[RunState]) -> str:
    finished = sum(state.status == results.FINISHED for state in states)
    return f"{finished} of {len(states)} runs finished"


def _write(plan: SweepPlan, before: Mapping[str, Any], errors: Mapping[str, str], states: Sequence[RunState]) -> Sweep:
    """Write sweep.json of these states. `before` is the one that is there, with the jobs that were submitted since."""
    trial_states = results.summarize_trials(states, plan.metric)
    space, jobs = dataclasses.asdict(plan.space), before.get("jobs", {})
    # A key that has left the base for a space keeps its value: a run that stays is one of that value.
    base = {**before.get("base", {}), **plan.base}
    sweep = Sweep(plan.metric, base, space, plan.seeds, trial_states, errors, jobs)
    summary.write_sweep(plan.output, sweep)
    return sweep


def _finish(plan: SweepPlan, before: Mapping[str, Any], errors: Mapping[str, str], states: Sequence[RunState]) -> Sweep:
    from trainer.sweeps import hparams  # It imports TensorFlow, which --help does without.

    sweep = _write(plan, before, errors, states)
    plot.draw_sweep(sweep.trials, plan.metric, fs.join(plan.output, plot.PICTURE_FILE))
    hparams.write_hparams(plan.output, sweep.trials, plan.metric)
    return sweep

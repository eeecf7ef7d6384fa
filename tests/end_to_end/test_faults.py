"""Processes are killed at random instants: the run must end bit for bit like one that was not interrupted.

`make test` kills a few times. `make chaos` kills every job KILLS times, with a schedule drawn with CHAOS_SEED.
"""

import json
import os
import random
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from interruptions import (
    INSTANTS,
    SAVE_EVERY_STEPS,
    STRATEGIES,
    JobCommand,
    assert_equal_runs,
    committed_step,
    draw_instants,
    send_signal_at,
)

KILLS = 20
EXIT_TIMEOUT_S = 60  # from the death of one worker to the exit of the others


@dataclass
class Interruptions:
    """What happened to an interrupted run, a value for each signal that was sent."""

    instants: list[str] = field(default_factory=list)
    repeated_steps: list[int] = field(default_factory=list)  # Steps that were logged, and have to be computed again.
    exit_delays_s: list[float] = field(default_factory=list)  # From the signal to the exit of the last process.


def last_logged_step(model_dir: Path) -> int:
    try:
        lines = (model_dir / "metrics.jsonl").read_text().splitlines()
    except FileNotFoundError:
        lines = []
    return json.loads(lines[-1])["step"] if lines else 0


def run_interrupted(job: JobCommand, model_dir: Path, instants: list[str], seed: int) -> Interruptions:
    """Run the job to its end, interrupted at each instant in turn."""
    rng = random.Random(seed)
    interruptions = Interruptions()
    for instant in instants:
        step_before = committed_step(model_dir)
        running = job.start(model_dir)
        sent = send_signal_at(running, instant, rng)
        sent_at = time.monotonic()
        codes = running.wait(EXIT_TIMEOUT_S if sent else 900)
        output = running.output()
        if sent:
            interruptions.instants.append(instant)
            interruptions.repeated_steps.append(last_logged_step(model_dir) - committed_step(model_dir))
            interruptions.exit_delays_s.append(time.monotonic() - sent_at)
            assert codes.count(-signal.SIGKILL) == (instant != "SIGTERM"), output
            # A surviving worker exits with 75, or had already finished, or timed out waiting for the other to start.
            other_codes = [code for code in codes if code != -signal.SIGKILL]
            assert set(other_codes) <= {"SIGTERM": {75}, "start-up": {75, 1}}.get(instant, {75, 0}), output
            assert ("stopped" in output) == (75 in other_codes), output
            assert ("Every worker must be reached" in output) == (1 in other_codes), output
        assert committed_step(model_dir) >= step_before, "a checkpoint was lost"
    job.run_to_end(model_dir)
    return interruptions


@pytest.mark.parametrize(
    ("strategy", "instants"),
    [
        ("cpu", ["during a save", "export"]),
        pytest.param("mirrored", ["evaluation"], marks=pytest.mark.long),
        pytest.param("multi_worker", ["training", "SIGTERM"], marks=pytest.mark.long),
    ],
)
def test_an_interrupted_run_equals_an_uninterrupted_one(make_job_command, tmp_path, strategy, instants):
    job = make_job_command(strategy, 150)
    interruptions = run_interrupted(job, tmp_path / "killed", instants, seed=1)
    assert interruptions.instants == instants
    assert max(interruptions.repeated_steps) <= SAVE_EVERY_STEPS
    assert_equal_runs(tmp_path / "killed", job.run_to_end(tmp_path / "uninterrupted"))


@pytest.mark.chaos
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_run_killed_twenty_times_equals_an_uninterrupted_one(make_job_command, tmp_path, strategy, capsys):
    seed = int(os.environ.get("CHAOS_SEED", "0"))
    job = make_job_command(strategy, 2000)
    interruptions = run_interrupted(job, tmp_path / "killed", draw_instants(seed, KILLS + 2), seed)
    with capsys.disabled():
        counts = ", ".join(f"{name} {interruptions.instants.count(name)}" for name in INSTANTS)
        print(
            f"\n{strategy}: seed {seed}, {len(interruptions.instants)} kills ({counts}); at most "
            f"{max(interruptions.repeated_steps)} logged steps repeated, the last process exited after at most "
            f"{max(interruptions.exit_delays_s):.1f} s"
        )
    assert len(interruptions.instants) >= KILLS
    assert strategy == "background saves" or max(interruptions.repeated_steps) <= SAVE_EVERY_STEPS
    assert_equal_runs(tmp_path / "killed", job.run_to_end(tmp_path / "uninterrupted"))

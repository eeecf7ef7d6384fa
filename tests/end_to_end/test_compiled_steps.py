"""A job whose layers are recomputed and whose steps XLA compiles, killed and resumed."""

import re
from pathlib import Path

import pytest
from interruptions import JobCommand, assert_equal_runs, read_metrics

SETTINGS = (
    *("model.compile=xla", "model.recompute=true"),
    *("data.seq_length=64", "data.pad_multiple=1", "data.batch_size=4"),
)


@pytest.fixture(scope="module")
def job(make_job_command) -> JobCommand:
    command = make_job_command("cpu", 100)
    return JobCommand([*command.flags, *(f"--set={key}" for key in SETTINGS)], command.workers)


def count_programs(folder: Path) -> dict[str, int]:
    """How many programs XLA compiled for each function, by what it was told to write."""
    names = [path.name for path in folder.glob("*.before_optimizations.txt")]
    functions = [match[1] for name in names if (match := re.search(r"inference_(share_sums|score)_", name))]
    return {function: functions.count(function) for function in sorted(set(functions))}


def test_a_compiled_run_has_few_programs_and_resumes_bit_for_bit(job, tmp_path, monkeypatch):
    """Texts of some 10 to 50 tokens would be as many widths, and so programs of each function."""
    with monkeypatch.context() as environment:
        environment.setenv("XLA_FLAGS", f"--xla_dump_to={tmp_path / 'programs'}")
        uninterrupted = job.run_to_end(tmp_path / "uninterrupted")
    programs = count_programs(tmp_path / "programs")
    print(f"programs compiled in a run of {len(read_metrics(uninterrupted, 'train'))} log lines: {programs}")
    assert 2 <= programs["share_sums"] <= 4
    assert 2 <= programs["score"] <= 4
    assert_equal_runs(job.run_interrupted(tmp_path / "killed", "training"), uninterrupted)

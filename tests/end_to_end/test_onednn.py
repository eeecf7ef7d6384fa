"""The heap corruption in oneDNN (docs/onednn.md), provoked with our defaults and without them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT, excerpt, keep_first_lines
from interruptions import JobCommand

from trainer.runtime import tensorflow_variables

SCRIPT = "tests/end_to_end/onednn_race.py"
PROVOKED_PROCESSES = 24
SHORT_JOBS = int(os.environ.get("SHORT_JOBS", "20"))
# Of the environment of these tests, what would keep oneDNN's AVX-512 kernels away.
REMOVED_VARIABLES = {*tensorflow_variables.ONEDNN_VARIABLES, "ONEDNN_MAX_CPU_ISA"}
needs_avx512 = pytest.mark.skipif(
    "avx512f" not in Path("/proc/cpuinfo").read_text(), reason="without AVX-512 the crash was never seen"
)
WITHOUT_REMEDY = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "1024"}  # oneDNN's own default


def provoke(**variables: str) -> int:
    """Run the script after `import trainer`, as everything of ours imports TensorFlow. Returns the exit code."""
    code = f"import trainer, runpy; runpy.run_path({SCRIPT!r}, run_name='__main__')"
    others = {name: value for name, value in os.environ.items() if name not in REMOVED_VARIABLES}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={**others, **variables}, capture_output=True, text=True, timeout=120
    )
    keep_first_lines(done.returncode, done.stderr)
    assert done.returncode <= 0, excerpt(done.stderr)  # A wrong product, or no TensorFlow.
    return done.returncode


@needs_avx512
def test_a_provoked_process_does_not_die():
    assert provoke() == 0


@needs_avx512
@pytest.mark.chaos
def test_many_provoked_processes_do_not_die():
    assert [provoke() for _ in range(PROVOKED_PROCESSES)] == [0] * PROVOKED_PROCESSES


@needs_avx512
@pytest.mark.chaos
def test_provoked_processes_die_without_the_remedy():
    """If none dies, TensorFlow has a oneDNN that is cured: the remedy, and what is written about it, can go."""
    assert any(provoke(**WITHOUT_REMEDY) < 0 for _ in range(8))


@pytest.mark.chaos
def test_short_jobs_in_a_row_do_not_die(tiny, prepared, tmp_path):
    flags = [f"--encoder={tiny}", f"--data_dir={prepared}", "--data.seq_length=48", "--training.epochs=1"]
    for number in range(SHORT_JOBS):
        JobCommand(flags, 1).run_to_end(tmp_path / str(number))

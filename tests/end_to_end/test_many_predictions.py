"""predict.py on a large table: its memory is that of a small one."""

import csv
import os
import random
import subprocess
import sys
import time

import pytest
from helpers import ROOT, review

SMALL, LARGE = 10_000, int(os.environ.get("PREDICTED_ROWS", "200000"))


def predict(model, table, output):
    """(the peak of memory in MB, seconds) of predict.py on a table."""
    command = [sys.executable, "scripts/predict.py", f"--model={model}", f"--input={table}", f"--output={output}"]
    started = time.monotonic()
    process = subprocess.Popen(command, cwd=ROOT)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_maxrss / 1024, time.monotonic() - started


@pytest.mark.chaos
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_memory_does_not_grow_with_the_rows(finished_run, tmp_path, suffix):
    peaks = []
    for rows in (SMALL, LARGE):
        rng = random.Random(rows)
        with open(tmp_path / "in.csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "text"])
            writer.writerows((number, review(rng, number % 2 == 0)) for number in range(rows))
        peak, seconds = predict(finished_run / "export", tmp_path / "in.csv", tmp_path / f"out{suffix}")
        print(f"{rows:,} rows to {suffix}: {peak:.0f} MB, {seconds:.0f} s, {rows / seconds:.0f} rows/s")
        peaks.append(peak)
    assert peaks[1] < peaks[0] + 50

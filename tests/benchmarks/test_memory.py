import sys

import pytest

from trainer.benchmarks import memory

# A process that logs 20 steps of 0.1 s, and keeps as many MiB of each as its argument says.
RUN = """
import json, os, sys, time
folder = sys.argv[2].removeprefix("--model_dir=")
os.mkdir(folder)
kept = []
for step in range(1, 21):
    kept.append(bytearray(int(sys.argv[1]) << 20))
    with open(f"{folder}/metrics.jsonl", "a") as file:
        file.write(json.dumps({"step": step, "split": "train"}) + "\\n")
    time.sleep(0.1)
"""


def test_a_process_that_keeps_memory_grows_and_another_does_not():
    kept = memory.watch_memory([sys.executable, "-c", RUN, "10"], 20)
    assert kept["growth_percent"] > 50
    steady = memory.watch_memory([sys.executable, "-c", RUN, "0"], 20)
    assert abs(steady["growth_percent"]) < 5
    assert steady["steady_mb"] > 5


def test_the_start_and_what_follows_the_last_step_are_left_out():
    samples = [(0, 100.0), (20, 500.0), (25, 500.0), (50, 900.0), (95, 510.0), (99, 510.0), (100, 2000.0)]
    assert memory.compare_memory(samples, 100) == {"steady_mb": 500.0, "growth_percent": pytest.approx(2.0)}


def test_a_run_without_samples_at_its_ends_is_refused():
    with pytest.raises(ValueError, match="longer"):
        memory.compare_memory([(0, 100.0), (100, 100.0)], 100)


def test_a_run_that_fails_ends_the_measurement():
    with pytest.raises(SystemExit):
        memory.watch_memory([sys.executable, "-c", "raise SystemExit(3)"], 20)

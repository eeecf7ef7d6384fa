"""scripts/check_tpu.py: the tiny encoder's steps for two topologies; the search for the largest batch."""

import dataclasses
import re
import subprocess
from pathlib import Path

import pytest
from helpers import python

from trainer import errors
from trainer.tpu_check import compiler, estimate
from trainer.tpu_check.compiler import Compiled
from trainer.tpu_check.estimate import Fit


@pytest.fixture(scope="module")
def table() -> list[dict[str, str]]:
    """The lines that the script prints for the tiny encoder, by column."""
    rows = []
    for options in (["--topologies=v2-8"], ["--topologies=v5e-4", "--accumulation_steps=2"]):
        done = python("scripts/check_tpu.py", "--batch_size=8", "--seq_length=32", *options)
        assert done.returncode == 0, done.stderr
        heading, _, *lines = [re.split(r" *\| *", line.strip("| \n")) for line in done.stdout.splitlines()]
        rows += [dict(zip(heading, line, strict=True)) for line in lines]
    return rows


def test_both_steps_of_the_tiny_encoder_compile_for_an_old_and_a_new_tpu(table):
    assert [(row["encoder"], row["topology"], row["global batch"]) for row in table] == [
        ("tiny", "v2-8", "64"),
        ("tiny", "v5e-4", "32"),
    ]
    for row in table:
        assert 0 < float(row["HBM used, GB"]) < 1 < float(row["HBM free, GB"])
        assert float(row["TFLOPs a step"]) > 0


def test_a_full_run_is_a_program_for_training_and_one_for_evaluation(table):
    assert [row["programs"] for row in table] == ["2", "2"]


def test_the_gradients_are_summed_over_the_replicas_in_few_all_reduces(table):
    assert all(1 <= int(row["all-reduces"]) <= 4 for row in table)


def test_an_encoder_that_is_not_known_is_a_failure_with_one_message():
    done = python("scripts/check_tpu.py", "--encoders=albert_en_base", "--topologies=v5e-4")
    assert done.returncode == errors.EXIT_FAILED
    assert done.stderr.startswith(
        "error: --encoders must be of tiny, bert_base, bert_large, or names that end in sizes"
    )
    assert done.stderr.endswith("Received: albert_en_base.\n")


def test_a_sequence_longer_than_the_encoder_knows_is_a_failure():
    done = python("scripts/check_tpu.py", "--seq_length=1024", "--topologies=v5e-4")
    assert done.returncode == errors.EXIT_FAILED
    assert done.stderr == "error: --seq_length must be at most 512. Received: 1024.\n"


def test_a_topology_that_is_not_known_is_bad_usage():
    done = python("scripts/check_tpu.py", "--topologies=v5e-4,v9")
    assert done.returncode == errors.EXIT_BAD_USAGE
    assert "--topologies must be of v2-8, v3-8, v4-8, v5e-4, v5e-8, v5p-8. Received: v9." in done.stderr


def test_parts_that_do_not_divide_the_batch_are_bad_usage():
    done = python("scripts/check_tpu.py", "--batch_size=8", "--accumulation_steps=3")
    assert done.returncode == errors.EXIT_BAD_USAGE
    assert "--accumulation_steps must divide --batch_size, and 8 with --largest. Received: 3." in done.stderr


def test_environments_that_are_missing_are_named(monkeypatch):
    monkeypatch.setattr(estimate, "TRACER", Path("nowhere/bin/python"))
    with pytest.raises(ValueError, match=r"nowhere must be installed.*make tpu-check"), estimate.workers():
        pass


def test_a_process_that_dies_tells_what_it_said(tmp_path):
    code = "import sys; sys.exit('of an unknown cause')"
    log = tmp_path / "log.txt"
    with log.open("w") as said:
        pipe = subprocess.PIPE
        process = subprocess.Popen([estimate.COMPILER, "-c", code], stdin=pipe, stdout=pipe, stderr=said, text=True)
    with process, pytest.raises(RuntimeError, match="ended with 1:\nof an unknown cause"):
        estimate._ask(estimate.Worker(process, log), {})


# --- The largest batch ----------------------------------------------------------------------------


def tried(largest: int, within: float = 0.0, first: int = 32) -> tuple[int, list[int]]:
    """What is found where batches up to `largest` fit, and what was compiled to find it."""
    asked = []

    def fits(batch: int) -> bool:
        assert batch % estimate.MULTIPLE == 0
        asked.append(batch)
        return batch <= largest

    return estimate.largest_batch(fits, first, within), asked


@pytest.mark.parametrize("largest", [0, 7, 8, 24, 31, 32, 40, 63, 100, 1000, 5000, 1 << 14, 1 << 20])
@pytest.mark.parametrize("first", [8, 20, 32, 512])
def test_the_largest_batch_is_found_and_nothing_is_compiled_twice(largest, first):
    found, asked = tried(largest, first=first)
    assert found == min(largest, 1 << 14) // 8 * 8
    assert len(asked) == len(set(asked)) <= 24


@pytest.mark.parametrize("largest", [40, 100, 1000, 5000])
@pytest.mark.parametrize("within", [1.0, 0.5, 0.1])
def test_a_share_of_it_may_be_left_open(largest, within):
    found, asked = tried(largest, within)
    assert found <= largest < found + max(within * found, 8)
    assert within < 1 or asked == [32 << i for i in range(len(asked))]


def test_what_the_compiler_refuses_has_no_figures():
    refused = Fit(False, 0, 100, Compiled(False, 100), 2)
    assert estimate.figures(refused) == ["does not fit", "", "", "", "", "2"]
    assert dataclasses.replace(refused, used=30).free == 70


def test_a_line_has_a_cell_for_each_column():
    job = estimate.Job("tiny", compiler.TOPOLOGIES["v2-8"].replicas, 128, 1024)
    assert estimate.line(estimate.row(job, "v2-8")) == "| tiny | v2-8 | 128 | 8 | 1,024 | 8,192 |"
    assert estimate.heading(["a", "b", "c"]) == "| a | b | c |\n| --- | --- | ---: |"

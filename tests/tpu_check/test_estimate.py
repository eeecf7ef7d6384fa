"""scripts/check_tpu.py with the tiny encoder on two topologies, and the search for the largest batch."""

import dataclasses
import re
from pathlib import Path

import pytest
from helpers import python

from trainer import errors
from trainer.tpu_check import estimate
from trainer.tpu_check.compiler import TOPOLOGIES, CompiledProgram


def print_table(*options: str) -> list[dict[str, str]]:
    """The rows that the script prints for small encoders: column -> cell."""
    done = python("scripts/check_tpu.py", "--batch_size=8", "--seq_length=32", *options)
    assert done.returncode == 0, done.stderr
    heading, _, *lines = [re.split(r" *\| *", line.strip("| \n")) for line in done.stdout.splitlines()]
    return [dict(zip(heading, line, strict=True)) for line in lines]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--topologies=v5e-4", "--accumulation_steps=2", "--max_windows=3"], [("tiny", "v5e-4", "32")]),
        pytest.param(["--topologies=v2-8"], [("tiny", "v2-8", "64")], marks=pytest.mark.long),
        pytest.param(
            ["--topologies=v5e-4", "--encoders=tiny_albert,tiny_talking_heads"],
            [("tiny_albert", "v5e-4", "32"), ("tiny_talking_heads", "v5e-4", "32")],
            marks=pytest.mark.long,
        ),
    ],
)
def test_a_run_compiles_for_a_tpu(options, expected):
    """Into one program to train and one to evaluate, with few all-reduces of the gradients."""
    table = print_table(*options)
    assert [(row["encoder"], row["topology"], row["global batch"]) for row in table] == expected
    for row in table:
        assert 0 < float(row["HBM used, GB"]) < 1 < float(row["HBM free, GB"])
        assert float(row["TFLOPs a step"]) > 0
        assert row["programs"] == "2"
        assert 1 <= int(row["all-reduces"]) <= 4


def test_an_unknown_encoder_is_a_failure_with_one_message():
    done = python("scripts/check_tpu.py", "--encoders=albert_en_base", "--topologies=v5e-4")
    assert done.returncode == errors.EXIT_FAILED
    assert done.stderr.startswith(
        "error: --encoders must be of tiny, tiny_albert, tiny_talking_heads, bert_base, bert_large, or names"
    )
    assert done.stderr.endswith("Received: albert_en_base.\n")


def test_a_sequence_longer_than_the_encoders_is_a_failure():
    done = python("scripts/check_tpu.py", "--seq_length=1024", "--topologies=v5e-4")
    assert done.returncode == errors.EXIT_FAILED
    assert done.stderr == "error: --seq_length must be at most 512. Received: 1024.\n"


def test_all_wrong_flags_are_named_at_once():
    done = python("scripts/check_tpu.py", "--topologies=v5e-4,v9", "--batch_size=8", "--accumulation_steps=3")
    assert done.returncode == errors.EXIT_BAD_USAGE
    assert (
        "--topologies must be of v2-8, v3-8, v4-8, v5e-4, v5e-8, v5p-8, v3-32, v4-32, v5e-16, v5e-32. Received: v9."
        in done.stderr
    )
    assert "--accumulation_steps must divide --batch_size, and 8 with --largest. Received: 3 " in done.stderr


def test_a_missing_environment_is_named(monkeypatch):
    monkeypatch.setattr(estimate, "TRACE_PYTHON", Path("nowhere/bin/python"))
    with (
        pytest.raises(errors.UserError, match=r"nowhere must be installed.*make tpu-check"),
        estimate.start_toolchain(),
    ):
        pass


# --- The largest batch ----------------------------------------------------------------------------


def search(largest: int, tolerance: float = 0.0, first: int = 32) -> tuple[int, list[int]]:
    """The result of a search if batches up to `largest` fit, and the batches that it compiles."""
    compiled = []

    def fits(batch: int) -> bool:
        assert batch % estimate.BATCH_SIZE_MULTIPLE == 0
        compiled.append(batch)
        return batch <= largest

    return estimate.find_largest_batch_size(fits, first, tolerance), compiled


@pytest.mark.parametrize("largest", [0, 7, 8, 24, 31, 32, 40, 63, 100, 1000, 5000, 1 << 14, 1 << 20])
@pytest.mark.parametrize("first", [8, 20, 32, 512])
def test_the_search_finds_the_largest_batch_and_compiles_none_twice(largest, first):
    result, compiled = search(largest, first=first)
    assert result == min(largest, 1 << 14) // 8 * 8
    assert len(compiled) == len(set(compiled)) <= 24


@pytest.mark.parametrize("largest", [40, 100, 1000, 5000])
@pytest.mark.parametrize("tolerance", [1.0, 0.5, 0.1])
def test_the_search_ends_within_its_tolerance(largest, tolerance):
    result, compiled = search(largest, tolerance)
    assert result <= largest < result + max(tolerance * result, 8)
    assert tolerance < 1 or compiled == [32 << i for i in range(len(compiled))]


def test_a_case_that_does_not_fit_has_no_figures():
    too_large = estimate.Estimate(False, 0, 100, CompiledProgram(False), 2)
    assert estimate.estimate_cells(too_large) == ["does not fit", "", "", "", "", "2"]
    assert dataclasses.replace(too_large, used_bytes=30).free_bytes == 70


def test_rows_of_the_table():
    case = estimate.CompileCase("tiny", TOPOLOGIES["v2-8"].replicas, 128, 1024)
    assert estimate.format_row(estimate.case_cells(case, "v2-8")) == "| tiny | v2-8 | 128 | 8 | 1,024 | 8,192 |"
    assert estimate.format_heading(["a", "b", "c"]) == "| a | b | c |\n| --- | --- | ---: |"

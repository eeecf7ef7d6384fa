"""scripts/check_tpu.py with the tiny encoder on two topologies, and the search for the largest batch."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
from helpers import python

from trainer import errors
from trainer.tpu_check import estimate
from trainer.tpu_check.compiler import TOPOLOGIES, CompiledProgram


def print_tables(*options: str) -> list[list[dict[str, str]]]:
    """The tables that the script prints for small encoders, as rows: column -> cell."""
    done = python("scripts/check_tpu.py", "--batch_size=8", "--seq_length=32", *options)
    assert done.returncode == 0, done.stderr
    tables = []
    for text in re.findall(r"(?:^\|.*\n)+", done.stdout, re.MULTILINE):
        heading, _, *lines = [re.split(r" *\| *", line.strip("| \n")) for line in text.splitlines()]
        tables.append([dict(zip(heading, line, strict=True)) for line in lines])
    return tables


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--topologies=v5e-4", "--accumulation_steps=2", "--max_windows=3"], [("tiny", "v5e-4", "32", "32")]),
        pytest.param(
            ["--topologies=v2-8", "--data_sets="],
            [("tiny", "v2-8", "32", "64"), ("tiny", "v2-8", "16", "64")],
            marks=pytest.mark.long,
        ),
        pytest.param(
            ["--topologies=v5e-4", "--encoders=tiny_albert,tiny_talking_heads", "--pad_multiple=32", "--data_sets="],
            [("tiny_albert", "v5e-4", "32", "32"), ("tiny_talking_heads", "v5e-4", "32", "32")],
            marks=pytest.mark.long,
        ),
    ],
)
def test_a_run_compiles_for_a_tpu(options, expected):
    """Into one program to train and one to evaluate for each width, with few all-reduces of the gradients."""
    (table,) = print_tables(*options)
    columns = ("encoder", "topology", "tokens", "global batch")
    assert [tuple(row[column] for column in columns) for row in table] == expected
    for row in table:
        assert 0 < float(row["HBM used, GB"]) < 1 < float(row["HBM free, GB"])
        assert float(row["TFLOPs a step"]) > 0
        assert row["programs"] == "2"
        assert 1 <= int(row["all-reduces"]) <= 4


def test_the_widths_of_a_data_set_cost_less_than_one():
    options = ("--topologies=v5e-4", "--pad_multiple=32", "--data_sets=movie_snippets")
    _, (row,) = print_tables(*options)
    assert (row["data set"], row["tokens"], row["widths"]) == ("movie_snippets", "64", "32, 64")
    for quantity in ("padding", "MFLOPs a token"):
        one_width, own = (float(row[f"{quantity}, {which}"].rstrip("%")) for which in ("one width", "these widths"))
        assert 0 < own < one_width
    assert 20 < float(row["fewer"].rstrip("%")) < 50


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
    flags = ("--topologies=v5e-4,v9", "--batch_size=8", "--accumulation_steps=3", "--data_sets=imdb,sst2")
    done = python("scripts/check_tpu.py", *flags)
    assert done.returncode == errors.EXIT_BAD_USAGE
    assert (
        "--topologies must be of v2-8, v3-8, v4-8, v5e-4, v5e-8, v5p-8, v3-32, v4-32, v5e-16, v5e-32. Received: v9."
        in done.stderr
    )
    assert "--data_sets must be of imdb, movie_snippets. Received: sst2." in done.stderr
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


# --- What padding costs ---------------------------------------------------------------------------


def test_the_flops_of_a_token_are_those_of_its_batches(tmp_path):
    case = estimate.CompileCase("tiny", 4, 64, 8)
    flops = {16: 100.0, 64: 500.0}
    toolchain = estimate.Toolchain(
        tracer=None,  # Neither is asked: every answer is known.
        compiler=None,
        folder=tmp_path,
        lowered={
            dataclasses.replace(case, seq_length=width): {"train": {"hlo": str(width), "other_bytes": 0}, "programs": 2}
            for width in flops
        },
        compiled={(str(width), "v5e-4"): CompiledProgram(True, 1, flops[width]) for width in flops},
    )
    assert estimate.flops_per_token(toolchain, case, "v5e-4", {16: 3, 64: 1}, 1000) == 4 * (3 * 100 + 500) / 1000
    cost = estimate.PaddingCost(4 * 8 * 80, {16: 3, 64: 1}, 8e6, 3.2e6)
    cells = ["imdb", "16, 64", "68.8%", "28.6%", "8", "3.2", "60.0%"]
    assert estimate.padding_cells("imdb", case, cost) == cells
    toolchain.compiled["64", "v5e-4"] = CompiledProgram(False)
    assert np.isnan(estimate.flops_per_token(toolchain, case, "v5e-4", {64: 1}, 1000))


def test_a_case_that_does_not_fit_has_no_figures():
    too_large = estimate.Estimate(False, 0, 100, CompiledProgram(False), 2)
    assert estimate.estimate_cells(too_large) == ["does not fit", "", "", "", "", "2"]
    assert dataclasses.replace(too_large, used_bytes=30).free_bytes == 70


def test_rows_of_the_table():
    case = estimate.CompileCase("tiny", TOPOLOGIES["v2-8"].replicas, 128, 1024)
    assert estimate.format_row(estimate.case_cells(case, "v2-8")) == "| tiny | v2-8 | 128 | 8 | 1,024 | 8,192 |"
    assert estimate.format_heading(["a", "b", "c"]) == "| a | b | c |\n| --- | --- | ---: |"

import json
from pathlib import Path

import pytest
from benchmark_samples import MACHINE, SAMPLES, SETTINGS

from trainer.benchmarks import results
from trainer.errors import UserError


@pytest.fixture
def kept(tmp_path) -> results.Results:
    found = results.open_results(str(tmp_path / "results.json"), SETTINGS, MACHINE)
    for sample in SAMPLES:
        found.add(sample)
    return found


def line(row: str, key: str, size: int | None = None) -> results.Line:
    return next(each for each in results.summarize(SAMPLES) if (each.row, each.key, each.size) == (row, key, size))


def test_the_median_and_the_quartiles_of_samples():
    assert results.describe_values([300, 200, 1000]) == results.Statistic(300, 400, 3)
    assert results.describe_values([5.0]) == results.Statistic(5.0, 0.0, 1)


def test_a_ratio_above_1_is_ours_for_times_and_for_rates():
    assert line("step", "128").ratio == 450 / 250  # Each at its best.
    assert line("evaluation", "texts_per_second").ratio == 0.5
    assert line("length", "step", 32).ratio is None


def test_utilization_is_of_the_largest_rate_that_was_reached():
    shares = line("step", "mfu_128").statistics
    assert shares["ours, fused"].median == 100 / 0.25 / 800
    assert shares["peer"].median == 100 / 0.45 / 800


def test_the_file_is_read_as_it_was_written(kept, tmp_path):
    assert results.open_results(kept.path, SETTINGS, MACHINE).samples == SAMPLES
    assert results.read_results(kept.path) == kept


def test_a_file_from_before_precision_was_a_setting_is_of_bfloat16(kept):
    content = json.loads(Path(kept.path).read_text())
    assert content["settings"].pop("precision") == "bfloat16"
    Path(kept.path).write_text(json.dumps(content))
    assert results.read_results(kept.path) == kept


@pytest.mark.parametrize("other", [({"encoder": "tiny"}, MACHINE), (SETTINGS, {**MACHINE, "cores": 4})])
def test_results_of_others_are_refused(kept, other):
    with pytest.raises(UserError) as error:
        results.open_results(kept.path, *other)
    assert error.value.problems[0].setting == "--output"


def test_results_that_do_not_exist_cannot_be_printed(tmp_path):
    with pytest.raises(UserError):
        results.read_results(str(tmp_path / "none.json"))


def test_the_table_has_each_figure_with_its_spread_and_ratio(kept):
    table = results.format_table(kept)
    assert table.startswith("2 cores of Some CPU (avx512f), encoder minilm, trained in bfloat16.")
    rows = [line.split(" | ") for line in table.splitlines() if line.startswith("| step of 32")]
    assert rows[0] == ["| step of 32 texts, 128 tokens, ms", "300 (400); fused 250", "450 (50)", "1.80 |"]
    assert rows[1][2] == "0.278"
    assert "| step of 8 texts, by their tokens 64, ms | 40 | - | - |" in table
    assert "memory grows by 2.0 %, at most 1 %: does not hold." in table


def test_every_row_has_figures():
    assert all(row.figures for row in results.ALL_ROWS.values())


def test_the_machine_has_its_processor():
    machine = results.describe_machine()
    assert machine["processor"]
    assert machine["cores"] >= 1

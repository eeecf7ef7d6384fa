import pytest

from trainer.benchmarks import growth

PREPARED, TRAINED, LONG = "prepare_documents", "train_documents", "long_run"


def test_the_time_of_one_more_leaves_the_start_of_a_process_out():
    assert growth.seconds_of_one_more({5_000: 11.0, 50_000: 20.0, 500_000: 110.0}) == pytest.approx([0.0002, 0.0002])


@pytest.mark.parametrize(("largest", "holds"), [(110.0, True), (130.0, False)])
def test_the_time_of_a_document_has_to_be_flat(largest, holds):
    medians = {(PREPARED, "seconds"): {5_000: 11.0, 50_000: 20.0, 500_000: largest}}
    assert [verdict.holds for verdict in growth.judge(medians)] == [holds]


@pytest.mark.parametrize(("largest", "holds"), [(1090.0, True), (1110.0, False)])
def test_memory_has_to_be_flat(largest, holds):
    medians = {(row, "memory_mb"): {5_000: 1000.0, 500_000: largest} for row in (PREPARED, TRAINED)}
    assert [verdict.holds for verdict in growth.judge(medians)] == [holds, holds]


def test_the_rate_of_training_has_to_be_flat():
    (verdict,) = growth.judge({(TRAINED, "examples_per_second"): {5_000: 1000.0, 500_000: 800.0}})
    assert verdict.value == pytest.approx(0.25)
    assert not verdict.holds


@pytest.mark.parametrize(("percent", "holds"), [(-3.0, True), (0.9, True), (1.1, False)])
def test_a_long_run_has_to_keep_its_memory(percent, holds):
    (verdict,) = growth.judge({(LONG, "growth_percent"): {None: percent}})
    assert verdict.holds == holds


def test_what_was_measured_at_one_size_is_not_judged():
    assert growth.judge({(PREPARED, "memory_mb"): {5_000: 1000.0}, (PREPARED, "seconds"): {5_000: 11.0}}) == []

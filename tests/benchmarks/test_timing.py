import time

from trainer.benchmarks import timing

LINES = [f"text {number}" for number in range(10)]


def test_calls_that_warm_up_do_not_count():
    seconds = iter([0.5, 0.5, 0, 0, 0])
    times = timing.time_calls(lambda: time.sleep(next(seconds)), rounds=3, warm_up=2)
    assert len(times) == 3
    assert max(times) < 0.5


def test_the_time_of_a_text_and_the_rate_of_batches():
    figures = timing.measure_serving(lambda lines: time.sleep(0.002 * len(lines)), LINES, batch=5, calls=20)
    assert 2 <= figures["p50_ms"] < 20
    assert figures["p50_ms"] <= figures["p95_ms"]
    assert 50 < figures["texts_per_second"] <= 500


def test_texts_are_taken_in_turn_and_batches_are_full():
    calls: list[int] = []
    timing.measure_serving(lambda lines: calls.append(len(lines)), LINES, batch=4, calls=20)
    assert set(calls) == {1, 4}
    assert calls.count(1) == 22  # The first two are not counted.

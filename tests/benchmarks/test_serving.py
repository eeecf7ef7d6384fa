import time

from trainer.benchmarks import serving

LINES = [f"text {number}" for number in range(10)]


def test_the_time_of_a_text_and_the_rate_of_batches():
    figures = serving.measure_serving(lambda lines: time.sleep(0.002 * len(lines)), LINES, batch=5, calls=20)
    assert 2 <= figures["p50_ms"] < 20
    assert figures["p50_ms"] <= figures["p95_ms"]
    assert 50 < figures["texts_per_second"] <= 500


def test_texts_are_taken_in_turn_and_batches_are_full():
    calls: list[int] = []
    serving.measure_serving(lambda lines: calls.append(len(lines)), LINES, batch=4, calls=20)
    assert set(calls) == {1, 4}
    assert calls.count(1) == 22  # The first two are not counted.

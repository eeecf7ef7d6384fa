"""How long calls take, and how fast a function scores texts. Needs nothing but Python: the peer uses it too."""

import itertools
import statistics
import time
from collections.abc import Callable, Sequence


def time_calls(call: Callable[[], object], rounds: int, warm_up: int = 1) -> list[float]:
    """The seconds of each of `rounds` calls, after `warm_up` others."""
    times = []
    for _ in range(warm_up + rounds):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return times[warm_up:]


def measure_serving(
    score: Callable[[Sequence[str]], object], lines: Sequence[str], batch: int, calls: int
) -> dict[str, float]:
    """{"p50_ms", "p95_ms": of a text alone; "texts_per_second": in batches} of a function of texts."""
    texts = itertools.cycle(lines)
    times = [1000 * seconds for seconds in time_calls(lambda: score([next(texts)]), calls, warm_up=2)]
    batches = [lines[start : start + batch] for start in range(0, len(lines) - batch + 1, batch)][: max(calls // 10, 1)]
    score(batches[0])
    started = time.perf_counter()
    for each in batches:
        score(each)
    rate = batch * len(batches) / (time.perf_counter() - started)
    *_, p95 = statistics.quantiles(times, n=20)
    return {"p50_ms": statistics.median(times), "p95_ms": p95, "texts_per_second": rate}

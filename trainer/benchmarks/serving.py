"""How fast a function scores texts, one alone and many together. Needs nothing but Python: the peer uses it too."""

import statistics
import time
from collections.abc import Callable, Sequence


def measure_serving(
    score: Callable[[Sequence[str]], object], lines: Sequence[str], batch: int, calls: int
) -> dict[str, float]:
    """{"p50_ms", "p95_ms": of a text alone; "texts_per_second": in batches} of a function of texts."""
    times = []
    for number in range(calls + 2):
        started = time.perf_counter()
        score([lines[number % len(lines)]])
        times.append(1000 * (time.perf_counter() - started))
    times = times[2:]
    batches = [lines[start : start + batch] for start in range(0, len(lines) - batch + 1, batch)][: max(calls // 10, 1)]
    score(batches[0])
    started = time.perf_counter()
    for each in batches:
        score(each)
    rate = batch * len(batches) / (time.perf_counter() - started)
    *_, p95 = statistics.quantiles(times, n=20)
    return {"p50_ms": statistics.median(times), "p95_ms": p95, "texts_per_second": rate}

"""Samples of a benchmark, as its JSON has them."""

from trainer.benchmarks.results import Sample

MACHINE = {"processor": "Some CPU", "instructions": ["avx512f"], "cores": 2, "python": "3.11.7"}
SETTINGS = {"encoder": "minilm", "precision": "bfloat16"}
SAMPLES = [
    *(Sample("step", "ours", None, n, {"128": value, "gflop_128": 100.0}) for n, value in enumerate((300, 200, 1000))),
    *(Sample("step", "ours, fused", None, n, {"128": 250.0, "gflop_128": 100.0}) for n in range(3)),
    *(Sample("step", "peer", None, n, {"128": value}) for n, value in enumerate((500, 400, 450))),
    Sample("product", "ours", None, 0, {"product": 400.0}),
    Sample("product", "peer", None, 0, {"product": 800.0}),
    Sample("evaluation", "ours, float32", None, 0, {"texts_per_second": 30.0}),
    Sample("evaluation", "peer, bfloat16", None, 0, {"texts_per_second": 60.0}),
    Sample("length", "ours", 32, 0, {"step": 20.0}),
    Sample("length", "ours", 64, 0, {"step": 40.0}),
    Sample("long_run", "ours", None, 0, {"growth_percent": 2.0, "steady_mb": 900.0}),
]

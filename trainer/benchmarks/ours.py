"""What of HubTune no command measures: `python -m trainer.benchmarks.ours KIND JSON` prints figures as JSON.

Each kind is a function of this module, and the JSON has its arguments.
"""

import functools
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trainer.benchmarks import memory, processes, timing
from trainer.runtime import garbage


def measure_steps(
    encoder: str, precision: str, fused: bool, shapes: Mapping[str, Sequence[int]], steps: int
) -> dict[str, float]:
    """The milliseconds of a train step of each shape, [texts, tokens], and the GFLOPs of its products: gflop_NAME.

    `encoder` is a folder, or random:PRESET.
    """
    import tensorflow as tf

    from trainer.train import step_timing, throughput

    strategy = tf.distribute.OneDeviceStrategy("/cpu:0")
    with strategy.scope():
        architecture, layer = _build_layer(encoder, precision, fused)
        step = step_timing.build_step(strategy, layer, fused=fused)
    calls = {
        name: functools.partial(step, step_timing.random_batch(texts, tokens, architecture.vocab_size))
        for name, (texts, tokens) in shapes.items()
    }
    figures = step_timing.measure_in_turn(calls, steps)
    flops = {n: throughput.training_flops(architecture, b * s, b * s**2) for n, (b, s) in shapes.items()}
    return {**figures, **{f"gflop_{name}": value / 1e9 for name, value in flops.items()}}


def _build_layer(encoder: str, precision: str, fused: bool) -> Any:
    """(architecture, layer) of an encoder's folder, or of random:PRESET."""
    from trainer.encoders import (
        classifier,
        fused_layers,
        native,
        random_encoders,
        rebuild_cache,
        registry,
        saved_models,
    )

    if encoder.startswith("random:"):
        architecture = random_encoders.RANDOM_PRESETS[encoder.removeprefix("random:")].architecture
        layer = native.build_encoder(architecture, classifier.POLICIES[precision], output_range=1)
    else:
        folders = registry.resolve_encoder(encoder, need_preprocess=False)
        kept = rebuild_cache.find_rebuilt(folders.encoder, registry.saved_model_sha256(folders.encoder))
        architecture, values = (
            (kept.architecture, kept.values) if kept else native.rebuild_encoder(saved_models.load_encoder(folders))
        )
        layer = classifier.build_native_encoder(architecture, values, precision)
    if fused:
        fused_layers.install_fused_layers(layer, architecture)
    return architecture, layer


def measure_product(precision: str, shape: Sequence[int], rounds: int) -> dict[str, float]:
    """The largest rate of a dense product of [m, k] and [k, n], in GFLOP/s: the ceiling of utilization."""
    import tensorflow as tf

    rows, inner, columns = shape
    left, right = (tf.cast(tf.random.stateless_normal(s, [0, 1]), precision) for s in ([rows, inner], [inner, columns]))
    multiply = tf.function(lambda: tf.matmul(left, right))  # It returns when the product is there.
    seconds = min(timing.time_calls(multiply, rounds))
    return {"product": 2 * rows * inner * columns / seconds / 1e9}


def evaluate(encoder: str, precision: str, fused: bool, shape: Sequence[int], batches: int) -> dict[str, float]:
    """Texts a second of the evaluation step, without what reads them."""
    import tensorflow as tf

    from trainer.encoders import classifier
    from trainer.train import step_timing, steps

    strategy = tf.distribute.OneDeviceStrategy("/cpu:0")
    with strategy.scope():
        architecture, layer = _build_layer(encoder, precision, fused)
        model = classifier.build_classifier(layer, 2, classifier.HEAD_DROPOUT, seed=0)
        step = steps.build_eval_step(strategy, steps.build_replica_eval_step(model))
    texts, tokens = shape
    batch = step_timing.random_batch(texts, tokens, architecture.vocab_size)
    stream = iter(strategy.experimental_distribute_dataset(tf.data.Dataset.from_tensors(batch).repeat()))

    def evaluate_batch() -> None:
        step(stream)

    milliseconds = step_timing.measure_in_turn({"batch": evaluate_batch}, batches)["batch"]
    return {"texts_per_second": 1000 * texts / milliseconds}


def serve(export: str, texts: str, batch: int, calls: int) -> dict[str, float]:
    """The milliseconds of one short text, the median and the 95th percentile, and texts a second in batches."""
    import tensorflow as tf

    from trainer.export import predict

    _saved, signature = predict.load_export(export)
    lines = Path(texts).read_text(encoding="utf-8").splitlines()

    def score(chosen: Sequence[str]) -> None:
        signature(text=tf.constant(chosen))["scores"].numpy()

    return timing.measure_serving(score, lines, batch, calls)


KINDS: dict[str, Callable[..., dict[str, float]]] = {
    "measure_steps": measure_steps,
    "measure_product": measure_product,
    "evaluate": evaluate,
    "serve": serve,
    "watch_memory": memory.watch_memory,
}


def main(arguments: Sequence[str]) -> None:
    kind, values = arguments
    garbage.collect_rarely()  # As commands do.
    processes.print_figures(KINDS[kind](**json.loads(values)))


if __name__ == "__main__":
    main(sys.argv[1:])

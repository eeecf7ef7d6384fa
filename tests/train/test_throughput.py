"""What a train line says of the process's speed."""

import time

import numpy as np
import pytest
import tensorflow as tf
from fakes.encoders import SMALL

from trainer.distributed import strategies
from trainer.encoders import native
from trainer.train import steps, throughput


def one_replica() -> tf.distribute.Strategy:
    return tf.distribute.OneDeviceStrategy("/cpu:0")


def batches_of(strategy, lengths: list[list[int]], delay_s: float = 0.0):
    """Distributed batches of texts of these lengths, each of which takes a while to be made."""

    def generate():
        for of_batch in lengths:
            time.sleep(delay_s)
            yield {"input_mask": (np.arange(max(of_batch)) < np.array(of_batch)[:, None]).astype(np.int32)}

    signature = {"input_mask": tf.TensorSpec([None, None], tf.int32)}
    return iter(
        strategy.distribute_datasets_from_function(
            lambda context: tf.data.Dataset.from_generator(generate, output_signature=signature)
        )
    )


def run_loop(strategy, lengths, step=lambda batch: None, delay_s=0.0) -> throughput.Throughput:
    work = throughput.start(0)
    loop = steps.build_inner_loop(strategy, step)
    batches = batches_of(strategy, lengths, delay_s)
    for count in (1, len(lengths) - 1):
        throughput.add(work, loop(batches, tf.constant(count)))
    return work


def test_tokens_and_padding_are_counted():
    work = run_loop(one_replica(), [[3, 5], [2, 2], [8, 1]])
    assert (work.positions, work.tokens, work.token_pairs) == (10 + 4 + 16, 21, 9 + 25 + 4 + 4 + 64 + 1)
    values = throughput.describe(work, examples=6, architecture=None, peak_flops=1e9)
    assert values["padding"] == pytest.approx(1 - 21 / 30, abs=1e-4)
    assert "mfu" not in values


def test_waiting_for_batches_is_measured_and_steps_are_not():
    def slow_step(batch):
        tf.py_function(lambda: time.sleep(0.1), [], [])

    def measure(delay_s):
        work = run_loop(one_replica(), [[3, 5]] * 5, slow_step, delay_s)
        # All the time but the steps', which are five of 0.1 s at least; a loaded machine adds to both.
        assert work.waited_s <= time.monotonic() - work.started - 0.5
        return work.waited_s

    waited_s = measure(delay_s=0.3)
    # A batch is made while the step before it runs, but for the first: 0.3 s, and 0.2 s of each other.
    assert waited_s >= 0.9
    assert measure(delay_s=0) < waited_s / 2


def test_rates_are_of_the_time_since_the_start():
    work = throughput.Throughput(step=10, started=time.monotonic() - 2, waited_s=0.5, positions=100, tokens=80)
    values = throughput.describe(work, examples=64, architecture=None, peak_flops=None)
    assert values == pytest.approx({"examples_per_second": 32, "input_wait": 0.25, "padding": 0.2}, rel=0.05)


def test_the_flops_are_those_of_the_kernels():
    """Each parameter of a kernel is multiplied and added once a token, attention's scores and sums once a pair."""
    kernels = [
        v for v in native.build_encoder(SMALL).trainable_variables if "kernel" in v.name and "pooler" not in v.name
    ]
    expected = 6 * 7 * sum(np.prod(v.shape) for v in kernels)
    assert throughput.training_flops(SMALL, tokens=7, token_pairs=0) == expected
    of_pairs = throughput.training_flops(SMALL, tokens=0, token_pairs=9)
    assert of_pairs == 6 * 9 * 2 * SMALL.hidden_size * SMALL.layers


def test_mfu_is_a_share_of_what_the_devices_can_do():
    work = throughput.Throughput(step=0, started=time.monotonic() - 2, positions=50, tokens=50, token_pairs=100)
    flops = throughput.training_flops(SMALL, 50, 100)
    assert throughput.describe(work, 1, SMALL, peak_flops=flops)["mfu"] == pytest.approx(0.5, rel=0.05)


def test_the_peak_is_that_of_all_replicas_of_the_process():
    assert throughput.find_peak_flops(one_replica(), "float32", None) is None
    assert throughput.find_peak_flops(one_replica(), "float32", 2e12) == 2e12
    assert strategies.worker_index_and_count(one_replica()) == (0, 1)

"""How fast this process trains, and what of its time and of its work no token needed."""

import dataclasses
import time

import tensorflow as tf

from trainer.distributed import strategies
from trainer.encoders.architectures import Architecture
from trainer.train import steps

# How a device's name begins -> the FLOPs a second of its dense matrix products, in bfloat16 and in float32, for which
# TensorFlow takes TF32 where there is one. The first that fits counts. From NVIDIA's data sheets, without sparsity.
PEAK_FLOPS = {
    "Tesla V100": (None, 15.7e12),
    "Tesla T4": (None, 8.1e12),
    "NVIDIA A100": (312e12, 156e12),
    "NVIDIA A10": (125e12, 62.5e12),
    "NVIDIA L40S": (362e12, 183e12),
    "NVIDIA L40": (181e12, 90.5e12),
    "NVIDIA L4": (121e12, 60e12),
    "NVIDIA H100 NVL": (835e12, 417e12),
    "NVIDIA H100 PCIe": (756e12, 378e12),
    "NVIDIA H100": (989e12, 494e12),
    "NVIDIA H200": (989e12, 494e12),
}


@dataclasses.dataclass
class Throughput:
    """What this process has done since a step."""

    step: int
    started: float  # time.monotonic()
    waited_s: float = 0.0
    positions: int = 0
    tokens: int = 0
    token_pairs: int = 0


def start(step: int) -> Throughput:
    """Of nothing yet, from now on."""
    return Throughput(step, time.monotonic())


def add(throughput: Throughput, use: steps.InputUse) -> None:
    """Add what an inner loop was given."""
    throughput.waited_s += float(use.waited_s)
    throughput.positions += int(use.positions)
    throughput.tokens += int(use.tokens)
    throughput.token_pairs += int(use.token_pairs)


def describe(
    throughput: Throughput, examples: int, architecture: Architecture | None, peak_flops: float | None
) -> dict[str, float]:
    """The values of a train line: examples_per_second; the share of the time that was spent waiting for batches
    (input_wait) and that of the positions that are padding (padding); and mfu.

    `examples` is how many were trained on, on all processes. mfu, the model FLOPs utilization, is the share that the
    FLOPs of the tokens are of `peak_flops`: what this process's devices could have computed in a second. There is none
    without an architecture or a peak.
    """
    seconds = time.monotonic() - throughput.started
    values = {"examples_per_second": round(examples / seconds, 2)}
    if throughput.positions:
        values["input_wait"] = round(throughput.waited_s / seconds, 4)
        values["padding"] = round(1 - throughput.tokens / throughput.positions, 4)
    if architecture and peak_flops:
        used = training_flops(architecture, throughput.tokens, throughput.token_pairs)
        values["mfu"] = round(used / seconds / peak_flops, 4)
    return values


def training_flops(architecture: Architecture, tokens: int, token_pairs: int) -> float:
    """The FLOPs of the matrix products that train an encoder on these tokens: two for each multiplication and addition,
    and the backward pass takes twice the forward one (Chowdhery et al. 2022, appendix B).

    `token_pairs` is the sum of the squares of the sequences' lengths. Neither dropout, nor a second forward pass by
    model.recompute, nor frozen layers change what counts as needed.
    """
    a = architecture
    inner_products = 3 if a.family == "talking_heads" else 2  # Its GELU is gated.
    of_token = a.layers * (4 * a.hidden_size**2 + inner_products * a.hidden_size * a.inner_size)
    if a.embedding_width != a.hidden_size:
        of_token += a.embedding_width * a.hidden_size
    of_pair = a.layers * 2 * a.hidden_size  # The scores, and the sum of the values that they weigh.
    return 3 * 2 * float(of_token * tokens + of_pair * token_pairs)


def find_peak_flops(strategy: tf.distribute.Strategy, precision: str, of_device: float | None) -> float | None:
    """What the devices of this process's replicas can compute in a second: `of_device` each, or what PEAK_FLOPS says of
    the first GPU. None if that is not known.
    """
    replicas = strategy.num_replicas_in_sync // strategies.worker_index_and_count(strategy)[1]
    if of_device is None and strategies.has_accelerator(strategy):
        gpus = tf.config.list_physical_devices("GPU")
        name = tf.config.experimental.get_device_details(gpus[0]).get("device_name", "") if gpus else ""
        peaks = next((peaks for start, peaks in PEAK_FLOPS.items() if name.startswith(start)), (None, None))
        of_device = peaks[0 if precision == "bfloat16" else 1]
    return None if of_device is None else of_device * replicas

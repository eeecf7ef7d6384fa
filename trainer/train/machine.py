"""The machine that a run computes on, for people: devices, cores, memory."""

import resource
import sys
from typing import Any

import tensorflow as tf

from trainer.distributed import processor, strategies


def describe_machine(strategy: tf.distribute.Strategy) -> dict[str, Any]:
    """{"device_type": CPU, GPU or TPU; "device_name"; "devices": of all workers; "cores", "peak_memory_bytes": of this
    process, which need not be all workers'}.
    """
    accelerated = strategies.has_accelerator(strategy)
    device = strategy.extended.worker_devices[0] if accelerated else "CPU"
    device_type = "TPU" if "TPU" in device else "GPU" if "GPU" in device else "CPU"
    described = processor.describe_processor()
    return {
        "device_type": device_type,
        "device_name": _gpu_name() if device_type == "GPU" else described.name if device_type == "CPU" else "TPU core",
        # Replicas on one CPU share it.
        "devices": strategy.num_replicas_in_sync if accelerated else strategies.worker_index_and_count(strategy)[1],
        "cores": described.cores,
        "peak_memory_bytes": peak_memory_bytes(),
    }


def peak_memory_bytes() -> int:
    """The most memory that this process has had at a time."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024  # Linux counts in KiB.


def _gpu_name() -> str:
    (first, *_) = tf.config.list_physical_devices("GPU")
    return str(tf.config.experimental.get_device_details(first).get("device_name", "GPU"))

"""Environment variables that TensorFlow reads once, when it is first imported. `import trainer` sets them."""

import os

# oneDNN computes TensorFlow's matrix products on a CPU.
ONEDNN_VARIABLES = {
    # TensorFlow's own default is to use it only on processors with AVX-512 VNNI or newer. Those with AVX2 alone gain
    # more: batches of small products, those of attention, take a third of the time. docs/benchmarks.md has the steps'.
    "TF_ENABLE_ONEDNN_OPTS": "1",
    # Its cache of primitives takes two products that differ in memory layout for one if a dimension is 1; the product
    # then writes past the end of a buffer, and about one process in some hundreds dies. Without the cache it does not.
    # docs/limits.md has the cause, docs/benchmarks.md the cost.
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "0",
}

DEFAULTS = {
    "TF_USE_LEGACY_KERAS": "1",  # tensorflow-hub and tf-models-official are written for Keras 2.
    "TF_CPP_MIN_LOG_LEVEL": "3",
    **ONEDNN_VARIABLES,
}


def set_defaults() -> None:
    """Set the variables that are not set. Processes that this one starts inherit them."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)

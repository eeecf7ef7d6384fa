"""HubTune: fine-tune a TensorFlow Hub text encoder with a custom training loop."""

import os
import warnings

from trainer.storage import retries

# TensorFlow reads these once, when it is first imported, so every import of this package sets them.
# tensorflow-hub and tf-models-official are written for Keras 2.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# oneDNN 3.7.3 takes two matrix products that differ in memory layout for one if a dimension is 1, and then writes past
# the end of a buffer. Without its cache of primitives it does not.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "0")
for _name, _value in retries.tensorflow_variables().items():
    os.environ.setdefault(_name, _value)
# tensorflow-hub imports pkg_resources. setuptools is pinned to a release that still has it.
warnings.filterwarnings("ignore", message="pkg_resources is deprecated", category=UserWarning)

__version__ = "0.1.0"

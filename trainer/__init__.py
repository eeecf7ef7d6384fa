"""HubTune: fine-tune a TensorFlow Hub text encoder with a custom training loop."""

import os
import warnings

from trainer.storage import retries

# tensorflow-hub and tf-models-official are written for Keras 2. TensorFlow reads this once, when it
# is first imported, so it is set by whatever imports any module of the package.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
for _name, _value in retries.tensorflow_variables().items():  # read once as well
    os.environ.setdefault(_name, _value)
# tensorflow-hub's own import of it; setuptools is pinned to a release that still has it.
warnings.filterwarnings("ignore", message="pkg_resources is deprecated", category=UserWarning)

__version__ = "0.1.0"

"""HubTune: fine-tune a TensorFlow Hub text encoder with a custom training loop."""

import warnings

from trainer.runtime import tensorflow_variables

tensorflow_variables.set_defaults()
# tensorflow-hub imports pkg_resources. setuptools is pinned to a release that still has it.
warnings.filterwarnings("ignore", message="pkg_resources is deprecated", category=UserWarning)

__version__ = "1.0.0"

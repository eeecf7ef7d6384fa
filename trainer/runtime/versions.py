"""The versions that this package was built for, compared with what is installed."""

import importlib.metadata
import os
import sys

from trainer import errors
from trainer.storage import retries

# The newest line that all of them share; requirements/ pins the exact releases.
REQUIRED_VERSIONS = {
    "tensorflow": "2.20",
    "tensorflow-text": "2.20",
    "tf-keras": "2.20",
    "tf-models-official": "2.20",
    "tensorflow-hub": "0.16",
}

# Distributions that hold the same package, for other hardware.
ALTERNATIVE_DISTRIBUTIONS = {"tensorflow": "tensorflow-tpu"}


def installed_version(distribution: str) -> str | None:
    """Its version; None if it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def find_problems() -> list[str]:
    """What is wrong with the installation, one line each; empty if nothing is."""
    found = []
    for package, line in REQUIRED_VERSIONS.items():
        version = installed_version(package) or installed_version(ALTERNATIVE_DISTRIBUTIONS.get(package, package))
        if version is None:
            found.append(f"{package} {line} is required. Received: none installed.")
        elif version.split(".")[:2] != line.split("."):
            found.append(f"{package} {line} is required. Received: {version}.")
    if os.environ.get("TF_USE_LEGACY_KERAS") not in ("1", "true", "True"):
        found.append(
            "TF_USE_LEGACY_KERAS=1 is required (Hub encoders are Keras 2). Received: "
            f"{os.environ.get('TF_USE_LEGACY_KERAS')!r}."
        )
    code = os.environ.get(errors.STOPPED_CODE_VARIABLE)
    if code and (not code.isdecimal() or not 0 < int(code) < 256):
        found.append(f"{errors.STOPPED_CODE_VARIABLE} must be an exit code, 1 to 255. Received: {code!r}.")
    retry_problem = retries.find_retry_problem()
    if retry_problem:
        found.append(str(retry_problem))
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is not None and getattr(tensorflow.keras, "__version__", "2").startswith("3"):
        found.append(
            "TensorFlow was imported with Keras 3 before trainer: import trainer first, or set TF_USE_LEGACY_KERAS=1."
        )
    return found


def check_installation() -> None:
    """Raises ValueError, with every problem, unless TensorFlow and its companions are the ones this was built for."""
    found = find_problems()
    if found:
        raise ValueError("\n".join([*found, "Install the set that was tested: make environment."]))

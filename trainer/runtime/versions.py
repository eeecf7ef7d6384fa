"""The versions that this package was built for, compared with what is installed."""

import importlib.metadata
import os
import sys

from trainer import errors
from trainer.errors import Problem
from trainer.storage import retries

# The newest release line that all of them share. requirements/ pins the exact releases.
REQUIRED_VERSIONS = {
    "tensorflow": "2.20",
    "tensorflow-text": "2.20",
    "tf-keras": "2.20",
    "tf-models-official": "2.20",
    "tensorflow-hub": "0.16",
}

# Distributions that hold the same package, for other hardware.
ALTERNATIVE_DISTRIBUTIONS = {"tensorflow": "tensorflow-tpu"}
INSTALL = "Install the set that was tested: make environment."


def installed_version(distribution: str) -> str | None:
    """The version of a distribution, None if it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def find_problems() -> list[Problem]:
    """What is wrong with the installation and with the variables of the environment."""
    problems = []
    for package, line in REQUIRED_VERSIONS.items():
        version = installed_version(package) or installed_version(ALTERNATIVE_DISTRIBUTIONS.get(package, package))
        if version is None or version.split(".")[:2] != line.split("."):
            problems.append(Problem(package, f"be of version {line}", version or "none installed", INSTALL))
    keras = os.environ.get("TF_USE_LEGACY_KERAS")
    if keras not in ("1", "true", "True"):
        problems.append(Problem("TF_USE_LEGACY_KERAS", "be 1, since Hub encoders are of Keras 2", repr(keras)))
    code = os.environ.get(errors.STOPPED_CODE_VARIABLE)
    if code and (not code.isdecimal() or not 0 < int(code) < 256):
        problems.append(Problem(errors.STOPPED_CODE_VARIABLE, "be an exit code, 1 to 255", repr(code)))
    if retry_problem := retries.find_retry_problem():
        problems.append(retry_problem)
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is not None and getattr(tensorflow.keras, "__version__", "2").startswith("3"):
        advice = "Import trainer before TensorFlow, or set TF_USE_LEGACY_KERAS=1."
        problems.append(Problem("TensorFlow", "be imported with Keras 2", "Keras 3", advice))
    return problems


def check_installation() -> None:
    """Raises UserError with every problem of the installation."""
    problems = find_problems()
    if problems:
        raise errors.UserError(*problems)

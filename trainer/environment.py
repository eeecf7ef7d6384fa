"""What every command does first: check the installed versions, and end with one message and a code.

Imports nothing heavy, so that --help answers at once.
"""

import importlib.metadata
import os
import re
import sys
from collections.abc import Callable

from absl import app, flags, logging

from trainer import retries

# The newest line that all of them share; requirements/ pins the exact releases.
REQUIRED = {
    "tensorflow": "2.20",
    "tensorflow-text": "2.20",
    "tf-keras": "2.20",
    "tf-models-official": "2.20",
    "tensorflow-hub": "0.16",
}

# Distributions that hold the same package, for other hardware.
INSTEAD = {"tensorflow": "tensorflow-tpu"}

DONE, FAILED, BAD_USAGE = 0, 1, 2
# "Run it again": sysexits.h's EX_TEMPFAIL, or what the variable says, for a service that goes by a code of its own.
CODE = "STOPPED_CODE"
STOPPED = int(os.environ[CODE]) if os.environ.get(CODE, "").isdecimal() else 75


class UsageError(ValueError):
    """Bad flags or configuration: the command ends with BAD_USAGE instead of FAILED."""


def installed(distribution: str) -> str | None:
    """Its version; None if it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def problems() -> list[str]:
    """What is wrong with the installation, one line each; empty if nothing is."""
    found = []
    for package, line in REQUIRED.items():
        version = installed(package) or installed(INSTEAD.get(package, package))
        if version is None:
            found.append(f"{package} {line} is required. Received: none installed.")
        elif version.split(".")[:2] != line.split("."):
            found.append(f"{package} {line} is required. Received: {version}.")
    if os.environ.get("TF_USE_LEGACY_KERAS") not in ("1", "true", "True"):
        found.append(
            "TF_USE_LEGACY_KERAS=1 is required (Hub encoders are Keras 2). Received: "
            f"{os.environ.get('TF_USE_LEGACY_KERAS')!r}."
        )
    code = os.environ.get(CODE)
    if code and (not code.isdecimal() or not 0 < int(code) < 256):
        found.append(f"{CODE} must be an exit code, 1 to 255. Received: {code!r}.")
    retrying = retries.problem()
    if retrying:
        found.append(retrying)
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is not None and getattr(tensorflow.keras, "__version__", "2").startswith("3"):
        found.append(
            "TensorFlow was imported with Keras 3 before trainer: import trainer first, or set TF_USE_LEGACY_KERAS=1."
        )
    return found


def check() -> None:
    """Raises ValueError, with every problem, unless TensorFlow and its companions are the ones this was built for."""
    found = problems()
    if found:
        raise ValueError("\n".join([*found, "Install the set that was tested: make environment."]))


def no_arguments(argv: list[str]) -> None:
    """Raises UsageError for arguments that are no flags, such as a flag's value after a space too many."""
    if len(argv) > 1:
        raise UsageError(f"Every argument must be a flag, --name=value. Received: {' '.join(argv[1:])}.")


def run(main: Callable[[list[str]], int | None], usage: str | None) -> None:
    """Parse the flags, call `main`, and turn what a user can mend (ValueError, OSError) into one message."""

    def guarded(argv: list[str]) -> int:
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.ERROR)  # TensorFlow's own notes; ours are printed
        try:
            return main(argv) or DONE
        except (ValueError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            return BAD_USAGE if isinstance(error, UsageError) else FAILED
        except Exception as error:
            if type(error).__module__ != "tensorflow.python.framework.errors_impl":
                raise  # a defect of ours, with its traceback
            # TensorFlow's own failures: a full disk, a file that cannot be read or written; or ours, in its words.
            ours = re.search(
                r"^\s*(?:BucketError|FileNotFoundError|OSError|ValueError): (.+)$", str(error), re.MULTILINE
            )
            what = ours[1] if ours else f"{type(error).__name__}: {str(error).splitlines()[0]}"
            print(f"error: {what}", file=sys.stderr)
            return FAILED

    def parse(argv: list[str]) -> list[str]:
        try:
            return flags.FLAGS(argv)
        except SystemExit:
            raise SystemExit(DONE) from None  # --help has been answered, which absl ends with 1
        except flags.Error as error:
            print(f"error: {error}\nTry --help.", file=sys.stderr)
            raise SystemExit(BAD_USAGE) from None

    sys.modules["__main__"].__doc__ = usage
    app.run(guarded, flags_parser=parse)

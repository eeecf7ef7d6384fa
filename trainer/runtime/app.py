"""How every command starts and ends: its flags are parsed, and a failure is one message and an exit code.

Imports nothing heavy, so that --help answers at once.
"""

import difflib
import faulthandler
import logging
import sys
from collections.abc import Callable

from absl import app, flags

from trainer import errors
from trainer.errors import Problem
from trainer.runtime import logs, signals

_LOG = logging.getLogger(__name__)


def find_argument_problems(argv: list[str], texts: bool = False) -> list[Problem]:
    """A problem for each argument that names no flag, and, unless a command takes `texts`, for each other argument."""
    problems = []
    for argument in argv[1:]:
        if argument.startswith("-") and argument != "--":
            name = argument.lstrip("-").partition("=")[0]
            advice = f"The nearest is --{nearest}." if (nearest := _nearest_flag(name)) else "Try --help."
            problems.append(Problem(f"--{name}", "be a flag of this command", argument, advice))
        elif not texts:
            problems.append(Problem("Every argument", "be a flag, --name=value", argument))
    return problems


def _nearest_flag(name: str) -> str | None:
    # The right name in the wrong section is more likely than a misspelled name in the right one.
    same_name = [flag for flag in flags.FLAGS if flag.rpartition(".")[2] == name.rpartition(".")[2]]
    return next(iter(same_name or difflib.get_close_matches(name, list(flags.FLAGS), n=1, cutoff=0.5)), None)


def reject_arguments(argv: list[str], texts: bool = False) -> None:
    """Raises UsageError with the problems of find_argument_problems."""
    if problems := find_argument_problems(argv, texts):
        raise errors.UsageError(*problems)


def run(main: Callable[[list[str]], int | None], usage: str | None) -> None:
    """Parse the flags, call `main`, and turn a stop or what a user can act on (ValueError, OSError) into a message."""

    faulthandler.enable()  # A crash in native code names its signal and where the Python threads were.

    def guarded(argv: list[str]) -> int:
        verbosity = flags.FLAGS["verbosity"]
        logs.configure(verbosity.value if verbosity.present else None)
        try:
            return main(argv) or errors.EXIT_DONE
        except signals.Stopped as stopped:
            _LOG.info("%s", stopped)
            return errors.EXIT_STOPPED
        except (ValueError, OSError) as error:
            _LOG.error("%s", error)
            return errors.EXIT_BAD_USAGE if isinstance(error, errors.UsageError) else errors.EXIT_FAILED
        except Exception as error:
            if type(error).__module__ != "tensorflow.python.framework.errors_impl":
                raise  # A defect of ours keeps its traceback.
            # TensorFlow's own failures, such as a full disk or a file that cannot be read.
            _LOG.error("%s: %s", type(error).__name__, str(error).splitlines()[0])
            return errors.EXIT_FAILED

    def parse(argv: list[str]) -> list[str]:
        try:
            return flags.FLAGS(argv, known_only=True)  # `main` reports the others.
        except SystemExit:
            raise SystemExit(errors.EXIT_DONE) from None  # absl exits with 1 after --help.
        except flags.Error as error:
            print(f"error: {error}\nTry --help.", file=sys.stderr)
            raise SystemExit(errors.EXIT_BAD_USAGE) from None

    sys.modules["__main__"].__doc__ = usage
    app.run(guarded, flags_parser=parse)

"""How every command starts and ends: its flags are parsed, and a failure is one message and an exit code.

Imports nothing heavy, so that --help answers at once.
"""

import difflib
import logging
import sys
from collections.abc import Callable, Iterator

from absl import app, flags

from trainer import errors
from trainer.runtime import logs

_LOG = logging.getLogger(__name__)


def reject_positional_arguments(argv: list[str]) -> None:
    """Raises UsageError for arguments that are not flags, such as a value after one space too many."""
    if len(argv) > 1:
        raise errors.UsageError(errors.Problem("Every argument", "be a flag, --name=value", " ".join(argv[1:])))


def _unknown_flags(argv: list[str]) -> Iterator[errors.Problem]:
    """A problem for each argument that names no flag, with the nearest one."""
    for argument in flags.FLAGS(argv, known_only=True)[1:]:
        if argument.startswith("-"):
            name = argument.lstrip("-").partition("=")[0]
            nearest = difflib.get_close_matches(name, list(flags.FLAGS), n=1, cutoff=0.5)
            advice = f"The nearest is --{nearest[0]}." if nearest else ""
            yield errors.Problem(f"--{name}", "be a flag of this command", argument, advice)


def run(main: Callable[[list[str]], int | None], usage: str | None) -> None:
    """Parse the flags, call `main`, and turn what a user can act on (ValueError, OSError) into one message."""

    def guarded(argv: list[str]) -> int:
        verbosity = flags.FLAGS["verbosity"]
        logs.configure(verbosity.value if verbosity.present else None)
        try:
            return main(argv) or errors.EXIT_DONE
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
            return flags.FLAGS(argv)
        except SystemExit:
            raise SystemExit(errors.EXIT_DONE) from None  # absl exits with 1 after --help.
        except flags.UnrecognizedFlagError:
            message = str(errors.UsageError(*_unknown_flags(argv)))
        except flags.Error as error:
            message = str(error)
        print(f"error: {message}\nTry --help.", file=sys.stderr)
        raise SystemExit(errors.EXIT_BAD_USAGE)

    sys.modules["__main__"].__doc__ = usage
    app.run(guarded, flags_parser=parse)

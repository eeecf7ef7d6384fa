"""What every command does first: check the installed versions, and end with one message and a code.

Imports nothing heavy, so that --help answers at once.
"""

import re
import sys
from collections.abc import Callable

from absl import app, flags

from trainer import errors
from trainer.runtime import logs


def reject_positional_arguments(argv: list[str]) -> None:
    """Raises UsageError for arguments that are no flags, such as a flag's value after a space too many."""
    if len(argv) > 1:
        raise errors.UsageError(errors.Problem("Every argument", "be a flag, --name=value", " ".join(argv[1:])))


def run(main: Callable[[list[str]], int | None], usage: str | None) -> None:
    """Parse the flags, call `main`, and turn what a user can mend (ValueError, OSError) into one message."""

    def guarded(argv: list[str]) -> int:
        verbosity = flags.FLAGS["verbosity"]
        logs.configure(verbosity.value if verbosity.present else None)
        try:
            return main(argv) or errors.EXIT_DONE
        except (ValueError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            return errors.EXIT_BAD_USAGE if isinstance(error, errors.UsageError) else errors.EXIT_FAILED
        except Exception as error:
            if type(error).__module__ != "tensorflow.python.framework.errors_impl":
                raise  # a defect of ours, with its traceback
            # TensorFlow's own failures: a full disk, a file that cannot be read or written; or ours, in its words.
            ours = re.search(
                r"^\s*(?:BucketError|FileNotFoundError|OSError|ValueError): (.+)$", str(error), re.MULTILINE
            )
            what = ours[1] if ours else f"{type(error).__name__}: {str(error).splitlines()[0]}"
            print(f"error: {what}", file=sys.stderr)
            return errors.EXIT_FAILED

    def parse(argv: list[str]) -> list[str]:
        try:
            return flags.FLAGS(argv)
        except SystemExit:
            raise SystemExit(errors.EXIT_DONE) from None  # --help has been answered, which absl ends with 1
        except flags.Error as error:
            print(f"error: {error}\nTry --help.", file=sys.stderr)
            raise SystemExit(errors.EXIT_BAD_USAGE) from None

    sys.modules["__main__"].__doc__ = usage
    app.run(guarded, flags_parser=parse)

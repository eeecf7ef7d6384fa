"""How every command starts and ends: its flags are parsed, and a failure is one message and an exit code.

Imports nothing heavy, so that --help answers at once.
"""

import contextlib
import faulthandler
import logging
import os
import select
import sys
import threading
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import NoReturn

from absl import app, flags

from trainer import errors
from trainer.errors import Problem
from trainer.runtime import garbage, help_text, logs, signals
from trainer.storage import local, paths

_LOG = logging.getLogger(__name__)
_SKIPS_EXIT_HANDLERS = threading.Event()


def find_argument_problems(argv: list[str], texts: bool = False) -> list[Problem]:
    """A problem for each argument that names no flag, and, unless a command takes `texts`, for each other argument.

    What follows -- is no flag.
    """
    problems = []
    flags_end = argv.index("--") if "--" in argv else len(argv)
    for position, argument in enumerate(argv[1:], 1):
        if argument.startswith("-") and position < flags_end:
            name = argument.lstrip("-").partition("=")[0]
            nearest = errors.find_nearest(name, flags.FLAGS)
            advice = f"The nearest is --{nearest}." if nearest else "Try --help."
            if texts:
                advice += " If it is a text, write -- before it."
            problems.append(Problem(f"--{name}", "be a flag of this command", argument, advice))
        elif not texts:
            problems.append(Problem("Every argument", "be a flag, --name=value", argument))
    return problems


def text_arguments(argv: list[str]) -> list[str]:
    """The arguments that are texts: all but the command and the -- that ends the flags."""
    end = argv.index("--") if "--" in argv else len(argv)
    return argv[1:end] + argv[end + 1 :]


def reject_arguments(argv: list[str], texts: bool = False) -> None:
    """Raises UsageError with the problems of find_argument_problems."""
    if problems := find_argument_problems(argv, texts):
        raise errors.UsageError(*problems)


def normalize_path_flags(*names: str, urls: Collection[str] = ()) -> list[Problem]:
    """Put the paths that these flags name in the form of paths.normalize_path. Returns the problems of the others.

    Those of `urls` may also name an http:// or https:// address.
    """
    problems: list[Problem] = []
    for name in (*names, *urls):
        flag = flags.FLAGS[name]
        if flag.value:
            flag.value = paths.normalize_path(f"--{name}", flag.value, problems, url=name in urls)
    return problems


def _output_is_closed() -> bool:
    """Whether nobody reads this process's standard output, a pipe, any more."""
    poll = select.poll()
    poll.register(sys.stdout, 0)
    return any(events & select.POLLERR for _, events in poll.poll(0))


def skip_exit_handlers() -> None:
    """From now on `run` ends this process without its exit handlers.

    TensorFlow's may wait for other machines without end, or print a failure once more, as a traceback.
    """
    _SKIPS_EXIT_HANDLERS.set()


def stop_at_once(message: str) -> NoReturn:
    """End the process as a stop does, but with nothing that waits: neither a finally block nor an exit handler."""
    _LOG.info("%s", message)
    _end_at_once(errors.EXIT_STOPPED)


def _end_at_once(code: int) -> NoReturn:
    local.remove_process_folders()
    with contextlib.suppress(OSError):  # Nobody may read it any more.
        sys.stdout.flush()
    logging.shutdown()
    os._exit(code)


def run(
    main: Callable[[list[str]], int | None], usage: str | None, headings: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Parse the flags, call `main`, and turn a stop or what a user can act on (ValueError, OSError) into a message.

    `usage` and `headings` are those of help_text.format_help.
    """

    faulthandler.enable()  # A crash in native code names its signal and where the Python threads were.
    garbage.collect_rarely()

    def guarded(argv: list[str]) -> int:
        verbosity = flags.FLAGS["verbosity"]
        logs.configure(verbosity.value if verbosity.present else None)
        code = _attempt(lambda: main(argv))
        if _SKIPS_EXIT_HANDLERS.is_set():
            _end_at_once(code)
        return code

    def parse(argv: list[str]) -> list[str]:
        rest = _parse(argv)
        if help_text.is_requested():
            raise SystemExit(_attempt(lambda: print(help_text.format_help(usage or "", headings))))
        return rest

    sys.modules["__main__"].__doc__ = usage
    app.run(guarded, flags_parser=parse)


def _parse(argv: list[str]) -> list[str]:
    """What is left of the arguments. Where help is requested, flags that cannot be parsed do not matter."""
    help_text.define_flags()
    flags.FLAGS.set_gnu_getopt()  # A flag may follow a text.
    try:
        return flags.FLAGS(argv, known_only=True)  # `main` reports the others.
    except SystemExit:
        raise SystemExit(errors.EXIT_DONE) from None  # absl exits with 1 after --helpfull.
    except flags.Error as error:
        if help_text.is_requested():
            return []
        found = "\n".join(map(str, _find_flag_problems(argv))) or error
        print(f"error: {found}\nTry --help.", file=sys.stderr)
        raise SystemExit(errors.EXIT_BAD_USAGE) from None


def _find_flag_problems(argv: list[str]) -> list[Problem]:
    """A problem for each value that its flag does not take, and for each unknown flag. absl stops at the first."""
    problems: list[Problem] = []
    given: set[str] = set()
    end = argv.index("--") if "--" in argv else len(argv)
    arguments = iter(argv[1:end])
    for argument in arguments:
        name, equals, value = argument.lstrip("-").partition("=")
        if not argument.startswith("-"):
            continue
        given.add(name)
        if name in flags.FLAGS:
            flag = flags.FLAGS[name]
            problems += _find_value_problems(flag, value if equals or flag.boolean else next(arguments, ""))
        elif name.removeprefix("no") not in flags.FLAGS:
            problems += find_argument_problems([argv[0], argument])
    missing = (name for name in flags.FLAGS if _is_required(flags.FLAGS[name]) and name not in given)
    return problems + [Problem(f"--{name}", "be given", "none", flags.FLAGS[name].help) for name in missing]


def _is_required(flag: flags.Flag) -> bool:
    """Whether the flag was defined with required=True, which absl keeps as a validator."""
    return any("must have a value other than None" in validator.message for validator in flag.validators)


def _find_value_problems(flag: flags.Flag, value: str) -> list[Problem]:
    """A problem if the flag does not take the value. The value of a boolean may be empty."""
    words = list(getattr(flag.parser, "enum_values", ()))
    required = "true or false" if flag.boolean else flag.parser.syntactic_help
    if words:
        required = f"one of {', '.join(words)}"
    try:
        if value or not flag.boolean:
            flag.parser.parse(value)
        return []
    except (TypeError, ValueError):
        return [Problem(f"--{flag.name}", f"be {required}", value or "nothing", errors.advise_nearest(value, words))]


def _attempt(call: Callable[[], int | None]) -> int:
    """The exit code of `call`, whose failure has been logged."""
    try:
        code = call() or errors.EXIT_DONE
        sys.stdout.flush()
        return code
    except signals.Stopped as stopped:
        _LOG.info("%s", stopped)
        return errors.EXIT_STOPPED
    except (ValueError, OSError) as error:
        if isinstance(error, BrokenPipeError) and _output_is_closed():
            # Its reader, such as head, has enough. What is still in the buffer is dropped when Python ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return errors.EXIT_DONE
        _LOG.error("%s", error)
        return errors.EXIT_BAD_USAGE if isinstance(error, errors.UsageError) else errors.EXIT_FAILED
    except Exception as error:
        if type(error).__module__ != "tensorflow.python.framework.errors_impl":
            raise  # A defect of ours keeps its traceback.
        # TensorFlow's own failures, such as a full disk or a file that cannot be read.
        _LOG.error("%s", errors.describe_error(error))
        return errors.EXIT_FAILED

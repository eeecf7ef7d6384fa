"""Errors that a user can act on, and the exit codes of every command.

A message says what was required, what was received, and what to change. It is put together here and nowhere else.
"""

import dataclasses
import difflib
import os
from collections.abc import Iterable

# Of what was received, both ends are shown: more than the output of a process that failed.
MAX_RECEIVED_CHARACTERS = 6000
EXIT_DONE, EXIT_FAILED, EXIT_BAD_USAGE = 0, 1, 2
# A service that restarts a job after exit codes of its own choice sets this variable to one of them.
STOPPED_CODE_VARIABLE = "STOPPED_CODE"
# "Run it again": EX_TEMPFAIL of sysexits.h, unless the variable holds another code.
_STOPPED_CODE = os.environ.get(STOPPED_CODE_VARIABLE, "")
EXIT_STOPPED = int(_STOPPED_CODE) if _STOPPED_CODE.isdecimal() else 75


@dataclasses.dataclass(frozen=True)
class Problem:
    """One thing that a user has to change."""

    setting: str  # The flag, configuration key, variable, file or column, as the user writes it.
    required: str  # What the setting must do or be. It follows the word "must".
    received: str
    advice: str = ""  # Complete sentences: what to change, and to what.

    def __str__(self) -> str:
        received = self.received
        if len(received) > MAX_RECEIVED_CHARACTERS:
            received = f"{received[: MAX_RECEIVED_CHARACTERS // 2]} [...] {received[-MAX_RECEIVED_CHARACTERS // 2 :]}"
        received = received if received.endswith((".", "?")) else f"{received}."
        return f"{self.setting} must {self.required}. Received: {received} {self.advice}".rstrip()


class UserError(ValueError):
    """A failure that the user can act on. A command ends with EXIT_FAILED and these problems, a line each."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("\n".join(dict.fromkeys(map(str, problems))))
        self.problems = problems


class UsageError(UserError):
    """Wrong flags or configuration. A command ends with EXIT_BAD_USAGE."""


def find_nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that an unknown one was probably meant to be; None if no name is near.

    Of dotted names the right one in the wrong section is more likely than a misspelled one in the right section.
    """
    names = list(known)
    same_last_part = [each for each in names if each.rpartition(".")[2] == name.rpartition(".")[2]]
    return next(iter(same_last_part or difflib.get_close_matches(name, names, n=1, cutoff=0.5)), None)


def advise_nearest(name: str, known: Iterable[str]) -> str:
    """The nearest known name as a sentence of advice; "" if no name is near."""
    nearest = find_nearest(name, known)
    return f"The nearest is {nearest}." if nearest else ""


def describe_error(error: Exception) -> str:
    """What to quote of a library's error, whose message may have hundreds of lines: its type and its first line."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"

"""Errors that a user can act on, and the exit codes of every command."""

import os

EXIT_DONE, EXIT_FAILED, EXIT_BAD_USAGE = 0, 1, 2

# "Run it again": sysexits.h's EX_TEMPFAIL, or what the variable says, for a service that goes by a code of its own.
STOPPED_CODE_VARIABLE = "STOPPED_CODE"

EXIT_STOPPED = int(os.environ[STOPPED_CODE_VARIABLE]) if os.environ.get(STOPPED_CODE_VARIABLE, "").isdecimal() else 75


class UsageError(ValueError):
    """Bad flags or configuration: the command ends with BAD_USAGE instead of FAILED."""

from helpers import python

from trainer.runtime import garbage

COMMAND = """
import gc, sys
from trainer.runtime import app
app.run(lambda argv: print(gc.get_threshold()[0]), "A command.")
"""


def test_a_command_collects_rarely():
    assert int(python("-c", COMMAND, check=True).stdout) == garbage.NEW_OBJECTS

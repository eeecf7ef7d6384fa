"""How a process of ours starts another one with `python -m`, wherever the package lies and whatever the folder is."""

import os
import sys


def command(module: str, *arguments: str) -> list[str]:
    """The command line that runs a module, such as trainer.export.predict, with this process's Python."""
    return [sys.executable, "-m", module, *arguments]


def environment(**changes: str) -> dict[str, str]:
    """This process's variables with these changes, and the folder of this package first in PYTHONPATH."""
    folder = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    path = os.pathsep.join(filter(None, [folder, os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, **changes}

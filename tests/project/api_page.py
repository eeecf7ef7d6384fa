"""docs/api.md, made from the docstrings of what trainer.api offers, and from the comments of its fields.

python tests/project/api_page.py > docs/api.md
"""

import ast
import dataclasses
import inspect
import textwrap
from collections.abc import Callable, Iterator

from trainer import api

INTRODUCTION = """\
# Python API
Made from the docstrings of `trainer/api.py` and of what it offers, by `tests/project/api_page.py`; a test compares the
two, and runs the examples.
"""
FUNCTIONS = (api.prepare, api.train, api.evaluate, api.load, api.predict, api.report, api.export)
VALUES = (api.DataSet, api.TrainResult, api.Evaluation, api.Classifier, api.Prediction, api.Export)
OPTIONS = (api.PrepareOptions, api.DeviceOptions, api.Command)
ERRORS = (api.UserError, api.UsageError, api.Problem, api.Stopped)


def read_source(what: Callable) -> str:
    return textwrap.dedent(inspect.getsource(what))


def write_signature(function: Callable) -> str:
    """From `def` to what it returns, as it is written."""
    source = read_source(function)
    (node,) = ast.parse(source).body
    assert isinstance(node, ast.FunctionDef)
    lines = source.splitlines()[node.lineno - 1 : node.body[0].lineno - 1]
    return "\n".join(lines).removesuffix(":").removeprefix("def ")


def write_function(function: Callable, name: str) -> str:
    return f"### {name}\n```python signature\n{write_signature(function)}\n```\n{inspect.getdoc(function)}\n"


def field_rows(kind: type) -> Iterator[str]:
    """A row for each field of a class: its name, its type, and the comment in its line."""
    source = read_source(kind)
    (node,) = ast.parse(source).body
    assert isinstance(node, ast.ClassDef)
    for field in node.body:
        if isinstance(field, ast.AnnAssign):
            line = source.splitlines()[field.end_lineno - 1]
            comment = line[field.end_col_offset :].strip().removeprefix("# ")
            annotation = ast.unparse(field.annotation).replace("|", r"\|")
            yield f"| `{ast.unparse(field.target)}` | `{annotation}` | {comment} |"


def write_class(kind: type) -> str:
    page = f"### {kind.__name__}\n{inspect.getdoc(kind)}\n"
    rows = list(field_rows(kind))
    if rows:
        page += "\n".join(["", "| field | type | |", "| --- | --- | --- |", *rows, ""])
    methods = vars(kind).items() if dataclasses.is_dataclass(kind) else ()
    public = [(name, value) for name, value in methods if inspect.isfunction(value) and not name.startswith("_")]
    return page + "".join(f"\n{write_function(method, f'{kind.__name__}.{name}')}" for name, method in public)


def write_page() -> str:
    """The page as Markdown."""
    return "\n".join(
        [
            f"{INTRODUCTION}\n{inspect.getdoc(api)}\n",
            "## Functions",
            *(write_function(function, function.__name__) for function in FUNCTIONS),
            "## What they return",
            *map(write_class, VALUES),
            "## Options",
            *map(write_class, OPTIONS),
            "## Errors",
            "\n".join(map(write_class, ERRORS)).rstrip("\n") + "\n",
        ]
    )


if __name__ == "__main__":
    print(write_page(), end="")

"""Every message to a user that the code can make, found in its source: the fixed text of each Problem.

What is put in at run time is a HOLE. A name stands for whatever its function, or else its module, assigns to it; a
call of a function stands for what that returns.
"""

import ast
import dataclasses
import re
from collections.abc import Iterator

from helpers import ROOT

HOLE = "…"
# Whatever makes a problem: its setting and its requirement are the first two arguments.
MAKERS = ("Problem", "BucketError")
# What else says something to users: the first argument is a line.
LINES = ("_LOG.warning", "Stopped", "stop_at_once", "OSError", "FileNotFoundError")
FUNCTION_LIKE = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclasses.dataclass(frozen=True)
class Message:
    """What one call of MAKERS can say."""

    place: str  # "file:line"
    settings: frozenset[str]
    requirements: frozenset[str]


def find_messages() -> list[Message]:
    """Those of trainer/ and scripts/, in the order of their files."""
    return [message for name, source in _sources() for message in messages_in(source, name)]


def find_lines() -> list[tuple[str, str]]:
    """("file:line", text) of each warning, and of what ends a command without a problem."""
    found = []
    for name, source in _sources():
        module = ast.parse(source)
        for node in ast.walk(module):
            if isinstance(node, ast.Call) and node.args and is_line(ast.unparse(node.func)):
                texts = texts_of(node.args[0], module, module)
                found += [(f"{name}:{node.lineno}", join(re.sub(r"%[\d.]*[sdfr]", HOLE, text))) for text in texts]
    return [(place, text) for place, text in found if text != HOLE]


def is_line(called: str) -> bool:
    return called in LINES or called.rpartition(".")[2] in LINES


def _sources() -> Iterator[tuple[str, str]]:
    for path in [*sorted((ROOT / "trainer").rglob("*.py")), *sorted((ROOT / "scripts").glob("*.py"))]:
        yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")


def messages_in(source: str, name: str) -> Iterator[Message]:
    module = ast.parse(source)
    for scope in scopes_of(module):
        for node in ast.walk(scope):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func).rpartition(".")[2]
            replaced = {keyword.arg: keyword.value for keyword in node.keywords}
            if called in MAKERS:
                setting, required = (texts_of(part, scope, module) for part in node.args[:2])
            elif called == "replace" and "required" in replaced:  # dataclasses.replace of a problem
                setting, required = {HOLE}, texts_of(replaced["required"], scope, module)
            else:
                continue
            yield Message(f"{name}:{node.lineno}", frozenset(setting), frozenset(required - {""}))


def scopes_of(module: ast.Module) -> Iterator[ast.AST]:
    """The module's functions, methods and other statements, without MAKERS themselves."""
    for node in module.body:
        if not isinstance(node, ast.ClassDef):
            yield node
        elif node.name not in MAKERS:
            yield from node.body


def texts_of(node: ast.AST, scope: ast.AST, module: ast.Module, depth: int = 0) -> set[str]:
    """What an expression can be, with a HOLE for what is not fixed."""

    def texts(part: ast.AST) -> set[str]:
        return texts_of(part, scope, module, depth + 1)

    match node:
        case _ if depth > 8:
            return {HOLE}
        case ast.Constant(value=str(text)):
            return {text}
        case ast.JoinedStr(values=values):
            return {join("".join(part.value if isinstance(part, ast.Constant) else HOLE for part in values))}
        case ast.IfExp(body=body, orelse=other):
            return texts(body) | texts(other)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return {join(a + b) for a in texts(left) for b in texts(right)}
        case ast.Dict(values=values):
            return set().union(*map(texts, values))
        case ast.Subscript(value=ast.Name() as table):
            return texts(table)
        case ast.Call(func=ast.Attribute(value=table, attr="get")):
            return texts(table)
        case ast.Call(func=ast.Attribute(value=text, attr="format_map")):
            return {join(re.sub(r"\{\w+\}", HOLE, found)) for found in texts(text)}
        case ast.Call(func=ast.Name(id=name)):
            return {text for part in returns(module, name) for text in texts_of(*part, module, depth + 1)} or {HOLE}
        case ast.Call(func=ast.Attribute(value=ast.Name(id=imported), attr=name)) if other := find_import(
            module, imported
        ):
            return {text for part in returns(other, name) for text in texts_of(*part, other, depth + 1)} or {HOLE}
        case ast.Attribute(value=ast.Name(id=imported), attr=name) if other := find_import(module, imported):
            return {text for value in assigned(other, name) for text in texts_of(value, other, other, depth + 1)} or {
                HOLE
            }
        case ast.Name(id=name):
            values = list(assigned(scope, name)) or list(assigned(module, name))
            return set().union(*map(texts, values)) or {HOLE}
    return {HOLE}


def join(text: str) -> str:
    """Neighboring holes are one."""
    return re.sub(f"{HOLE}+", HOLE, text)


def find_import(module: ast.Module, name: str) -> ast.Module | None:
    """The module of ours that is imported by this name."""
    for node in ast.walk(module):
        if isinstance(node, ast.ImportFrom) and name in [alias.name for alias in node.names]:
            path = ROOT.joinpath(*(node.module or "").split("."), f"{name}.py")
            if path.is_file():
                return ast.parse(path.read_text(encoding="utf-8"))
    return None


def returns(module: ast.Module, name: str) -> Iterator[tuple[ast.AST, ast.AST]]:
    """(what it returns, the function) for each return of the module's function of this name."""
    for function in module.body:
        if isinstance(function, FUNCTION_LIKE) and function.name == name:
            for node in ast.walk(function):
                if isinstance(node, ast.Return) and node.value is not None:
                    yield node.value, function


def assigned(scope: ast.AST, name: str) -> Iterator[ast.AST]:
    """What is assigned to a name, in a tuple too."""
    for node in ast.walk(scope):
        if isinstance(node, ast.NamedExpr) and node.target.id == name:
            yield node.value
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                names = target.elts if isinstance(target, ast.Tuple) else [target]
                values = node.value.elts if isinstance(node.value, ast.Tuple) else [node.value]
                if len(names) == len(values):
                    for part, value in zip(names, values, strict=True):
                        if isinstance(part, ast.Name) and part.id == name:
                            yield value

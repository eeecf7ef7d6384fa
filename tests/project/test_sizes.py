"""What is read at once is short: a file, a function, the name of a test."""

import ast

from helpers import ROOT

MAX_FILE_LINES, MAX_FUNCTION_LINES, MAX_TEST_NAME_CHARACTERS = 350, 60, 70

FOLDERS = [ROOT / name for name in ("scripts", "tests", "trainer")]
PATHS = [*ROOT.glob("*.py"), *(path for folder in FOLDERS for path in folder.rglob("*.py"))]
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in PATHS}
FUNCTIONS = [
    (file, node)
    for file, text in TEXTS.items()
    for node in ast.walk(ast.parse(text))
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
]


def test_no_file_is_too_long():
    assert [file for file, text in TEXTS.items() if len(text.splitlines()) > MAX_FILE_LINES] == []


def test_no_function_is_too_long():
    long = [
        f"{file}:{node.lineno} {node.name}"
        for file, node in FUNCTIONS
        if node.end_lineno - node.lineno >= MAX_FUNCTION_LINES
    ]
    assert long == []


def test_no_name_of_a_test_is_too_long():
    tests = [(file, node.name) for file, node in FUNCTIONS if node.name.startswith("test_")]
    assert [test for test in tests if len(test[1]) > MAX_TEST_NAME_CHARACTERS] == []

"""What the code imports is what pyproject.toml and the TPU check's environments name."""

import ast
import importlib.metadata
import sys
import tomllib
from collections.abc import Iterator

import pytest
from helpers import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DISTRIBUTIONS = importlib.metadata.packages_distributions()
# Where distributions share a top-level package, such as google: what a distribution has in it.
SHARED = {name for names in DISTRIBUTIONS.values() if len(set(names)) > 1 for name in names}
FILES = {name: {str(file) for file in importlib.metadata.files(name) or ()} for name in SHARED}
# Installed into .venv-tpu-compile alone (requirements/tpu-compile.in).
TPU_COMPILER = {"jax", "jaxlib"}
# Installed into .venv-peers alone (requirements/peers.in).
PEERS = {"datasets", "torch", "transformers"}
# Imported for this code by libraries that do not require them, or will not: tensorflow-hub imports setuptools's
# pkg_resources, and tf.summary.scalar imports tensorboard.
IMPORTED_BY_OTHERS = {"setuptools", "tensorboard"}


def names(lines: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(line).name) for line in lines}


RUNTIME = names(PROJECT["dependencies"])
EXTRAS = {extra: names(lines) for extra, lines in PROJECT["optional-dependencies"].items()}
DEVELOPMENT = EXTRAS.pop("dev")
OPTIONAL = set().union(*EXTRAS.values())


def imports(folder: str) -> Iterator[str]:
    """The dotted names that a folder's files import, those of `from package import module` included."""
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


def distribution(name: str) -> str | None:
    """The distribution that a dotted name is of; None for Python's own, the project's and those that are not here."""
    candidates = sorted(set(DISTRIBUTIONS.get(name.split(".")[0], ())))
    parts = name.split(".")
    while len(candidates) > 1 and parts:
        path = "/".join(parts)
        owners = [one for one in candidates if FILES[one] & {f"{path}.py", f"{path}/__init__.py"}]
        candidates = owners or candidates
        parts.pop()
    assert len(candidates) < 2, f"{name} may be of {candidates}"
    return canonicalize_name(candidates[0]) if candidates and candidates[0] != "hubtune" else None


def imported(folder: str) -> set[str]:
    return {found for name in imports(folder) if (found := distribution(name))}


@pytest.mark.parametrize(
    ("folder", "declared"),
    [("trainer", RUNTIME | OPTIONAL), ("scripts", RUNTIME | OPTIONAL), ("tests", RUNTIME | OPTIONAL | DEVELOPMENT)],
)
def test_what_is_imported_is_a_dependency_by_its_own_name(folder, declared):
    assert imported(folder) <= declared


@pytest.mark.parametrize("folder", ["trainer", "scripts", "tests"])
def test_every_import_is_of_something_that_is_installed(folder):
    siblings = {path.stem for path in (ROOT / folder).rglob("*")}
    known = DISTRIBUTIONS.keys() | sys.stdlib_module_names | siblings | {"trainer"} | TPU_COMPILER | PEERS
    assert {name.split(".")[0] for name in imports(folder)} <= known


def test_each_runtime_and_optional_dependency_is_imported():
    assert imported("trainer") | imported("scripts") | IMPORTED_BY_OTHERS == RUNTIME | OPTIONAL


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("google.cloud.storage.retry.DEFAULT_RETRY", "google-cloud-storage"),
        ("google.cloud.aiplatform_v1", "google-cloud-aiplatform"),
        ("google.protobuf.json_format", "protobuf"),
        ("sklearn.metrics", "scikit-learn"),
        ("trainer.task", None),
        ("os.path", None),
    ],
)
def test_an_import_s_distribution(name, expected):
    assert distribution(name) == expected

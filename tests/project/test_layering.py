"""The architecture's rules, read off the source: which package may import which, and what only one module may touch."""

import ast

import pytest
from helpers import ROOT
from packages import ASIDE, PATHS, ROWS

TREES = {module: ast.parse(path.read_text(encoding="utf-8")) for module, path in PATHS.items()}
PACKAGES = sorted({module.split(".")[0] for module in PATHS})


def imported_names(tree: ast.AST) -> set[str]:
    """Every name that a module imports, at its top or inside a function: `a.b` for `from a import b` too."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def imported_modules(tree: ast.AST) -> set[str]:
    """The modules of trainer among them."""
    names = {name.removeprefix("trainer.") for name in imported_names(tree) if name.startswith("trainer.")}
    return {name if name in PATHS else name.rpartition(".")[0] for name in names}


def used_names(tree: ast.AST) -> set[str]:
    """Every name and attribute in a module's code."""
    return {
        node.id if isinstance(node, ast.Name) else node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Name | ast.Attribute)
    }


def users(what: str) -> set[str]:
    """The modules that import or name `what`."""
    return {
        module
        for module, tree in TREES.items()
        if what in used_names(tree) or any(what in name for name in imported_names(tree))
    }


def test_every_package_has_a_place():
    assert sorted([*(name for row in ROWS for name in row), *ASIDE]) == PACKAGES


@pytest.mark.parametrize("module", sorted(name for name in TREES if not name.endswith("__init__")))
def test_a_module_has_tests_in_the_folder_of_its_name(module):
    # tpu_probe_process is what tpu_probe starts, and is tested through it.
    folder, _, name = module.replace("tpu_probe_process", "tpu_probe").replace(".", "/").rpartition("/")
    assert (ROOT / "tests" / folder / f"test_{name}.py").is_file()


@pytest.mark.parametrize("module", sorted(TREES))
def test_a_module_imports_only_from_lower_packages(module):
    package = module.split(".")[0]
    level = next((level for level, row in enumerate(ROWS) if package in row), len(ROWS) - 1)
    allowed = {package, *(name for row in ROWS[:level] for name in row)}
    assert "trainer" not in imported_names(TREES[module])  # The whole package would hide what is used.
    assert {name.split(".")[0] for name in imported_modules(TREES[module])} <= allowed


def test_there_is_no_import_cycle():
    remaining = {module: imported_modules(tree) for module, tree in TREES.items()}
    while free := [module for module, needs in remaining.items() if not needs & remaining.keys()]:
        for module in free:
            del remaining[module]
    assert not remaining


@pytest.mark.parametrize("package", [name for name in PACKAGES if (ROOT / "trainer" / name).is_dir()])
def test_a_package_says_what_it_is_for_and_imports_nothing(package):
    tree = TREES[f"{package}.__init__"]
    assert ast.get_docstring(tree)
    assert len(tree.body) == 1


def test_the_configuration_is_seen_by_builders_and_above_only():
    seeing = {
        module.split(".")[0] if module.split(".")[0] in ASIDE else module
        for module, tree in TREES.items()
        if not module.startswith("config.") and {"config.loading", "config.schema"} & imported_modules(tree)
    }
    assert seeing == {
        "cloud",
        "comparison",
        "preparation",
        "sweeps",
        "train.builder",
        "train.encoder_loading",
        "train.modes",
        "train.run_files",
        "train.sessions",
    }


@pytest.mark.parametrize(
    ("what", "only"),
    [
        ("gfile", set()),
        ("official.nlp.optimization", {"train.optimizers"}),
        ("fcntl", {"storage.local"}),
        ("absl.flags", {"config.flags", "runtime.app", "runtime.help_text", "task"}),
        ("absl.logging", {"runtime.logs"}),
        ("set_random_seed", {"encoders.random_encoders"}),
        ("set_seed", set()),
    ],
)
def test_what_only_some_modules_may_use(what, only):
    assert users(what) == only


def test_nothing_inherits_an_implementation():
    """Errors have types, and some libraries require a subclass. There is no module called utils."""
    bases = {
        ast.unparse(base)
        for tree in TREES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        for base in node.bases
    }
    assert bases <= {
        "Exception",
        "ValueError",
        "OSError",
        "UserError",
        "NamedTuple",
        "TypedDict",
        "logging.Formatter",
        "hyperparams.Config",
        "transformers.TrainerCallback",
    }
    assert not [module for module in TREES if module.endswith("utils")]


def test_google_clients_are_used_by_storage_and_cloud_only():
    using = {module for module, tree in TREES.items() if any("google.cloud" in n for n in imported_names(tree))}
    assert {module for module in using if not module.startswith("cloud.")} == {
        "storage.bucket_errors",
        "storage.gcs",
        "storage.gcs_client",
        "storage.retries",
    }


def test_no_other_client_of_buckets_is_used():
    """gcsfs stalls for a minute and more where a bucket's type cannot be determined."""
    others = {name.split(".")[0] for tree in TREES.values() for name in imported_names(tree)}
    assert not others & {"gcsfs", "fsspec", "smart_open"}


LIGHT = sorted(
    module
    for module in TREES
    if module.startswith(("cloud.", "config.", "runtime.", "storage."))
    or module in ("api", "data.tasks", "encoders.registry", "export.text_classifier", "preparation", "train.sessions")
)


@pytest.mark.parametrize("module", LIGHT)
def test_tensorflow_is_not_imported_at_the_top_of(module):
    top = ast.Module([node for node in TREES[module].body if isinstance(node, ast.Import | ast.ImportFrom)], [])
    assert not {name.split(".")[0] for name in imported_names(top)} & {"tensorflow", "tf_keras", "official"}

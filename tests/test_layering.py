"""The architecture's rules, read off the source: who may import whom, and what only one module may touch."""

import ast

import pytest
from conftest import ROOT

LAYERS = [
    "retries signals dropout tasks optim metrics accelerators machines tpu_compiler tpu_graph",
    "environment hosts ai_platform",
    "buckets vertex google_calls service",
    "lease preflight follow trial project_setup image_builds",
    "storage",
    "strict_yaml",
    "config cluster records downloads text native encoders predict report checkpoint tpu_check tpu_lowering serving",
    "sources convert model data steps baseline export inspection strategies jobs orders tuning",
    "prepare random_encoders evaluation",
    "build tpu_trace",
    "runs",
    "loop",
    "task",
]
LAYER = {module: level for level, modules in enumerate(LAYERS) for module in modules.split()}
PATHS = {path.stem: path for path in (ROOT / "trainer").glob("*.py") if path.stem != "__init__"}
TREES = {module: ast.parse(path.read_text(encoding="utf-8")) for module, path in PATHS.items()}


def imported(tree: ast.Module) -> set[str]:
    """Every name that a module imports, at its top or inside a function: `a.b` for `from a import b` too."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def modules(tree: ast.Module) -> set[str]:
    """The modules of the package among them."""
    return {name.split(".")[1] for name in imported(tree) if name.startswith("trainer.")}


def named(tree: ast.Module) -> set[str]:
    """Every name and attribute that a module's code holds."""
    return {
        node.id if isinstance(node, ast.Name) else node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Name | ast.Attribute)
    }


def test_every_module_has_a_layer():
    assert set(LAYER) == set(PATHS)


@pytest.mark.parametrize("module", sorted(TREES))
def test_a_module_imports_only_from_lower_layers(module):
    assert "trainer" not in imported(TREES[module])  # the whole package: it would hide what is used
    higher = {name for name in modules(TREES[module]) if LAYER[name] >= LAYER[module]}
    assert not higher


def test_only_the_builders_and_what_is_above_them_see_the_configuration():
    seeing = {
        name
        for name, tree in TREES.items()
        if "config" in modules(tree) or any(isinstance(n, ast.Name) and n.id == "Config" for n in ast.walk(tree))
    }
    assert seeing - {"config", "loop"} == {"build", "jobs", "orders", "runs", "task", "tuning"}


@pytest.mark.parametrize(
    ("what", "only"),
    [("gfile", "storage"), ("official.nlp.optimization", "optim"), ("fcntl", "storage"), ("absl.flags", None)],
)
def test_what_only_one_module_may_use(what, only):
    using = {
        name for name, tree in TREES.items() if what in named(tree) or any(what in name for name in imported(tree))
    }
    assert using == ({only} if only else {"environment", "task"})


def test_google_s_clients_stay_behind_their_doors():
    assert {name for name, tree in TREES.items() if any("google.cloud" in n for n in imported(tree))} == {
        "buckets",  # storage
        "retries",
        "vertex",  # jobs
        "follow",  # their logs
        "image_builds",
        "project_setup",
        "serving",
    }


def test_no_other_client_of_buckets_is_used():
    """gcsfs stalls for a minute and more where a bucket's type cannot be told."""
    others = {name.split(".")[0] for tree in TREES.values() for name in imported(tree)} & {
        "gcsfs",
        "fsspec",
        "smart_open",
    }
    assert not others


@pytest.mark.parametrize(
    "module",
    [
        *("environment", "buckets", "lease", "preflight", "config", "service", "storage", "signals", "tasks"),
        *("orders", "jobs", "hosts", "vertex", "follow", "encoders", "trial", "tuning"),
    ],
)
def test_what_runs_before_tensorflow_is_wanted_does_not_import_it(module):
    at_the_top = ast.Module([node for node in TREES[module].body if isinstance(node, ast.Import | ast.ImportFrom)], [])
    assert not {name for name in imported(at_the_top) if name.split(".")[0] in ("tensorflow", "tf_keras", "official")}

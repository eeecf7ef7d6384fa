"""The documents, compared with the code: whatever file, test, flag, setting or target they name has to exist."""

import ast
import difflib
import re
import subprocess
import sysconfig
import tomllib

import api_page
import configuration_page
import pytest
import yaml
from helpers import ROOT
from packages import ASIDE, PATHS, ROWS

from trainer import __version__, api
from trainer.config import schema
from trainer.data import tasks

DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in DOCUMENTS}
# A changelog names what is gone.
CURRENT = {name: text for name, text in TEXTS.items() if name != "CHANGELOG.md"}
ARCHITECTURE = TEXTS["ARCHITECTURE.md"]
WORKFLOW = ROOT / ".github/workflows/ci.yml"

FENCED = re.compile(r"^```[^\n]*\n(.*?)^```", re.DOTALL | re.MULTILINE)
CODE_SPAN = re.compile(r"`([^`\n]+)`")
# Commands that have flags of their own.
OTHER_COMMAND = re.compile(
    r"^\W*(docker|gcloud|gsutil|curl|git|pip|tensorboard|uv|SBATCH|srun|(python -m )?pytest)\b|\bpytest "
    r"|\bsaved_model_cli\b"
)
TOP_FOLDERS = "trainer|scripts|configs|tests|docs|requirements|results"


def code(text: str) -> list[str]:
    """The document's code: each line of a fenced block (continued lines joined), and each span."""
    lines = [line for block in FENCED.findall(text) for line in block.replace("\\\n", " ").splitlines()]
    return lines + CODE_SPAN.findall(FENCED.sub("", text))


def own_code(text: str) -> list[str]:
    """The document's code without the commands of other programs."""
    return [line for line in code(text) if not OTHER_COMMAND.search(line)]


def function_names(file: str) -> set[str]:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def defined_flags() -> set[str]:
    """The flags of the scripts and of trainer.task, and the settings, which are flags of trainer.task."""
    flags = {"help", "helpfull", "verbosity", "set", *schema.KEYS}
    for path in [*(ROOT / "scripts").glob("*.py"), *(ROOT / "trainer").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and re.search(r"\bDEFINE_\w+$", ast.unparse(node.func)):
                name = node.args[0].value if isinstance(node.args[0], ast.Constant) else ""
                flags |= {name, f"no{name}"} if "bool" in ast.unparse(node.func) else {name}
    return flags


def heading_anchors(text: str) -> set[str]:
    """The anchors that GitHub makes of headings."""
    headings = re.findall(r"^#+ (.*)$", FENCED.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_newest_release_of_the_changelog_is_this_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    releases = re.findall(r"^## (\d+\.\d+\.\d+) - \d{4}-\d\d-\d\d$", TEXTS["CHANGELOG.md"], re.MULTILINE)
    assert project["version"] == __version__ == releases[0]


# --- Any document ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TEXTS)
def test_every_relative_link_resolves(name):
    for target in re.findall(r"\]\(([^)\s]+)\)", FENCED.sub("", TEXTS[name])):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        path = (ROOT / name).parent / file if file else ROOT / name
        assert path.exists(), target
        if anchor:
            assert anchor in heading_anchors(path.read_text(encoding="utf-8")), target


@pytest.mark.parametrize("name", CURRENT)
def test_every_file_that_is_named_exists(name):
    for line in own_code(CURRENT[name]):
        for path in re.findall(rf"(?<![\w/.:-])((?:{TOP_FOLDERS})/[\w./-]*)", line):
            assert (ROOT / path.rstrip(".")).exists(), path


@pytest.mark.parametrize("name", CURRENT)
def test_every_test_that_is_named_exists(name):
    for line in code(CURRENT[name]):
        for file, test in re.findall(r"(tests/[\w/]+\.py)(?:::(\w+))?", line):
            assert (ROOT / file).exists(), file
            tests = function_names(file)
            near = difflib.get_close_matches(test, tests, n=3, cutoff=0.3)
            assert not test or test in tests, f"{file} has no {test}; the nearest are {near}"
            if "pytest" in line and (keyword := re.search(r" -k (\w+)", line)):
                assert any(keyword[1] in name for name in tests), f"{file} has no test with {keyword[1]}"


@pytest.mark.parametrize("name", CURRENT)
def test_every_flag_that_is_named_exists(name):
    flags = defined_flags() | {"job-dir"}
    for line in own_code(CURRENT[name]):
        named = re.findall(r"(?<![\w-])--([a-z][\w.-]*)", line)
        assert [flag for flag in named if flag not in flags and not flag.startswith("section.key")] == [], line


@pytest.mark.parametrize("name", CURRENT)
def test_every_setting_that_is_named_exists(name):
    sections = "|".join(sorted({key.split(".")[0] for key in schema.KEYS if "." in key}))
    known = {*schema.KEYS, *PATHS, "data.md", "model.safetensors", "model.tflite", "model.onnx", "logging.getLogger"}
    for line in own_code(CURRENT[name]):
        keys = re.findall(rf"(?<![\w/.])((?:{sections})\.[a-z]\w*)", line)
        assert [key for key in keys if key not in known] == [], line


@pytest.mark.parametrize("name", CURRENT)
def test_every_make_target_that_is_named_exists(name):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([\w./-]+):(?!=)", makefile, re.MULTILINE))
    for line in code(CURRENT[name]):
        for command in re.findall(r"(?:^|&& |\$ )make ([^#&|]*)", line):
            words = [word for word in command.split() if "=" not in word and word != "..."]
            assert set(words) <= targets, line


def test_every_data_set_has_its_row_in_the_table_of_sources():
    (table,) = re.findall(r"^\| `--task=` \|.*?\n\n", TEXTS["docs/data.md"], re.DOTALL | re.MULTILINE)
    named = [name for row in table.strip().splitlines()[2:] for name in CODE_SPAN.findall(row.split("|")[1])]
    assert sorted(named) == sorted(set(tasks.TASKS) - {tasks.AX})


def test_the_page_of_settings_is_generated():
    assert TEXTS["docs/configuration.md"] == configuration_page.write_page()


def test_the_page_of_the_python_api_is_generated_and_complete():
    assert TEXTS["docs/api.md"] == api_page.write_page()
    shown = [*api_page.FUNCTIONS, *api_page.VALUES, *api_page.OPTIONS, *api_page.ERRORS]
    assert sorted(each.__name__ for each in shown) == sorted(api.__all__)


# --- ARCHITECTURE.md ------------------------------------------------------------------------------


def test_the_drawn_order_of_packages_is_the_tested_one():
    (drawing,) = re.findall(r"^```text packages\n(.*?)^```", ARCHITECTURE, re.DOTALL | re.MULTILINE)
    *rows, aside = [line.partition("--")[0].strip() for line in drawing.splitlines()]
    assert [set(row.split(", ")) for row in rows] == [set(row) for row in reversed(ROWS)]
    assert set(aside.removeprefix("aside: ").split(", ")) == set(ASIDE)


def test_every_package_has_a_section_with_each_of_its_modules():
    parts = re.split(r"^### (.*)$", ARCHITECTURE.partition("## Decisions")[0], flags=re.MULTILINE)[1:]
    described = {}
    for heading, section in zip(parts[::2], parts[1::2], strict=True):
        for package in CODE_SPAN.findall(heading):
            described[package] = set(re.findall(r"^- `(\w+)`: ", section, re.MULTILINE))
    modules: dict[str, set[str]] = {}
    for module in PATHS:
        package, _, name = module.partition(".")
        modules.setdefault(package, set()).update({name} - {"", "__init__"})
    assert described == modules


def test_every_invariant_names_its_test():
    """An invariant is a paragraph that begins in bold. Those of a section may be held by the tests of one file."""
    paragraphs = [p for p in re.split(r"\n\n+", ARCHITECTURE) if p.startswith("**")]
    assert [p.splitlines()[0] for p in paragraphs if "`tests/" not in p] == []


# --- Continuous integration -----------------------------------------------------------------------


def validate_workflow(path) -> subprocess.CompletedProcess:
    check = f"{sysconfig.get_path('scripts')}/check-jsonschema"
    command = [check, "--builtin-schema", "vendor.github-workflows", path]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_workflow_is_valid_and_a_misspelled_key_is_not(tmp_path):
    assert validate_workflow(WORKFLOW).returncode == 0
    changed = tmp_path / "ci.yml"
    changed.write_text(WORKFLOW.read_text(encoding="utf-8").replace("runs-on", "run-on"), encoding="utf-8")
    assert validate_workflow(changed).returncode == 1


def test_the_workflow_runs_make_with_few_rights_and_pinned_actions():
    workflow = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))
    (job,) = workflow["jobs"].values()
    assert workflow["permissions"] == {"contents": "read"}
    assert "permissions" not in job
    targets = [word for step in job["steps"] for word in step.get("run", "").split()[1:] if "=" not in word]
    (line,) = (line for line in (ROOT / ".ci/run").read_text(encoding="utf-8").splitlines() if line.startswith("make "))
    assert targets == line.split()[1:]
    actions = [step["uses"] for step in job["steps"] if "uses" in step]
    assert [action for action in actions if not re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", action)] == []

"""cloudbuild.yaml against Cloud Build's schema, and against what it names here."""

import re
import shutil
import subprocess
import sysconfig

import pytest
import yaml
from fakes import containers
from helpers import ROOT

from trainer import __version__

PATH = ROOT / "cloudbuild.yaml"
TEXT = PATH.read_text(encoding="utf-8")
CONFIG = yaml.safe_load(TEXT)
STEPS = {step["id"]: step for step in CONFIG["steps"]}
IMAGES = {name: step["args"] for name, step in STEPS.items() if step["args"][0] == "build"}
# In every build, however started: https://cloud.google.com/build/docs/configuring-builds/substitute-variable-values
BUILT_IN = {"PROJECT_ID", "BUILD_ID", "PROJECT_NUMBER", "LOCATION"}


def held_against_the_schema(path) -> subprocess.CompletedProcess:
    command = [f"{sysconfig.get_path('scripts')}/check-jsonschema", "--builtin-schema", "vendor.cloudbuild", path]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_schema_holds_and_would_not_with_a_misspelt_key(tmp_path):
    assert held_against_the_schema(PATH).returncode == 0
    (tmp_path / "cloudbuild.yaml").write_text(TEXT.replace("machineType", "machineTyp"), encoding="utf-8")
    assert "machineTyp" in held_against_the_schema(tmp_path / "cloudbuild.yaml").stdout


def test_the_checks_come_before_the_images():
    assert list(STEPS) == ["checks", "test", "smoke", "cpu", "gpu", "tpu"]


@pytest.mark.parametrize("target", [step["args"][0] for step in STEPS.values() if step.get("entrypoint") == "make"])
def test_a_make_target_is_there_and_documented(target):
    planned = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True)
    assert planned.returncode == 0, planned.stderr
    assert f"make {target} " in subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True).stdout


def test_the_continuous_checks_are_the_same_here_and_there():
    (line,) = (line for line in (ROOT / ".ci/run").read_text(encoding="utf-8").splitlines() if line.startswith("make "))
    assert line.split()[1:] == ["checks", "test"] == list(STEPS)[:2]


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_is_built_from_a_dockerfile_that_takes_its_arguments(name):
    flags = dict(flag.removeprefix("--").split("=", 1) for flag in IMAGES[name][1:-1])
    arguments = [value[0].split("=")[0] for value in containers.values(flags["file"], "ARG")]
    if "build-arg" in flags:
        argument, value = flags["build-arg"].split("=")
        assert argument in arguments
        assert (ROOT / f"requirements/{value}.lock").exists()
    assert flags["tag"] in CONFIG["images"]
    assert flags["tag"].endswith(f"/hubtune{'' if name == 'cpu' else f'-{name}'}:${{_VERSION}}")
    assert IMAGES[name][-1] == "."


def test_every_image_that_is_pushed_is_built():
    assert CONFIG["images"] == [args[-2].removeprefix("--tag=") for args in IMAGES.values()]


def test_every_substitution_is_declared_and_used():
    body = yaml.safe_dump({key: value for key, value in CONFIG.items() if key != "substitutions"})
    used = set(re.findall(r"\$\{?(\w+)\}?", body))
    assert used - BUILT_IN == set(CONFIG["substitutions"])  # the service refuses one that is declared and not used


def test_the_images_version_is_the_package_s():
    assert CONFIG["substitutions"]["_VERSION"] == __version__


def test_make_smoke_runs_what_its_preset_documents(tmp_path):
    """In a folder where nothing is made yet."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    preset = (ROOT / "configs/smoke.yaml").read_text(encoding="utf-8")
    documented = re.findall(r"^#\s+(python .*)$", preset, re.MULTILINE)
    command = ["make", "--dry-run", "--assume-old=.venv/installed", "smoke"]
    planned = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    ours = [line.removeprefix(".venv/bin/") for line in planned.splitlines() if line.startswith(".venv/bin/python ")]
    assert len(documented) == 3
    assert ours == documented

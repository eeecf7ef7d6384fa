"""What the set-up installs, by real pips, when the index offers newer releases than the locks have."""

import hashlib
import importlib.metadata
import json
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections import defaultdict
from pathlib import Path

import pytest
from fakes import containers
from helpers import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

# The one of Python 3.11.7 and 3.12.1, whose resolver refuses an extra's newer release, and the newest.
PIPS = ("pip==23.2.1", "pip")
LOCKS = ("build", "common", "cpu", "tpu", "development")


def requirements_with_extras() -> dict[str, list[Requirement]]:
    """Installed package -> what it requires of another installed package with an extra: google-auth[pyopenssl]."""
    installed = {canonicalize_name(found.metadata["Name"]): found for found in importlib.metadata.distributions()}
    result = defaultdict(list)
    for name, distribution in installed.items():
        for requirement in map(Requirement, distribution.requires or []):
            applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            if requirement.extras and applies and canonicalize_name(requirement.name) in installed:
                result[name].append(requirement)
    return dict(result)


REQUIREMENTS = requirements_with_extras()
REQUIRED = {canonicalize_name(line.name) for lines in REQUIREMENTS.values() for line in lines}
LOCKED = {name: importlib.metadata.version(name) for name in sorted({*REQUIREMENTS, *REQUIRED})}


def write_wheel(folder: Path, name: str, version: str) -> Path:
    """An empty package with the metadata of the real one, as far as extras go."""
    module = name.replace("-", "_")
    requires = [f"Requires-Dist: {line}" for line in REQUIREMENTS.get(name, [])]
    extras = {extra for lines in REQUIREMENTS.values() for line in lines if line.name == name for extra in line.extras}
    provides = [f"Provides-Extra: {extra}" for extra in sorted(extras)]
    info = f"{module}-{version}.dist-info"
    files = {
        f"{info}/METADATA": "\n".join(
            ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *provides, *requires, ""]
        ),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    path = folder / f"{module}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for inside, text in files.items():
            wheel.writestr(inside, text)
    return path


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A folder with small locks by the real ones' names, and an index that also offers newer releases."""
    folder = tmp_path_factory.mktemp("project")
    for part in ("requirements", "index"):
        (folder / part).mkdir()
    lock = ""
    for name, version in LOCKED.items():
        digest = hashlib.sha256(write_wheel(folder / "index", name, version).read_bytes()).hexdigest()
        lock += f"{name}=={version} --hash=sha256:{digest}\n"
        write_wheel(folder / "index", name, f"{version}.1")
    for name in LOCKS:
        (folder / f"requirements/{name}.lock").write_text(lock if name == "common" else "", encoding="utf-8")
    return folder


@pytest.fixture(params=PIPS)
def environment(request, project, tmp_path) -> Path:
    """A folder like `project` with a .venv that has this pip and nothing else."""
    for part in ("requirements", "index"):
        (tmp_path / part).symlink_to(project / part)
    uv = f"{sysconfig.get_path('scripts')}/uv"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, tmp_path / ".venv"], check=True, timeout=600)
    install = [uv, "pip", "install", "--quiet", "--python", tmp_path / ".venv/bin/python", request.param]
    subprocess.run(install, check=True, timeout=600)
    return tmp_path


def run(command: str, folder: Path) -> subprocess.CompletedProcess:
    """A shell command in this folder's environment, whose index is the local one."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PIP_", "PYTHON"))}
    settings = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder / "index")}
    variables = {**kept, **settings, "PATH": f"{folder / '.venv/bin'}:{os.environ['PATH']}"}
    return subprocess.run(command, shell=True, cwd=folder, env=variables, capture_output=True, text=True, timeout=600)


def installed(folder: Path) -> dict[str, str]:
    listed = run("pip list --format=json --disable-pip-version-check", folder)
    return {package["name"]: package["version"] for package in json.loads(listed.stdout) if package["name"] != "pip"}


def planned(folder: Path, *arguments: str) -> list[str]:
    """The commands that make would run there, without the variables of a make that runs these tests."""
    kept = {key: value for key, value in os.environ.items() if key not in ("MAKEFLAGS", "MFLAGS", "PYTHON")}
    command = ["make", "--dry-run", *arguments]
    done = subprocess.run(command, cwd=folder, env=kept, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def make_lines(target: str) -> list[str]:
    """The target's commands that install from a lock."""
    return [line for line in planned(ROOT, "--always-make", target) if ".lock" in line]


def image_line(dockerfile: str) -> str:
    (line,) = (run for (run,) in containers.values(dockerfile, "RUN") if ".lock" in run)
    return line.replace("${ACCELERATOR}", "cpu")


SET_UPS = {
    "Makefile": " && ".join(make_lines(".venv/packages")),
    "Dockerfile": image_line("Dockerfile"),
    "Dockerfile.tpu": image_line("Dockerfile.tpu"),
}


def test_some_packages_are_required_with_an_extra():
    assert {"google-auth", "google-api-core", "etils"} <= REQUIRED


@pytest.mark.parametrize("name", SET_UPS)
def test_the_locked_releases_are_installed_though_newer_ones_exist(name, environment):
    done = run(SET_UPS[name], environment)
    assert done.returncode == 0, done.stderr
    assert installed(environment) == LOCKED


@pytest.mark.parametrize("environment", PIPS[:1], indirect=True)
def test_a_resolver_would_refuse_the_newer_releases(environment):
    """So the test above fails without --no-deps."""
    done = run(SET_UPS["Makefile"].replace(" --no-deps", ""), environment)
    assert done.returncode != 0
    assert installed(environment) == {}


ENVIRONMENTS = (".venv-tpu-trace/installed", ".venv-tpu-compile/installed", ".venv-peers/installed")


@pytest.mark.parametrize("target", [".venv/packages", *ENVIRONMENTS])
def test_every_environment_is_installed_by_its_locks_alone(target):
    for line in make_lines(target):
        assert {"--require-hashes", "--no-deps"} <= set(shlex.split(line))


def test_the_builders_are_installed_before_what_they_build():
    builders, packages = make_lines(".venv/packages")
    assert "requirements/build.lock" in builders
    assert "--no-build-isolation" in packages


STAMPS = (".venv/packages", ".venv/installed", *ENVIRONMENTS)


@pytest.mark.parametrize(
    ("existing", "arguments", "recreated"),
    [
        ("3.9", [f"PYTHON={sys.executable}"], True),
        (f"{sys.version_info.major}.{sys.version_info.minor}", [f"PYTHON={sys.executable}"], False),
        ("3.9", [], False),
    ],
)
def test_an_environment_of_another_python_is_recreated(existing, arguments, recreated, tmp_path):
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    for stamp in STAMPS:
        (tmp_path / stamp).parent.joinpath(f"lib/python{existing}").mkdir(parents=True, exist_ok=True)
        (tmp_path / stamp).touch()
    venvs = [line.split()[-1] for line in planned(tmp_path, *arguments, *STAMPS) if " -m venv " in line]
    assert venvs == ([".venv", ".venv-tpu-trace", ".venv-tpu-compile", ".venv-peers"] if recreated else [])

"""The locks agree with each other, with what they were made from, and with the registry."""

import re
import subprocess
import sysconfig
import tomllib

import pytest
from helpers import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PATHS = {path.stem: path for path in [ROOT / "requirements.lock", *(ROOT / "requirements").glob("*.lock")]}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# One loads beside TensorFlow, the other compiles for every TPU: they never meet in one environment.
TWICE = {"libtpu"}


def entries(text: str) -> dict[str, tuple[str, set[str]]]:
    """Package -> (its version, the sums of its files)."""
    found = {}
    for entry in re.split(r"\n(?=\S)", text):
        if not entry.startswith("#"):
            pin = re.match(r"([a-z0-9-]+)==(\S+)", entry)
            assert pin, entry
            found[pin[1]] = pin[2], set(re.findall(r"--hash=sha256:([0-9a-f]{64})\b", entry))
    return found


LOCKS = {name: entries(path.read_text(encoding="utf-8")) for name, path in PATHS.items()}
MAIN, CPU, GPU, TPU = (set(LOCKS[name]) for name in ("requirements", "cpu", "gpu", "tpu"))


def lines(name: str) -> list[Requirement]:
    """What a lock is made from, beside pyproject.toml."""
    read = (
        line.split("#")[0].strip() for line in (ROOT / "requirements" / name).read_text(encoding="utf-8").split("\n")
    )
    return [Requirement(line) for line in read if line]


@pytest.mark.parametrize("name", sorted(LOCKS))
def test_every_pin_has_its_sums(name):
    assert len(LOCKS[name]) > 3
    assert not [package for package, (_, sums) in LOCKS[name].items() if not sums]


def test_a_package_has_the_same_version_in_every_lock():
    versions: dict[str, set[str]] = {}
    for lock in LOCKS.values():
        for package, (version, _) in lock.items():
            versions.setdefault(package, set()).add(version)
    assert {package for package, seen in versions.items() if len(seen) > 1} == TWICE


def test_the_lean_locks_are_the_main_one_without_what_only_developers_and_submitters_need():
    assert CPU < MAIN
    extras = [Requirement(line).name for lines in PROJECT["optional-dependencies"].values() for line in lines]
    needed = {"cryptography"}  # by what a job needs, too
    assert CPU & {canonicalize_name(name) for name in extras} <= needed


def test_a_gpu_s_lock_adds_nvidia_s_libraries_and_nothing_else():
    assert CPU < GPU
    assert {"nvidia-cudnn-cu12", "nvidia-nccl-cu12", "nvidia-cuda-nvcc-cu12"} <= GPU - CPU
    assert all(name.startswith("nvidia-") for name in GPU - CPU)


def test_a_tpu_s_lock_has_its_tensorflow_in_the_place_of_the_other():
    assert ({"tensorflow"}, {"tensorflow-tpu", "libtpu"}) == (CPU - TPU, TPU - CPU)
    assert LOCKS["tpu"]["libtpu"][0] in ("0.0.14", "0.0.24")  # those that TensorFlow 2.20 was seen to load
    assert "libtpu" not in LOCKS["tpu-trace"]  # it would look for a TPU


@pytest.mark.parametrize(
    ("lock", "made_from"),
    [
        ("requirements", [line for extra in PROJECT["optional-dependencies"].values() for line in extra]),
        *((name, PROJECT["dependencies"]) for name in ("requirements", "cpu", "gpu")),
        ("tpu", [line for line in PROJECT["dependencies"] if not line.startswith("tensorflow==")]),
        *((path.stem, map(str, lines(path.name))) for path in (ROOT / "requirements").glob("*.in")),
    ],
)
def test_a_lock_holds_what_it_is_made_from(lock, made_from):
    for requirement in map(Requirement, made_from):
        version, _ = LOCKS[lock][canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), requirement


@pytest.mark.parametrize(
    "name", ["requirements", "build", "gpu", "tpu", "tpu-compile"]
)  # the others are parts of these
def test_the_sums_are_those_of_the_registry(name):
    pins = "\n".join(f"{package}=={version}" for package, (version, _) in LOCKS[name].items())
    command = [f"{sysconfig.get_path('scripts')}/uv", "pip", "compile", "--quiet", "--no-deps", "--generate-hashes"]
    options = ["--python-version=3.11", "--python-platform=x86_64-manylinux_2_36", "--no-annotate", "--no-header", "-"]
    done = subprocess.run([*command, *options], input=pins, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    theirs = entries(done.stdout)
    assert not [package for package, (_, sums) in LOCKS[name].items() if not sums <= theirs[package][1]]

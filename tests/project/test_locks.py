"""The locks agree with each other, with what they were made from, and with the registry."""

import re
import subprocess
import sysconfig
import tomllib

import pytest
from helpers import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PATHS = {path.stem: path for path in (ROOT / "requirements").glob("*.lock")}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# tpu.lock has the version that TensorFlow loads, tpu-compile.lock the one that compiles for every TPU.
TWO_VERSIONS = {"libtpu"}
PYTHON_VERSIONS = ("3.11", "3.12", "3.13")
# Packages of pure Python without a wheel: build.lock's packages build them.
SOURCE_ONLY = ("promise", "seqeval")


def entries(text: str) -> dict[str, tuple[str, set[str]]]:
    """Package -> (its version, the sums of its files)."""
    found = {}
    for entry in re.split(r"\n(?=\S)", text):
        if not entry.startswith("#"):
            pin = re.match(r"([a-z0-9-]+)==(\S+)", entry)
            assert pin, entry
            assert pin[1] not in found  # one version for every Python
            found[pin[1]] = pin[2], set(re.findall(r"--hash=sha256:([0-9a-f]{64})\b", entry))
    return found


LOCKS = {name: entries(path.read_text(encoding="utf-8")) for name, path in PATHS.items()}
COMMON, CPU, GPU, TPU, DEVELOPMENT = (set(LOCKS[name]) for name in ("common", "cpu", "gpu", "tpu", "development"))


def lines(name: str) -> list[Requirement]:
    """What a lock is made from, in addition to pyproject.toml."""
    read = (
        line.split("#")[0].strip() for line in (ROOT / "requirements" / name).read_text(encoding="utf-8").split("\n")
    )
    return [Requirement(line) for line in read if line]


@pytest.mark.parametrize("name", sorted(LOCKS))
def test_every_pin_has_its_sums(name):
    assert LOCKS[name]
    assert not [package for package, (_, sums) in LOCKS[name].items() if not sums]


def test_a_package_has_the_same_version_in_every_lock():
    versions: dict[str, set[str]] = {}
    for lock in LOCKS.values():
        for package, (version, _) in lock.items():
            versions.setdefault(package, set()).add(version)
    assert {package for package, seen in versions.items() if len(seen) > 1} == TWO_VERSIONS


def test_what_is_installed_together_is_locked_once():
    for added in (CPU, GPU, TPU, DEVELOPMENT, CPU | DEVELOPMENT):
        assert not COMMON & added
    assert not CPU & DEVELOPMENT


def test_each_device_has_its_tensorflow():
    assert {"tensorflow"} == CPU
    assert {"nvidia-cudnn-cu12", "nvidia-nccl-cu12", "nvidia-cuda-nvcc-cu12"} <= GPU
    assert {name for name in GPU if not name.startswith("nvidia-")} == {"tensorflow"}
    assert {"tensorflow-tpu", "libtpu"} == TPU
    assert LOCKS["tpu"]["libtpu"][0] in ("0.0.14", "0.0.24")  # TensorFlow 2.20 loads these
    assert "libtpu" not in LOCKS["tpu-trace"]  # it would look for a TPU


def test_the_peers_have_what_torch_loads_and_no_more():
    """Its import fails without cuDNN; what compiles for GPUs would be gigabytes that nothing loads."""
    assert {"torch", "transformers", "nvidia-cudnn-cu13"} <= LOCKS["peers"].keys()
    assert not {"triton", "cuda-toolkit", "tensorflow"} & LOCKS["peers"].keys()


@pytest.mark.parametrize(
    ("names", "made_from"),
    [
        (("common", "cpu"), PROJECT["dependencies"]),
        (("common", "gpu"), PROJECT["dependencies"]),
        (("common", "tpu"), [line for line in PROJECT["dependencies"] if not line.startswith("tensorflow==")]),
        (("common", "development"), [line for extra in PROJECT["optional-dependencies"].values() for line in extra]),
        *(((path.stem,), map(str, lines(path.name))) for path in (ROOT / "requirements").glob("*.in")),
    ],
)
def test_locks_hold_what_they_are_made_from(names, made_from):
    locked = {package: version for name in names for package, (version, _) in LOCKS[name].items()}
    for requirement in map(Requirement, made_from):
        assert requirement.specifier.contains(locked[canonicalize_name(requirement.name)]), requirement


def pins(name: str) -> list[str]:
    """A lock's lines without the hashes: each package's version and marker."""
    return re.findall(r"^[a-z0-9-]+==.*(?= \\$)", PATHS[name].read_text(encoding="utf-8"), re.MULTILINE)


def uv(*arguments: str, **options) -> subprocess.CompletedProcess:
    command = [f"{sysconfig.get_path('scripts')}/uv", "pip", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, **options)


# The packages of tpu-trace.lock are those of common.lock and tpu.lock.
@pytest.mark.parametrize("name", sorted(set(LOCKS) - {"tpu-trace"}))
def test_the_sums_are_those_of_the_registry(name):
    options = ["--quiet", "--no-deps", "--generate-hashes", "--universal", "--no-annotate", "--no-header", "-"]
    done = uv("compile", *options, input="\n".join(pins(name)))
    assert done.returncode == 0, done.stderr
    registry = entries(done.stdout)
    assert not [package for package, (_, sums) in LOCKS[name].items() if not sums <= registry[package][1]]


@pytest.mark.parametrize("version", PYTHON_VERSIONS)
@pytest.mark.parametrize("name", sorted(LOCKS))
def test_every_package_has_a_wheel_for_each_python(name, version, tmp_path):
    """On Linux on x86-64, with a C library as old as the newest that a package here requires."""
    with_wheels = [pin for pin in pins(name) if pin.split("==")[0] not in SOURCE_ONLY]
    target = ["--target", str(tmp_path), "--python-version", version, "--python-platform", "x86_64-manylinux_2_31"]
    options = ["--dry-run", "--no-deps", "--only-binary=:all:", "--requirement", "-"]
    done = uv("install", *target, *options, input="\n".join(with_wheels))
    assert done.returncode == 0, done.stderr

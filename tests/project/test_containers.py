"""The images, as far as they go without Docker and without their accelerators."""

import os
import re
import subprocess
import sysconfig
import time
from pathlib import Path

import pytest
from fakes import containers
from fakes.containers import carry_out, fresh_environment, ignored, instructions, sources, values
from helpers import ROOT, excerpt

from trainer.runtime import trial

DOCKERFILES = ("Dockerfile", "Dockerfile.tpu")
IMAGES = [("Dockerfile", {}), ("Dockerfile", {"ACCELERATOR": "gpu"}), ("Dockerfile.tpu", {})]
PLATFORM = "x86_64-manylinux_2_36"  # Debian 12, the base image's


@pytest.mark.parametrize("name", DOCKERFILES)
def test_docker_s_own_parser_reads_every_instruction(name):
    known = {"FROM", "ARG", "ENV", "RUN", "WORKDIR", "COPY", "USER", "ENTRYPOINT"}
    assert {command.cmd for command in instructions(name)} == known
    assert values(name, "FROM") == [("python:3.11-slim-bookworm",)]


@pytest.mark.parametrize("name", DOCKERFILES)
def test_what_is_copied_is_there_and_let_through(name):
    for *paths, _ in values(name, "COPY"):
        for path in paths:
            for accelerator in ("cpu", "gpu"):
                assert sources(path.replace("${ACCELERATOR}", accelerator)), path


@pytest.mark.parametrize(
    "path", ["trainer/task.py", "scripts/predict.py", "configs/smoke.yaml", "requirements/common.lock"]
)
def test_dockerignore_lets_the_program_through(path):
    assert not ignored(path)


@pytest.mark.parametrize(
    "path",
    [
        ".git/config",
        ".venv/bin/python",
        "runs/a/result.json",
        "data/imdb",
        "tests/fakes/gcs.py",
        "trainer/__pycache__/x.pyc",
    ],
)
def test_dockerignore_keeps_out_what_is_large_or_private(path):
    assert ignored(path)


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_does_not_run_as_root(name):
    commands = [command.cmd for command in instructions(name)]
    assert commands[-2:] == ["USER", "ENTRYPOINT"]
    ((user,),) = values(name, "USER")
    defaults = dict(value[0].split("=") for value in values(name, "ARG"))
    user = defaults[user[2:-1]] if user.startswith("$") else user
    assert user not in ("root", "0")
    assert any(f"useradd --create-home --uid 1000 {user}" in run for (run,) in values(name, "RUN"))


@pytest.mark.parametrize("name", DOCKERFILES)
def test_the_one_command_that_runs_as_root_takes_the_metric_folder(name):
    (line,) = (run for (run,) in values(name, "RUN") if "sudo" in run)
    (rule,) = re.findall(r"echo '(.*)' > /etc/sudoers.d/hypertune", line)
    sudo, option, *command = trial.TAKE_SERVICE_FOLDER
    assert (sudo, option) == ("sudo", "--non-interactive")
    assert rule == f"trainer ALL=(root) NOPASSWD: {' '.join(command)}"
    assert f"install --directory --owner=trainer {trial.SERVICE_FOLDER}" in line
    assert "visudo --check" in line  # A file with an error, or with other rights than 0440, fails the build.


@pytest.mark.parametrize("name", DOCKERFILES)
def test_packages_are_installed_by_their_sums_before_the_code_comes(name):
    commands = [(command.cmd, " ".join(command.value)) for command in instructions(name)]
    (packages,) = (place for place, (_, text) in enumerate(commands) if ".lock" in text and text.startswith("pip "))
    (code,) = (place for place, text in enumerate(commands) if text == ("COPY", "trainer trainer"))
    assert packages < code
    for line in re.findall(r"pip install [^&]*", " && ".join(run for (run,) in values(name, "RUN"))):
        assert "--no-cache-dir" in line
        assert "--no-deps" in line
        assert "--require-hashes" in line or "--no-build-isolation --editable ." in line


UV = f"{sysconfig.get_path('scripts')}/uv"


def resolved(command: str) -> str:
    """The same installation by uv: what builds is installed, the rest resolved. (The sums: test_locks.py.)"""
    if ".lock" not in command:
        return "true"
    builders, packages = command.replace("pip install --no-cache-dir", f"{UV} pip install --quiet").split(" && ")[:2]
    return f"{builders} && {packages} --dry-run --python-platform {PLATFORM}"


@pytest.mark.parametrize(("name", "arguments"), IMAGES[1:])  # the CPU's packages are among the GPU's: test_locks.py
def test_every_pip_line_can_be_resolved(name, arguments, tmp_path):
    """By uv, which reads the packages' metadata alone: those of the GPU image are more than 3 GB."""
    build = carry_out(name, tmp_path / "root", fresh_environment(tmp_path / "environment"), arguments, resolved)
    assert len([line for line in build.ran if ".lock" in line]) == 1


def borrowed(command: str) -> str:
    """What builds is installed; the rest is what this environment has."""
    return command.split(" && ")[0]


def test_the_cpu_image_s_commands_run_with_packages_that_are_there_already(tmp_path):
    environment = fresh_environment(tmp_path / "environment")
    here = next(environment.glob("lib/python3.*/site-packages")) / "borrowed.pth"
    here.write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    build = carry_out("Dockerfile", tmp_path / "root", environment, {}, borrowed)
    assert [line.split()[0] for line in build.skipped] == ["useradd", "apt-get"]
    assert "--model_dir" in build.run([*build.entrypoint, "--help"]).stdout
    where = build.run(["python", "-c", "import trainer; print(trainer.__file__)"], cwd=tmp_path)
    assert where.stdout.strip() == str(build.here("trainer/__init__.py"))
    assert build.run([*build.entrypoint, "--set=no.such=key"]).returncode == 2


def smoke(build: containers.Build, folder: Path) -> None:
    """The three commands of configs/smoke.yaml, in the image's folder."""
    paths = {name: folder / name for name in ("encoder", "data", "run")}
    for command in (
        ["python", "scripts/import_encoder.py", "--source=random:tiny", f"--output={paths['encoder']}"],
        ["python", "scripts/prepare_data.py", "--task=movie_snippets", f"--encoder={paths['encoder']}"]
        + [f"--output={paths['data']}"],
        [*build.entrypoint, "--config=configs/smoke.yaml", "--strategy=cpu", f"--encoder={paths['encoder']}"]
        + [f"--data_dir={paths['data']}", f"--model_dir={paths['run']}"],
    ):
        done = build.run(command)
        assert done.returncode == 0, f"{command}\n{excerpt(done.stderr)}"
    assert "finished: 20 steps" in done.stdout
    assert (paths["run"] / "export/saved_model.pb").exists()


@pytest.mark.chaos
def test_the_cpu_image_is_made_and_trains_in_a_fresh_environment(tmp_path):
    """Downloads some 800 MB: the whole of the image but its base."""
    build = carry_out("Dockerfile", tmp_path / "root", fresh_environment(tmp_path / "environment"), {})
    assert build.run(["pip", "check"]).returncode == 0
    smoke(build, tmp_path)


@pytest.mark.chaos
def test_the_tpu_image_is_made_and_says_that_there_is_no_tpu(tmp_path):
    """Downloads some 700 MB. On a machine without a TPU the library of its runtime is there, and finds none."""
    (tmp_path / "root/lib").mkdir(parents=True)
    build = carry_out("Dockerfile.tpu", tmp_path / "root", fresh_environment(tmp_path / "environment"), {})
    library = tmp_path / "root/lib/libtpu.so"
    assert library.resolve().stat().st_size > 50e6
    build.variables |= {"TF_PLUGGABLE_DEVICE_LIBRARY_PATH": str(library), "TPU_SKIP_MDS_QUERY": "1"}
    begun = time.monotonic()
    done = build.run([*build.entrypoint, "--data_dir=data", "--model_dir=run"])
    assert done.returncode in (1, 2), excerpt(done.stderr)
    assert "TPU" in done.stderr.splitlines()[-1]
    assert time.monotonic() - begun < 60


@pytest.mark.skipif(not os.path.exists("/var/run/docker.sock"), reason="Docker's daemon is not running")
@pytest.mark.chaos
@pytest.mark.parametrize(("name", "arguments"), IMAGES)
def test_docker_builds_the_image(name, arguments):
    options = [f"--build-arg={key}={value}" for key, value in arguments.items()]
    subprocess.run(["docker", "build", "--file", name, *options, "."], cwd=ROOT, check=True)

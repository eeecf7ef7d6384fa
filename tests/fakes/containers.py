"""A Dockerfile without Docker: parsed by Docker's own parser, carried out in a folder and a fresh environment."""

import fnmatch
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import dockerfile
from helpers import ROOT, excerpt

# Of the base image's system, which a test has no second one of.
OF_THE_SYSTEM = ("useradd ", "apt-get ")


def instructions(name: str) -> list[dockerfile.Command]:
    return list(dockerfile.parse_file(str(ROOT / name)))


def values(name: str, instruction: str) -> list[tuple[str, ...]]:
    return [command.value for command in instructions(name) if command.cmd == instruction]


def ignored(path: str) -> bool:
    """Whether .dockerignore keeps a path from the build: the last line that fits it, or a folder above it, decides."""
    found = False
    parts = PurePosixPath(path)
    above = [str(parts), *(str(parent) for parent in parts.parents if str(parent) != ".")]
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        pattern = line.removeprefix("!").strip()
        if pattern and not pattern.startswith("#"):
            names = [pattern, pattern.removeprefix("**/")]
            if any(fnmatch.fnmatchcase(place, name) for place in above for name in names):
                found = not line.startswith("!")
    return found


def sources(path: str) -> list[Path]:
    """The files that COPY takes from this path of the project."""
    under = ROOT / path
    found = sorted(under.rglob("*")) if under.is_dir() else [under]
    return [file for file in found if file.is_file() and not ignored(file.relative_to(ROOT).as_posix())]


@dataclass
class Build:
    """The state that instructions change. WORKDIR is made under `root`; the environment is what `python` belongs to."""

    root: Path
    environment: Path
    arguments: dict[str, str] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    folder: str = "/"
    skipped: list[str] = field(default_factory=list)
    ran: list[str] = field(default_factory=list)
    entrypoint: list[str] = field(default_factory=list)

    def expand(self, text: str) -> str:
        return re.sub(r"\$\{(\w+)\}", lambda name: {**self.arguments, **self.variables}[name[1]], text)

    def here(self, path: str) -> Path:
        return self.root / os.path.join(self.folder, path).lstrip("/")

    def process(self) -> dict[str, str]:
        """The environment of a command: the machine's without what is Python's, then ENV's."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "TF_"))}
        path = f"{self.environment / 'bin'}:{os.environ['PATH']}"
        return {**kept, **self.variables, "PATH": path, "VIRTUAL_ENV": str(self.environment)}

    def run(self, command: list[str] | str, **options) -> subprocess.CompletedProcess:
        settings = {"capture_output": True, "text": True, "timeout": 900, "cwd": self.here(".")}
        shell = isinstance(command, str)
        return subprocess.run(command, shell=shell, env=self.process(), **{**settings, **options})


def carry_out(
    name: str, root: Path, environment: Path, arguments: dict[str, str], instead=lambda command: command
) -> Build:
    """Carry out a Dockerfile's instructions; `instead` may give another shell command in the place of a RUN's."""
    build = Build(root, environment)
    for command in instructions(name):
        match command.cmd:
            case "ARG":
                key, _, default = command.value[0].partition("=")
                build.arguments[key] = arguments.get(key, default)
            case "ENV":
                pairs = zip(command.value[::2], command.value[1::2], strict=True)
                build.variables |= {key: build.expand(value) for key, value in pairs}
            case "WORKDIR":
                build.folder = command.value[0]
                build.here(".").mkdir(parents=True, exist_ok=True)
            case "COPY":
                *paths, target = map(build.expand, command.value)
                for path in paths:
                    copy(path, build.here(target), whole=len(paths) == 1 and not target.endswith("/"))
            case "RUN":
                line = build.expand(command.value[0])
                if line.startswith(OF_THE_SYSTEM):
                    build.skipped.append(line)
                    continue
                done = build.run(instead(line).replace(" /lib/", f" {root}/lib/"))
                assert done.returncode == 0, f"{line}\n{excerpt(done.stderr)}"
                build.ran.append(line)
            case "ENTRYPOINT":
                assert command.json  # with a shell before it, SIGTERM would not reach Python
                build.entrypoint = list(command.value)
            case other:
                assert other in ("FROM", "USER"), f"{other} is not carried out"
    return build


def copy(path: str, target: Path, whole: bool) -> None:
    """A folder's contents, or a file, to `target`: itself the file if `whole`, else the folder that it goes into."""
    files = sources(path)
    assert files, f"COPY {path}: nothing that .dockerignore lets through"
    for file in files:
        inside = file.relative_to(ROOT / path)
        to = target / inside if file != ROOT / path else (target if whole else target / file.name)
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, to)


def fresh_environment(folder: Path) -> Path:
    """An environment with pip alone, as the base image has it."""
    uv = [f"{sysconfig.get_path('scripts')}/uv", "venv", "--quiet", "--seed", "--python", sys.executable]
    subprocess.run([*uv, folder], check=True, timeout=120)
    return folder

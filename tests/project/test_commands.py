"""The commands of migrating.md, recipes.md and troubleshooting.md: their flags and settings are those of the commands.

Each is parsed as its program parses it, and its settings are checked. None is run, but for the loop of recipes.md.
"""

import json
import re
import shlex
import subprocess

import pytest
import yaml
from helpers import ROOT, outcome

from trainer.sweeps import space

PAGES = ("migrating", "recipes", "troubleshooting")
BLOCK = re.compile(r"^```sh( \w+)?\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"python (?:-m (trainer\.\w+)|(scripts/\w+\.py))( .*?)?(?=;|$)")


def read_page(name: str) -> str:
    return (ROOT / f"docs/{name}.md").read_text(encoding="utf-8")


def commands_by_program() -> dict[str, list[list[str]]]:
    """Program -> the arguments of each of its commands in blocks."""
    found: dict[str, list[list[str]]] = {}
    for page in PAGES:
        for _, block in BLOCK.findall(read_page(page)):
            for line in block.splitlines():
                for module, script, arguments in COMMAND.findall(line):
                    found.setdefault(module or script, []).append(shlex.split(arguments))
    return found


COMMANDS = commands_by_program()

# Prints the problems of each command: of its flags, of the settings among them, and of a preparation's arguments.
PARSE = """
import json, runpy, sys
from absl import flags
from trainer.errors import UsageError

program, commands = sys.argv[1], json.loads(sys.argv[2])
if program.endswith(".py"):
    defined = runpy.run_path(program, run_name="flags")
else:
    defined = runpy.run_module(program, run_name="flags")
config_flags = sys.modules.get("trainer.config.flags")
from trainer.config import loading
from trainer.data import task_rows
from trainer.runtime import app

def problems_of(arguments):
    flags.FLAGS.unparse_flags()
    flags.FLAGS.set_gnu_getopt()
    try:
        rest = flags.FLAGS([program, *arguments], known_only=True)
        found = app.find_argument_problems(rest, texts="predict" in program or "compare" in program)
        if config_flags:
            settings = config_flags.given_settings(found)
            loading.load_config(config_flags.CONFIG.value, (), settings)
        if "prepare" in program and not defined["INSPECT"].value:
            options = {"task": defined["TASK"].value, "source": defined["SOURCE"].value, **defined["source_options"]()}
            options = task_rows.SourceOptions(**options)
            found += task_rows.find_argument_problems(options, defined["OUTPUT"].value)
        return list(map(str, found))
    except (UsageError, flags.Error) as error:
        return [str(error)]

print(json.dumps([problems_of(arguments) for arguments in commands]))
"""


def problems_of(program: str, commands: list[list[str]]) -> list[list[str]]:
    code, printed, error = outcome(PARSE, program, json.dumps(commands))
    assert code == 0, error
    return json.loads(printed)


@pytest.mark.parametrize("program", COMMANDS)
def test_the_commands_of_the_pages_are_accepted(program):
    found = problems_of(program, COMMANDS[program])
    assert found == [[] for _ in COMMANDS[program]]


@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        ("trainer.task", ["--data_dri=data/mine"]),
        ("trainer.task", ["--training.epochs=many"]),
        ("trainer.task", ["--mode=guess"]),
        ("scripts/prepare_data.py", ["--task=csv", "--output=data/mine"]),
        ("scripts/predict.py", ["--model=runs/mine/export", "--top=3", "a text"]),
    ],
)
def test_a_command_that_would_be_refused_is_noticed(program, arguments):
    assert len(problems_of(program, [arguments])[0]) == 1


def test_the_pages_have_commands_of_every_program_that_users_start():
    assert {"trainer.task", *(f"scripts/{name}.py" for name in ("import_encoder", "prepare_data", "predict"))} <= set(
        COMMANDS
    )


def test_the_space_of_a_recipe_is_a_space(tmp_path):
    (text,) = re.findall(r"^```yaml space\n(.*?)^```", read_page("recipes"), re.MULTILINE | re.DOTALL)
    path = tmp_path / "space.yaml"
    path.write_text(text, encoding="utf-8")
    assert set(space.read_space(str(path)).keys) == set(yaml.safe_load(text)["grid"])


@pytest.mark.parametrize(("codes", "expected", "runs"), [((75, 75, 0), 0, 3), ((75, 1), 1, 2), ((0,), 0, 1)])
def test_the_loop_starts_a_stopped_job_again_and_no_failed_one(tmp_path, codes, expected, runs):
    (loop,) = (block for name, block in BLOCK.findall(read_page("recipes")) if name == " loop")
    job = tmp_path / "python"
    job.write_text(
        f"#!/bin/bash\ncodes=({' '.join(map(str, codes))})\necho >> {tmp_path}/runs\n"
        f"exit ${{codes[$(wc -l < {tmp_path}/runs) - 1]}}\n"
    )
    job.chmod(0o755)
    done = subprocess.run(["bash", "-c", loop], env={"PATH": f"{tmp_path}:/usr/bin:/bin"})
    assert done.returncode == expected
    assert len((tmp_path / "runs").read_text().splitlines()) == runs

"""The commands of docs/recipes.md, run as they are, in a folder where encoders/minilm is a tiny encoder.

Changed are the lengths of runs, and the seeds and the settings of the sweep. What is submitted is printed instead, and
several GPUs are two parts of the CPU.
"""

import random
import re
import shlex
from collections.abc import Iterable
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from helpers import PLAIN, ROOT, python, write_reviews

PAGE = (ROOT / "docs/recipes.md").read_text(encoding="utf-8")
_PARTS = re.split(r"^## (.*)\n", PAGE, flags=re.MULTILINE)
RECIPES = dict(zip(_PARTS[1::2], _PARTS[2::2], strict=True))
TRAINS = ("-m trainer.task --data", "-m trainer.task --strategy", "scripts/sweep.py")
SHORT = "--training.epochs=0.2 --training.save_every=2 --logging.report=off --logging.progress=off"
SPACE = "grid: {optimizer.learning_rate: [5e-5], model.freeze: [none, 'layers:1']}\n"


def commands(recipe: str) -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)^```", RECIPES[recipe], re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def words(rng: random.Random, count: int, *others: object) -> str:
    return " ".join([*rng.choices(PLAIN, k=count), *map(str, others)])


def write_table(path: Path, header: str, rows: Iterable[tuple], delimiter: str = ",") -> None:
    lines = [header.split(","), *rows]
    path.write_text("".join(f"{delimiter.join(map(str, line))}\n" for line in lines), encoding="utf-8")


def write_sources(folder: Path, stars: bool) -> None:
    """The tables that the recipes name, of numbered texts. The reviews of one recipe have stars."""
    rng = random.Random(0)
    labels = rng.choices(["fraud", "other"], [1, 9], k=300)
    tickets = [(words(rng, 8, label[0], number), label) for number, label in enumerate(labels)]
    write_table(folder / "tickets.csv", "text,label", tickets)
    intents = [(words(rng, 6, f"topic{number % 25}", number), f"intent{number % 25}") for number in range(500)]
    write_table(folder / "intents.csv", "text,intent", intents)
    pairs = [(words(rng, 6, number), words(rng, 5, number), number % 2) for number in range(300)]
    write_table(folder / "questions.tsv", "question1,question2,duplicate", pairs, "\t")
    write_table(folder / "new.csv", "question1,question2", [pair[:2] for pair in pairs[:5]])
    texts = [words(rng, rng.randint(50, 900), number) for number in range(200)]
    documents = pyarrow.table({"text": texts, "label": ["ab"[number % 2] for number in range(200)]})
    pyarrow.parquet.write_table(documents, folder / "documents.parquet")
    if stars:
        reviews = [(words(rng, 5, number, *["great"] * (number % 5)), number % 5 + 1) for number in range(300)]
        write_table(folder / "reviews.csv", "text,stars", reviews)
    else:
        write_reviews(folder / "reviews.csv", 300)


@pytest.fixture
def folder(tiny, tmp_path):
    """Where the commands find the code, and the tiny encoder by another one's name."""
    for name in ("scripts", "configs", "trainer"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "encoders").mkdir()
    (tmp_path / "encoders/minilm").symlink_to(tiny)
    (tmp_path / "space.yaml").write_text(SPACE, encoding="utf-8")
    return tmp_path


def shortened(command: str, folder: Path) -> str:
    """The command with less to compute."""
    if "scripts/submit.py" in command:
        return command.replace("BUCKET", "bucket").replace("PROJECT", "project") + " --dry_run"
    if "runs/TRIAL/" in command:
        (trial, *_) = sorted((folder / "sweeps/small/runs").iterdir())
        return command.replace("TRIAL", trial.name)
    if not any(part in command for part in TRAINS):
        return command
    command = re.sub(r" --(training\.epochs|seeds)=\S+", "", command)
    return f"{command} {SHORT}" + (" --virtual_devices=2" if "mirrored" in command else "")


@pytest.mark.chaos
@pytest.mark.parametrize("recipe", RECIPES)
def test_the_commands_of_a_recipe_run(folder, recipe):
    write_sources(folder, stars=recipe == "Numbers and ratings")
    if recipe == "Several GPUs":
        prepare = ["--task=csv", "--source=reviews.csv", "--output=data/mine"]
        python("scripts/prepare_data.py", *prepare, cwd=folder, check=True)
    for command in commands(recipe):
        program, *arguments = shlex.split(shortened(command, folder))
        assert program == "python"
        print(python(*arguments, cwd=folder, timeout=900, check=True).stdout)


def test_every_recipe_has_a_command():
    assert [recipe for recipe in RECIPES if not commands(recipe)] == []

"""The commands of docs/recipes.md, run as they are, in a folder where encoders/minilm is a tiny encoder.

Changed are the lengths of runs, and the seeds and the settings of the sweep. What is submitted is printed instead, and
several GPUs are two parts of the CPU.
"""

import random
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from helpers import PLAIN, ROOT, excerpt, write_reviews

PAGE = (ROOT / "docs/recipes.md").read_text(encoding="utf-8")
_PARTS = re.split(r"^## (.*)\n", PAGE, flags=re.MULTILINE)
RECIPES = dict(zip(_PARTS[1::2], _PARTS[2::2], strict=True))
TRAINS = ("-m trainer.task --data", "-m trainer.task --strategy", "scripts/sweep.py")
SHORT = "--training.epochs=0.2 --training.save_every=2 --logging.report=off --logging.progress=off"
SPACE = "grid: {optimizer.learning_rate: [5e-5], model.freeze: [none, 'layers:1']}\n"


def commands(recipe: str) -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)^```", RECIPES[recipe], re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def words(rng: random.Random, count: int, *others: str) -> str:
    return " ".join([*rng.choices(PLAIN, k=count), *others])


def write_table(path: Path, header: str, rows, delimiter: str = ",") -> None:
    lines = [header, *(delimiter.join(map(str, row)) for row in rows)]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


@pytest.fixture
def folder(tiny, tmp_path):
    """Where the commands find what they name."""
    for name in ("scripts", "configs", "trainer"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "encoders").mkdir()
    (tmp_path / "encoders/minilm").symlink_to(tiny)
    (tmp_path / "space.yaml").write_text(SPACE, encoding="utf-8")
    rng = random.Random(0)
    kinds = [("fraud", "stolen")] + [("other", "invoice")] * 9
    tickets = [
        (words(rng, 8, clue, str(number)), label) for number in range(300) for label, clue in [rng.choice(kinds)]
    ]
    write_table(tmp_path / "tickets.csv", "text,label", tickets)
    intents = [(words(rng, 6, f"topic{number % 25}", str(number)), f"intent{number % 25}") for number in range(500)]
    write_table(tmp_path / "intents.csv", "text,intent", intents)
    pairs = [(words(rng, 6, str(number)), words(rng, 5, str(number)), "01"[number % 2]) for number in range(300)]
    write_table(tmp_path / "questions.tsv", "question1\tquestion2\tduplicate", pairs, "\t")
    write_table(tmp_path / "new.csv", "question1,question2", [pair[:2] for pair in pairs[:5]])
    long = {
        "text": [words(rng, rng.randint(50, 900), str(n)) for n in range(200)],
        "label": ["ab"[n % 2] for n in range(200)],
    }
    pyarrow.parquet.write_table(pyarrow.table(long), tmp_path / "documents.parquet")
    return tmp_path


def write_reviews_of(recipe: str, folder: Path) -> None:
    if recipe == "Numbers and ratings":
        rng = random.Random(1)
        stars = [(words(rng, 5, "great " * number), number + 1) for number in range(5) for _ in range(60)]
        write_table(
            folder / "reviews.csv", "text,stars", [(f"{n} {text}", star) for n, (text, star) in enumerate(stars)]
        )
    else:
        write_reviews(folder / "reviews.csv", 300)


def shortened(command: str, folder: Path) -> str:
    """The command with less to compute."""
    if "scripts/submit.py" in command:
        return f"{command} --dry_run"
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
    write_reviews_of(recipe, folder)
    if recipe == "Several GPUs":
        command = "scripts/prepare_data.py --task=csv --source=reviews.csv --output=data/mine"
        subprocess.run([sys.executable, *command.split()], cwd=folder, check=True, capture_output=True)
    for command in commands(recipe):
        program, *arguments = shlex.split(shortened(command, folder))
        assert program == "python"
        done = subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, f"{command}\n{excerpt(done.stderr)}"
        print(done.stdout)


def test_every_recipe_has_a_command():
    assert [recipe for recipe in RECIPES if not commands(recipe)] == []

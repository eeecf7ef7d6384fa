"""What several test modules share: reviews made by seed, processes of their own, and free addresses."""

import contextlib
import csv
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import preloaded
import pytest

from trainer.config import loading
from trainer.config.schema import Config
from trainer.export import predict

ROOT = Path(__file__).parent.parent
CRASHES = ROOT / ".pytest_cache/crashes.txt"


GOOD, BAD = ("wonderful", "brilliant", "superb"), ("awful", "dull", "dreadful")
PLAIN = "the a this film movie plot actor scene camera story music house city friend".split()  # noqa: SIM905


def review(rng: random.Random, positive: bool) -> str:
    """A text of 5 to 40 words, a few of which tell its label."""
    words = rng.choices(PLAIN, k=rng.randint(4, 36)) + rng.choices(GOOD if positive else BAD, k=rng.randint(1, 4))
    rng.shuffle(words)
    return " ".join(words)


def write_reviews(path: Path, rows: int, seed: int = 0) -> Path:
    """A CSV of numbered reviews, no two alike, with their labels."""
    rng = random.Random(seed)

    def draw() -> tuple[str, str]:
        positive = rng.random() < 0.5
        return review(rng, positive), "positive" if positive else "negative"

    return _write_table(path, (draw() for _ in range(rows)))


def _write_table(path: Path, rows: Iterable[tuple[str, str]]) -> Path:
    """A CSV of texts, each with its number before it, and labels."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows((f"{number}: {text}.", label) for number, (text, label) in enumerate(rows))
    return path


POINTS = {"awful": 80, "dull": 85, "decent": 90, "brilliant": 95, "superb": 100}


def write_points(path: Path, rows: int, seed: int = 0) -> Path:
    """A CSV of numbered texts and points of 79 to 101, which one of their words tells."""
    rng = random.Random(seed)

    def draw() -> tuple[str, str]:
        word = rng.choice(list(POINTS))
        words = [*rng.choices(PLAIN, k=rng.randint(3, 12)), word]
        rng.shuffle(words)
        return " ".join(words), f"{POINTS[word] + rng.uniform(-1, 1):.2f}"

    return _write_table(path, (draw() for _ in range(rows)))


# Label -> the word that tells it, and the share of texts that have it.
TOPICS = {"acting": ("stunt", 0.5), "music": ("tune", 0.3), "price": ("ticket", 0.15)}


def write_topics(path: Path, rows: int, seed: int = 0) -> Path:
    """A JSONL of numbered texts, each with the list of the labels that its words tell; of some texts it is empty."""
    rng = random.Random(seed)
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            topics = [topic for topic, (_, share) in TOPICS.items() if rng.random() < share]
            words = [*rng.choices(PLAIN, k=rng.randint(3, 8)), *(TOPICS[topic][0] for topic in topics)]
            rng.shuffle(words)
            file.write(json.dumps({"text": f"{number}: {' '.join(words)}.", "label": topics}) + "\n")
    return path


def long_but_for(quick: Iterable[Any], values: Iterable[Any]) -> list:
    """The values as parameters of a test: all but the quick ones have the mark `long`."""
    quick = list(quick)
    marks = {True: (), False: pytest.mark.long}
    tuples = ((value, value if isinstance(value, tuple) else (value,)) for value in values)
    return [pytest.param(*parts, marks=marks[value in quick]) for value, parts in tuples]


def python(*arguments: str | Path, **options) -> subprocess.CompletedProcess:
    """Run Python with these arguments in a process of its own, in the project's root. A command's may be preloaded."""
    command, check = [sys.executable, *map(str, arguments)], options.pop("check", False)
    options = {"cwd": ROOT, "capture_output": True, "text": True, "timeout": 900, **options}
    run = preloaded.run if preloaded.can_run(command, options) else subprocess.run
    done = run(command, **options)
    keep_first_lines(done.returncode, done.stderr)
    assert not check or not done.returncode, excerpt(done.stderr)
    return done


def task(*arguments: str | Path, **options) -> subprocess.CompletedProcess:
    """Run trainer.task with these arguments in a process of its own."""
    return python("-m", "trainer.task", *arguments, **options)


def excerpt(output: str) -> str:
    """The first lines of a process's output, where a crash is described, and the last, where an error is."""
    return output if len(output) < 6000 else f"{output[:3000]}\n[...]\n{output[-3000:]}"


def keep_first_lines(exit_code: int, output: str) -> None:
    """Keep what a process wrote if it crashed: pytest prints it if the test fails, and CRASHES has it in any case."""
    if exit_code >= 0 or -exit_code in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
        return
    text = f"A process died of {signal.Signals(-exit_code).name}:\n{excerpt(output)}"
    print(text)
    CRASHES.parent.mkdir(exist_ok=True)
    with CRASHES.open("a", encoding="utf-8") as file:
        file.write(f"{os.environ.get('PYTEST_CURRENT_TEST')}\n{text}\n\n")


def start(code: str, *arguments: object, **options) -> subprocess.Popen:
    """Python code in a process of its own, its output in pipes."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def outcome(code: str, *arguments: object, **options) -> tuple[int, str, str]:
    """(exit code, standard output, standard error) of Python code run in a process of its own."""
    with start(code, *arguments, **options) as process:
        try:
            out, error = process.communicate(timeout=600)
        finally:
            process.kill()
    keep_first_lines(process.returncode, error)
    return process.returncode, out, error


def run_in_tpu_trace_environment(code: str) -> str:
    """Return what Python code prints in .venv-tpu-trace. The TensorFlow of these tests cannot lower for TPUs."""
    done = subprocess.run(
        [ROOT / ".venv-tpu-trace/bin/python", "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, excerpt(done.stderr)
    return done.stdout


def labeled_blocks(page: str) -> dict[str, tuple[str, str]]:
    """The blocks of a page of docs/ that have a label after their language: label -> (language, text)."""
    text = (ROOT / f"docs/{page}.md").read_text(encoding="utf-8")
    found = re.findall(r"^```(\w+) ([\w-]+)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return {label: (language, text) for language, label, text in found}


def free_addresses(count: int) -> tuple[str, ...]:
    """This many different addresses of this host on which nothing listens."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return tuple(f"127.0.0.1:{s.getsockname()[1]}" for s in sockets)


def load_quietly(model_dir: Path) -> Config:
    """The configuration of the run in model_dir, without a progress bar and TensorBoard's events."""
    return loading.load_config(str(model_dir / "config.yaml"), ["logging.progress=off", "logging.tensorboard=off"])


def score_texts(signature: Any, rows: Iterable[str | Sequence[str]]) -> np.ndarray:
    """The scores that an export's signature gives texts or pairs: float32 [rows, classes]."""
    texts = [[row] if isinstance(row, str) else row for row in rows]
    return np.array([scores for scores, _, _ in predict.predict_texts(signature, texts)])


def random_encoder_inputs(rows: int, seq_length: int, vocab_size: int) -> dict[str, np.ndarray]:
    """{input_word_ids, input_mask, input_type_ids}: int32 [rows, seq_length]. The rows have several lengths."""
    rng = np.random.default_rng(3)
    values = {
        "input_word_ids": rng.integers(5, vocab_size, (rows, seq_length)),
        "input_mask": np.arange(seq_length) < rng.integers(2, seq_length, (rows, 1)),
        "input_type_ids": rng.integers(0, 2, (rows, seq_length)),
    }
    return {name: value.astype(np.int32) for name, value in values.items()}

"""What the measurements need: encoders, data sets, texts and exports, each made once by the commands that users run."""

import csv
import dataclasses
import itertools
import json
import logging
import random
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from trainer import child_process
from trainer.benchmarks import processes
from trainer.runtime.signals import StopRequest

ROOT = Path(__file__).parents[2]
# Repeated words: preparation costs time by the characters, and what they say does not matter.
_WORDS = "the a this film movie plot actor scene camera story music house city friend wonderful dull".split()  # noqa: SIM905
_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    batch: int = 32
    widths: tuple[int, ...] = (32, 128, 256)
    steps: int = 8  # Timed ones, of each width.
    eval_batches: int = 8
    eval_width: int = 256
    short_texts: int = 10_000
    long_texts: int = 1_000
    reviews: int = 2_000
    caps: tuple[int, ...] = (256, 512)
    epochs: float = 1.0
    all_reviews: int = 50_000
    calls: int = 200
    product: tuple[int, int, int] = (4096, 384, 1536)
    large_encoder: str = "bert_base"
    growth_widths: tuple[int, ...] = (32, 64, 128, 192, 256, 384, 512)
    growth_width: int = 128
    growth_batches: tuple[int, ...] = (4, 8, 16, 32, 64)
    documents: tuple[int, ...] = (5_000, 50_000, 500_000)
    document_steps: int = 2_000
    long_run_steps: int = 10_000


QUICK = Sizes(
    batch=4,
    widths=(8, 16),
    steps=2,
    eval_batches=2,
    eval_width=16,
    short_texts=40,
    long_texts=20,
    reviews=120,
    caps=(12, 16),
    epochs=0.02,
    all_reviews=200,
    calls=5,
    product=(64, 32, 48),
    large_encoder="tiny",
    growth_widths=(8, 16),
    growth_width=16,
    growth_batches=(2, 4),
    documents=(100, 200, 400),
    document_steps=20,
    long_run_steps=200,
)


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is measured, and where its inputs are kept."""

    encoder: str  # What scripts/import_encoder.py takes as --source.
    work: Path
    imdb: str | None = None
    peer_python: Path | None = None  # None: no peers.
    precision: str = "bfloat16"  # Of training steps. In float32, nothing is measured in bfloat16.
    sizes: Sizes = Sizes()

    def fingerprint(self) -> dict[str, object]:
        """What results have to have in common."""
        sizes = json.loads(json.dumps(dataclasses.asdict(self.sizes)))
        return {"encoder": self.encoder, "precision": self.precision, "sizes": sizes}


@dataclasses.dataclass(frozen=True)
class Inputs:
    """The paths of the inputs. A path is made when it is asked for."""

    settings: Settings
    request: StopRequest

    def _make(self, name: str, *command: str) -> Path:
        """The folder or file `name`, made by a command that writes to it, unless it is complete."""
        path = self.settings.work / name
        done = path.with_name(f"{path.name}.done")
        if not done.exists():
            _LOG.info("making %s", path)
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(path, ignore_errors=True)
            path.unlink(missing_ok=True)
            processes.run_process(f"The input {name}", command, path.with_name(f"{path.name}.log"), self.request)
            done.touch()
        return path

    def _script(self, name: str, script: str, *arguments: str, flag: str = "output") -> Path:
        path = self.settings.work / name
        return self._make(name, sys.executable, str(ROOT / "scripts" / script), *arguments, f"--{flag}={path}")

    def _written(self, name: str, kind: str, *arguments: str) -> Path:
        command = child_process.command("trainer.benchmarks.inputs", kind, str(self.settings.work / name), *arguments)
        return self._make(name, *command)

    def encoder(self, source: str = "") -> Path:
        source = source or self.settings.encoder
        return self._script(f"encoders/{source.replace(':', '_')}", "import_encoder.py", f"--source={source}")

    def movie_snippets(self) -> Path:
        encoder = f"--encoder={self.encoder()}"
        return self._script("data/movie_snippets", "prepare_data.py", "--task=movie_snippets", encoder)

    def movie_snippets_texts(self) -> Path:
        """A folder with train.jsonl, validation.jsonl and test.jsonl, of records with text and label."""
        return self._written("texts/movie_snippets", "splits", str(self.movie_snippets()))

    def table(self, rows: int) -> Path:
        """A .csv of reviews: IMDB's, repeated with new numbers before them if it has fewer; made up without IMDB."""
        return self._written(f"texts/reviews_{rows}.csv", "table", str(rows), self.settings.imdb or "")

    def reviews(self, rows: int, encoder: str = "") -> Path:
        """The table as a data set. `encoder` is what scripts/import_encoder.py takes."""
        name = f"data/reviews_{rows}{encoder.replace(':', '_')}"
        source = ("--task=csv", f"--source={self.table(rows)}", f"--encoder={self.encoder(encoder)}")
        return self._script(name, "prepare_data.py", *source)

    def reviews_texts(self, rows: int) -> Path:
        """As movie_snippets_texts."""
        return self._written(f"texts/reviews_{rows}", "splits", str(self.reviews(rows)))

    def short_texts(self) -> Path:
        """Movie snippets, a line each."""
        count = self.settings.sizes.short_texts
        return self._written(f"texts/short_{count}.txt", "lines", str(self.movie_snippets_texts()), str(count))

    def long_texts(self) -> Path:
        """Reviews, a line each."""
        count = self.settings.sizes.long_texts
        return self._written(f"texts/long_{count}.txt", "lines", str(self.reviews_texts(2 * count)), str(count))

    def run(self, eval_precision: str = "float32") -> Path:
        """A finished run whose weights are the encoder's own: its learning rate changes none. Its export is served."""
        return self._make(
            f"runs/{eval_precision}",
            *child_process.command("trainer.task", f"--encoder={self.encoder()}"),
            f"--data_dir={self.movie_snippets()}",
            f"--model_dir={self.settings.work / 'runs' / eval_precision}",
            *("--strategy=cpu", "--optimizer.learning_rate=1e-12", "--training.steps=2", "--logging.report=off"),
            *(f"--data.seq_length={self.settings.sizes.eval_width}", f"--eval_precision={eval_precision}"),
        )

    def hugging_face_encoder(self) -> Path:
        """The same encoder as a folder that transformers loads."""
        arguments = (f"--model_dir={self.run()}", "--format=hugging_face")
        return self._script("encoders/hugging_face", "export_encoder.py", *arguments)


# --- What no command of ours writes ----------------------------------------------------------------


def _reviews(imdb: str) -> Iterator[tuple[str, str]]:
    """(text, label) of IMDB's reviews, in an order by chance; made-up ones without its archive."""
    if imdb:
        from trainer.data import movie_reviews

        rows = [(row.text, str(row.label)) for row in movie_reviews.read_imdb(imdb, [])]
        random.Random(0).shuffle(rows)
        return itertools.cycle(rows)
    draw = random.Random(0)
    return ((" ".join(draw.choices(_WORDS, k=draw.randint(20, 400))), draw.choice("ab")) for _ in itertools.count())


def write_table(path: Path, rows: int, imdb: str) -> None:
    """Each text begins with its number, so that none is a copy."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        texts = itertools.islice(_reviews(imdb), rows)
        writer.writerows((f"{number} {text}", label) for number, (text, label) in enumerate(texts))


def write_splits(path: Path, data_dir: str) -> None:
    """SPLIT.jsonl of a data set's texts and labels."""
    from trainer.data import manifests, records

    manifest = manifests.read_manifest(data_dir)
    path.mkdir(parents=True)
    for split in manifest.splits:
        columns = records.read_split(data_dir, manifest, split, with_text=True)
        with (path / f"{split}.jsonl").open("w", encoding="utf-8") as file:
            for text, label in zip(columns.texts or [], columns.labels.tolist(), strict=True):
                file.write(json.dumps({"text": text, "label": label}) + "\n")


def write_lines(path: Path, folder: str, count: int) -> None:
    """The first `count` texts of what write_splits wrote, a line each."""
    lines = itertools.chain.from_iterable(
        (Path(folder) / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
        for split in ("train", "validation", "test")
    )
    texts = (" ".join(json.loads(line)["text"].split()) for line in lines)
    path.write_text("".join(f"{text}\n" for text in itertools.islice(texts, count)), encoding="utf-8")


def main(arguments: Sequence[str]) -> None:
    kind, path, *rest = arguments
    if kind == "table":
        write_table(Path(path), int(rest[0]), rest[1])
    elif kind == "splits":
        write_splits(Path(path), rest[0])
    else:
        write_lines(Path(path), rest[0], int(rest[1]))


if __name__ == "__main__":
    main(sys.argv[1:])

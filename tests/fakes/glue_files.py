"""Small files in the formats of GLUE's archives, with their traps. The archives themselves cannot be fetched here.

The texts are made by seed. Layouts after GLUE's own download script and the headers that users of its files quote.
"""

import random
import zipfile
from collections.abc import Iterator
from pathlib import Path

from helpers import review

LABELS_01 = ("0", "1")
ENTAILMENT = ("entailment", "not_entailment")
MNLI = ("entailment", "neutral", "contradiction")
_PARSES = ["( ( The film ) )", "( A film )", "(ROOT (S ...))", "(ROOT (NP ...))"]
SPLITS = ("train", "dev", "test")


def write_lines(path: Path, lines: list[list[str]], mark: str = "") -> None:
    """A file of tab-separated lines that begins with `mark`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((mark + "".join("\t".join(line) + "\n" for line in lines)).encode())


def _texts(rng: random.Random, number: int, label: int) -> tuple[str, str]:
    """Two texts, the first of which tells the label. Some have a quote that has no other."""
    quote = '"' if number % 5 == 0 else ""
    return f"{quote}{number} {review(rng, label == 0)}", f"{review(rng, label == 0)}{quote}"


def _rows(split: str, count: int, classes: int) -> Iterator[tuple[int, int, str, str]]:
    """(number, label, text, second text)."""
    rng = random.Random(SPLITS.index(split.partition("_")[0]))
    for number in range(count):
        label = number % classes
        yield number, label, *_texts(rng, number + 100_000 * SPLITS.index(split.partition("_")[0]), label)


def write_glue(folder: Path, train: int = 60, dev: int = 12, test: int = 8) -> Path:
    """glue_data/ with every task. The counts are those of the rows of each file."""
    sizes = {"train": train, "dev": dev, "test": test}
    for split, count in sizes.items():
        _write_single_texts(folder, split, count)
        _write_pairs(folder, split, count)
    for split in ("train", "dev_matched", "dev_mismatched", "test_matched", "test_mismatched"):
        _write_mnli(folder / "MNLI", split, sizes[split.partition("_")[0]])
    rows = [[str(n), a, b] for n, _, a, b in _rows("test", test, 3)]
    write_lines(folder / "diagnostic/diagnostic.tsv", [["index", "sentence1", "sentence2"], *rows])
    return folder


def _write_single_texts(folder: Path, split: str, count: int) -> None:
    rows = list(_rows(split, count, 2))
    if split == "test":
        lines = [["index", "sentence"], *([str(n), a] for n, _, a, _ in rows)]
        write_lines(folder / "CoLA/test.tsv", lines)
        write_lines(folder / "SST-2/test.tsv", lines)
        return
    write_lines(folder / f"CoLA/{split}.tsv", [["gj04", str(y), "" if y else "*", a] for _, y, a, _ in rows])
    # Sentences of SST-2 end in a space.
    write_lines(folder / f"SST-2/{split}.tsv", [["sentence", "label"], *([f"{a} ", str(y)] for _, y, a, _ in rows)])


def _write_pairs(folder: Path, split: str, count: int) -> None:
    rows, labeled = list(_rows(split, count, 2)), split != "test"

    def write(name: str, header: list[str], lines: list[list[str]], mark: str = "") -> None:
        write_lines(folder / f"{name}/{split}.tsv", [header, *lines], mark)

    first = "Quality" if labeled else "index"
    write(
        "MRPC",
        [first, "#1 ID", "#2 ID", "#1 String", "#2 String"],
        [[str(y if labeled else n), f"7{n}", f"8{n}", a, b] for n, y, a, b in rows],
        "\ufeff",
    )
    if labeled:
        lines = [[str(n), f"7{n}", f"8{n}", a, b, str(y)] for n, y, a, b in rows]
        broken = [["9999", "1", "2", "a question that ends in a line break"]] if split == "train" else []
        write("QQP", ["id", "qid1", "qid2", "question1", "question2", "is_duplicate"], lines + broken)
    else:
        write("QQP", ["id", "question1", "question2"], [[str(n), a, b] for n, _, a, b in rows])
    scores = [[f"{(0.8, 4.2)[y] + n % 5 / 10:.3f}"] if labeled else [] for n, y, _, _ in rows]
    write(
        "STS-B",
        ["index", "genre", "filename", "year", "old_index", "source1", "source2", "sentence1", "sentence2"]
        + ["score"] * labeled,
        [
            [str(n), "main-news", "MSRvid", "2012", f"{n:04d}", "none", "none", a, b, *score]
            for (n, _, a, b), score in zip(rows, scores, strict=True)
        ],
    )
    for name, columns, names in (
        ("QNLI", ["question", "sentence"], ENTAILMENT),
        ("RTE", ["sentence1", "sentence2"], ENTAILMENT),
        ("WNLI", ["sentence1", "sentence2"], LABELS_01),
    ):
        lines = [[str(n), a, b, *([names[y]] if labeled else [])] for n, y, a, b in rows]
        write(name, ["index", *columns, *(["label"] if labeled else [])], lines)


def _write_mnli(folder: Path, split: str, count: int) -> None:
    annotators = {"train": 1, "dev": 5}.get(split.partition("_")[0], 0)
    header = ["index", "promptID", "pairID", "genre", "sentence1_binary_parse", "sentence2_binary_parse"]
    header += ["sentence1_parse", "sentence2_parse", "sentence1", "sentence2"]
    header += [*(f"label{n}" for n in range(1, annotators + 1)), *(["gold_label"] if annotators else [])]
    lines = []
    for n, y, a, b in _rows(split, count, 3):
        labels = [MNLI[y]] * (annotators + 1) if annotators else []
        lines.append([str(n), f"6{n}", f"6{n}n", "slate", *_PARSES, a, b, *labels])
    write_lines(folder / f"{split}.tsv", [header, *lines])


def pack(folder: Path, archive: Path) -> Path:
    """A .zip that holds the folder under its name, and what a Mac adds."""
    with zipfile.ZipFile(archive, "w") as packed:
        for path in sorted(folder.rglob("*")):
            packed.write(path, path.relative_to(folder.parent))
        packed.writestr(f"__MACOSX/{folder.name}/._train.tsv", b"\0")
    return archive

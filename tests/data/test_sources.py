import json

import pytest

from trainer.data import sources
from trainer.data.sources import ColumnNames, Row
from trainer.errors import UserError

COLUMNS = ColumnNames("text", None, "label")
PAIRS = ColumnNames("question", "answer", "same")


def read(path, columns=COLUMNS, **options) -> tuple[list[Row], list[str]]:
    """(rows, bad rows)."""
    read = list(sources.read_table(str(path), columns, **options))
    return (
        [row for _, row in read if isinstance(row, Row)],
        [f"{number}: {row}" for number, row in read if isinstance(row, str)],
    )


# --- Tables ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("pair", [False, True])
def test_columns_of_a_table_become_rows(file, pair):
    lines = [{"label": i % 3, "text": f" text {i} ", "other": f"other {i}"} for i in range(5)]
    columns = ColumnNames("text", "other" if pair else None, "label")
    rows, bad = read(file("a.jsonl", "\n".join(map(json.dumps, lines))), columns, split="test", first_id=7)
    assert rows == [Row(7 + i, f" text {i} ", f"other {i}" if pair else None, str(i % 3), "test") for i in range(5)]
    assert not bad


def test_weights_and_kept_columns_become_those_of_rows(file):
    columns = ColumnNames("text", None, "label", weight="trust", kept=("from", "label"))
    text = "text,label,trust,from\na,1,0.5,web\nb,0,-1,web\nc,0,,web\nd,0,1e9,web\ne,0,2,\n"
    rows, bad = read(file("a.csv", text), columns)
    assert rows == [
        Row(0, "a", None, "1", "", None, 0.5, ("web", "1")),
        Row(4, "e", None, "0", "", None, 2.0, ("", "0")),
    ]
    assert bad == [
        f"{line}: no weight in 'trust', which is a number from 0 to 1e+06, but {value!r}"
        for line, value in ((3, "-1"), (4, ""), (5, "1e9"))
    ]
    line = '{"text": "a", "label": 1, "trust": 3, "from": ["x", null]}'
    rows, _ = read(file("a.jsonl", line), columns)
    assert rows == [Row(0, "a", None, "1", "", None, 3.0, ('["x", null]', "1"))]


def test_rows_that_cannot_be_used_keep_their_number(file):
    rows, bad = read(file("a.csv", 'text,label\ngood,1\nbad\n"two\nlines", 0 \n'))
    assert rows == [Row(0, "good", None, "1", ""), Row(2, "two\nlines", None, "0", "")]
    assert bad == ["3: 1 columns, not 2"]


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (" ,1", "2: an empty text in 'text'"),
        ('"",1', "2: an empty text in 'text'"),
        ("nan,1", "2: an empty text in 'text'"),
        ("good,", "2: an empty label in 'label'"),
        ("good,  ", "2: an empty label in 'label'"),
    ],
)
def test_empty_texts_and_labels_are_named_by_line(file, record, why):
    assert read(file("a.csv", f"text,label\n{record}\n")) == ([], [why])


@pytest.mark.parametrize("label", ["NA", "N/A", "NaN", "nan", "None", "NONE", "null", " Null ", "n/a", "#N/A", "<NA>"])
def test_labels_that_mean_none_are_named_by_line(file, label):
    rows, (bad,) = read(file("a.csv", f"text,label\ngood,1\nNone,{label}\nNA,0\n"))
    assert [row.text for row in rows] == ["good", "NA"]
    assert bad.startswith(f"3: a missing label in 'label', {label.strip()!r} (--missing_labels")


def test_a_name_for_no_label_may_be_a_class(file):
    path = file("a.csv", "text,label\na,none\nb,NA\n")
    rows, (bad,) = read(path, missing_labels=["na"])
    assert [row.label for row in rows] == ["none"]
    assert "'NA'" in bad


def test_values_of_json_are_texts_and_labels_or_named(file):
    values = [("a", 1), (5, 2.5), ("b", True), (None, 1), ("c", None), ("d", ["x"]), ("e", {"x": 1}), (["f"], 1)]
    path = file("a.json", json.dumps([{"text": text, "label": label} for text, label in values], indent=1))
    rows, bad = read(path)
    assert [(row.id, row.text, row.label) for row in rows] == [(0, "a", "1"), (1, "5", "2.5"), (2, "b", "true")]
    assert [reason.split(": ", 1)[1] for reason in bad] == [
        "an empty text in 'text'",
        "an empty label in 'label'",
        "a list as label in 'label' (--multi_label if a text may have several labels)",
        "an object as label in 'label'",
        "a list as text in 'text'",
    ]


WRITTEN_LISTS = {
    "\"['a', 'b']\"": "a list",
    "[]": "a list",
    "\"('a', 'b')\"": "a tuple",
    "\"{'a', 'b'}\"": "a set",
    "{'a': 1}": "an object",
    "\"{'a': 'b', 'c': 2}\"": "an object",
}


@pytest.mark.parametrize(("label", "what"), WRITTEN_LISTS.items())
def test_lists_in_a_csv_are_no_labels(file, label, what):
    _, (bad,) = read(file("a.csv", f"text,label\na,{label}\nb,[x]\nc,(x)\n"))
    advice = "" if what == "an object" else " (--multi_label if a text may have several labels)"
    assert bad == f"2: {what} as label in 'label'{advice}"


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_the_header_of_a_table_that_was_added_is_no_row(file, mark):
    table = "text,label\na,good\n"
    rows, (bad,) = read(file("a.csv", f"{table}{mark}{table}"))
    assert [row.text for row in rows] == ["a", "a"]
    assert bad.startswith("3: the header once more")


def test_an_empty_second_text_is_refused_by_its_column_or_allowed(file):
    path = file("a.csv", "question,answer,same\na,b,1\na,,0\nc,NaN,0\n,d,0\n")
    hint = "an empty text in 'answer' (--allow_empty_pairs if it may be)"
    rows, bad = read(path, PAIRS)
    assert rows == [Row(0, "a", "b", "1", "")]
    assert bad == [f"3: {hint}", f"4: {hint}", "5: an empty text in 'question'"]
    rows, bad = read(path, PAIRS, allow_empty_pairs=True)
    assert [row.text_b for row in rows] == ["b", "", ""]
    assert bad == ["5: an empty text in 'question'"]


def test_bad_rows_are_counted_and_the_first_are_shown():
    assert sources.find_bad_row_problems("a.csv", []) == []
    (problem,) = sources.find_bad_row_problems("a.csv", [f"line {line}: an empty text" for line in range(2, 9)])
    assert problem.setting == "Every row of a.csv"
    assert problem.received.startswith("7 rows that do not: line 2: an empty text; line 3: ")
    assert "line 6" in problem.received
    assert "line 7" not in problem.received
    assert "--bad_rows=skip" in problem.advice


def test_a_table_without_rows_is_refused(file):
    for name, content in (("a.csv", "text,label\n"), ("a.jsonl", "\n\n"), ("a.json", "[]")):
        with pytest.raises(UserError, match=rf"{name} must hold rows\. Received: none"):
            read(file(name, content))
    for content in ("", "\n\n"):
        with pytest.raises(UserError, match=r"must begin with a header\. Received: an empty file"):
            read(file("empty.csv", content))


# --- A folder for each class ----------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    """A function of (path, content) -> a folder with these files."""

    def write(files: dict[str, str | bytes]):
        for name, content in files.items():
            path = tmp_path / "folder" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(tmp_path / "folder")

    return write


def test_folders_are_classes_and_paths_are_ids(folder):
    path = folder({"pos/b": "B\n", "pos/deep/a.txt": "A", "neg/c.md": "C", "README": "no", ".git/x": "", "neg/.x": ""})
    assert list(sources.read_class_folders(path, "test")) == [
        (name, Row(name, text, None, label, "test"))
        for name, text, label in (
            ("neg/c.md", "C", "neg"),
            ("pos/b", "B\n", "pos"),
            ("pos/deep/a.txt", "A", "pos"),
        )
    ]


@pytest.mark.parametrize("validation", ["validation", "dev", "valid", "Val"])
def test_folders_above_the_classes_are_splits(folder, validation):
    path = folder({f"{split}/{label}/1.txt": label for split in ("train", validation, "test") for label in "ab"})
    rows = [row for _, row in sources.read_class_folders(path)]
    assert {(row.id, row.label, row.split) for row in rows} == {
        (f"{name}/{label}/1.txt", label, split)
        for name, split in (("train", "train"), (validation, "validation"), ("test", "test"))
        for label in "ab"
    }


def test_files_that_cannot_be_used_are_named(folder):
    files = {"a/1": "caf\xe9".encode("cp1252"), "a/2": " \n", "b/3": "\ufeffbom", "b/4": "wide".encode("utf-16")}
    path = folder({**files, "b/5": "wide".encode("utf-16-le")})  # The last without a mark.
    read = dict(sources.read_class_folders(path))
    for name in ("a/1", "b/5"):
        assert read[name].startswith("bytes that are not of the encoding (--encoding")
    assert read["a/2"] == "an empty text"
    assert [read[name].text for name in ("b/3", "b/4")] == ["bom", "wide"]
    assert dict(sources.read_class_folders(path, encoding="cp1252"))["a/1"].text == "café"


def test_folders_that_are_neither_splits_nor_classes_are_refused(folder, tmp_path):
    with pytest.raises(UserError, match="a folder of text files for each class"):
        list(sources.read_class_folders(folder({"a.txt": "text"})))
    path = folder({"train/a/1.txt": "a", "docs/1.txt": "b"})
    with pytest.raises(UserError, match="train/ and also docs"):
        list(sources.read_class_folders(path))

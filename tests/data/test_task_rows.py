import dataclasses
import hashlib
import json
import os
import random

import pytest
from helpers import python

from trainer.data import task_rows, tasks
from trainer.data.sources import Row
from trainer.data.task_rows import SourceOptions
from trainer.errors import UserError


@pytest.fixture
def write(tmp_path):
    """A function (name, lines) -> the path of a file with them."""

    def write_file(name, *lines):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{line}\n" for line in lines))
        return str(path)

    return write_file


@pytest.fixture
def table(write):
    """The path of a CSV with two rows and a bad one."""
    return write("a.csv", "review,stars", "good,1", ",0", "dull,0")


COLUMNS = {"text_column": "review", "label_column": "stars"}
ROWS = [Row(0, "good", None, "1", ""), Row(2, "dull", None, "0", "")]


def read(source, **options):
    return task_rows.read_rows(SourceOptions("csv", source, **options))


def described(rows):
    return [(row.split, row.id, row.texts().text, row.label) for row in rows]


@pytest.mark.parametrize(
    ("options", "output", "settings"),
    [
        (SourceOptions("csv", "a.csv"), "out", []),
        (SourceOptions("imdb"), "gs://bucket/out", []),
        (SourceOptions(None), None, ["--task", "--output"]),
        (SourceOptions("csv", downloads="gs://bucket/downloads"), None, ["--output", "--downloads", "--source"]),
        (
            SourceOptions("imdb", test_source="a", validation_source="b", delimiter=";;", encoding="windows"),
            "out",
            ["--test_source", "--validation_source", "--encoding", "--delimiter"],
        ),
        (
            SourceOptions("movie_snippets", weight_column="w", keep_columns=["a"]),
            "out",
            ["--weight_column", "--keep_columns"],
        ),
        (SourceOptions("csv", "a.csv", delimiter=";;", encoding="windows"), "out", ["--delimiter", "--encoding"]),
        (SourceOptions("movie_snippets", label_type="number"), "out", []),
        (SourceOptions("movie_snippets", "mine.csv", sha256="0" * 64), "out", ["--source", "--sha256"]),
        (SourceOptions("imdb", label_type="number"), "out", ["--label_type"]),
        (SourceOptions("imdb", text_column="review", quotes=False), "out", ["--text_column", "--quotes"]),
        (SourceOptions("cola", "CoLA.zip"), "out", []),
        (SourceOptions("cola", label_type="number"), "out", ["--source", "--label_type"]),
        (SourceOptions("ax", "AX.tsv"), "out", ["--task"]),
        (SourceOptions("csv", "a", delimiter="\\t", escape="\\", encoding="cp1252"), "out", []),
    ],
)
def test_every_wrong_argument_is_found(options, output, settings):
    problems = task_rows.find_argument_problems(options, output)
    assert [problem.setting for problem in problems] == settings


def test_every_task_has_a_reader_or_is_known_by_name():
    assert set(task_rows.READERS) == set(tasks.TASKS) - {"csv", "movie_snippets", tasks.AX}


def test_bad_rows_are_refused_or_counted(table):
    with pytest.raises(UserError, match=r"line 3: an empty text"):
        read(table, **COLUMNS)
    found = read(table, **COLUMNS, bad_rows="skip")
    assert (described(found.rows), found.bad_rows, found.label_type) == (described(ROWS), 1, "auto")


def test_a_source_of_bad_rows_alone_is_refused(write):
    with pytest.raises(UserError, match=r"empty\.csv must hold rows"):
        read(write("empty.csv", "text,label", ",0"), bad_rows="skip")


def test_rows_of_other_sources_are_splits_of_their_own(table, write):
    other = write("b.jsonl", json.dumps({"review": "so so", "stars": 1}))
    found = read(table, test_source=table, validation_source=other, **COLUMNS, bad_rows="skip")
    assert [(row.split, row.id) for row in found.rows] == [
        ("", 0),
        ("", 2),
        ("validation", 0),
        ("test", 0),
        ("test", 2),
    ]
    assert found.bad_rows == 2


def test_a_pattern_names_several_files_and_bad_rows_name_theirs(write, tmp_path):
    write("part-1.csv", "text,label", "a,1", ",0")
    write("part-2.jsonl", "", json.dumps({"text": "b", "label": 0}), json.dumps({"text": "", "label": 0}))
    found = read(f"{tmp_path}/part-*", bad_rows="skip")
    assert described(found.rows) == [("", 0, "a", "1"), ("", 2, "b", "0")]
    with pytest.raises(UserError, match=r"part-1\.csv line 3: an empty text.*part-2\.jsonl line 3: an empty text"):
        read(f"{tmp_path}/part-*")
    with pytest.raises(UserError, match="pattern"):
        read(f"{tmp_path}/no-*")
    with pytest.raises(UserError, match="--sha256"):
        read(f"{tmp_path}/part-*", sha256="0" * 64)


def test_a_path_that_exists_is_no_pattern(write):
    path = write("[1]?*.csv", "text,label", "a,1")
    write("1x.csv", "text,label", "b,1")
    assert task_rows.find_files(path) == [path]


def test_folders_are_classes_even_if_they_are_numbers(write, tmp_path):
    for number in range(30):
        write(f"scores/train/{number}/a.txt", f"text {number}")
        write(f"scores/test/{number}/a.txt", f"other {number}")
    found = read(f"{tmp_path}/scores")
    assert found.label_type == "class"
    assert {(row.split, row.label) for row in found.rows} == {(s, str(n)) for s in ("train", "test") for n in range(30)}
    with pytest.raises(UserError, match=r"--test_source must be left out.*test/ in"):
        read(f"{tmp_path}/scores", test_source=f"{tmp_path}/scores/test")
    with pytest.raises(UserError, match="--text_pair_column"):
        read(f"{tmp_path}/scores", text_pair_column="b")


def test_a_folder_may_be_the_test_source_of_a_table(write, tmp_path):
    write("test/pos/a.txt", "A")
    found = read(write("a.csv", "text,label", "b,pos"), test_source=f"{tmp_path}/test")
    assert [(row.split, row.id) for row in found.rows] == [("", 0), ("test", "pos/a.txt")]


def test_a_folder_of_splits_without_train_is_refused(write, tmp_path):
    for name in ("test/pos/a", "val/neg/b"):
        write(f"all/{name}.txt", name)
    with pytest.raises(UserError, match=r"have train/, validation/ and test/ in it.* Received: test and val alone"):
        read(f"{tmp_path}/all")


@pytest.mark.parametrize("split", ["test", "validation"])
def test_a_folder_with_splits_is_no_source_of_one_split(write, tmp_path, split):
    for name in ("train/pos/a", "test/pos/b"):
        write(f"all/{name}.txt", name)
    with pytest.raises(UserError, match=rf"--{split}_source must .* which has train/ in it"):
        read(write("a.csv", "text,label", "b,pos"), **{f"{split}_source": f"{tmp_path}/all"})


def test_a_folder_s_class_that_is_no_number_is_named_by_its_file(write, tmp_path):
    for name in ("1/a", "2/b", "bad/c"):
        write(f"scores/{name}.txt", name)
    with pytest.raises(UserError, match=r"bad/c\.txt: the label 'bad' in a column of numbers"):
        read(f"{tmp_path}/scores", label_type="number")
    with pytest.raises(UserError, match=r"bad/c\.txt: the label 'bad'"):
        read(write("a.csv", "text,label", "x,1"), test_source=f"{tmp_path}/scores", label_type="number")


def test_strays_among_numbers_are_refused_by_line_or_left_out(write):
    numbers = [f"text {i},{i / 8}" for i in range(60)]
    train = write("train.csv", "text,label", *numbers[:30], '"euros","2,5"', *numbers[30:])
    test = write("test.csv", "text,label", "a,1.5", "b,3 %")
    with pytest.raises(UserError, match=r"train\.csv line 32: .*'2,5'.*--label_type=class.*test\.csv line 3: .*'3 %'"):
        read(train, test_source=test)
    found = read(train, test_source=test, bad_rows="skip")
    assert (len(found.rows), found.bad_rows) == (61, 2)
    assert len(read(train, test_source=test, label_type="class").rows) == 63


def test_ratings_with_a_missing_one_are_numbers_without_it(write):
    lines = [f"text {i},{'NA' if i == 21 else i / 50}" for i in range(200)]
    path = write("ratings.csv", "text,label", *lines)
    with pytest.raises(UserError, match=r"1 row that does not: line 23: .*'NA'"):
        read(path)
    found = read(path, bad_rows="skip")
    assert (len(found.rows), found.bad_rows) == (199, 1)


def test_equal_numbers_are_one_class_in_all_files(write, caplog):
    train = write("train.csv", "text,label", "a,1", "b,0.0", "c,1.0", "d,0")
    test = write("test.jsonl", *(json.dumps({"text": "e", "label": label}) for label in (True, 1.0, "0", 0, False)))
    labels = [row.label for row in read(train, test_source=test).rows]
    assert labels == ["1", "0.0", "1", "0.0", "1", "1", "0.0", "0.0", "0.0"]
    assert "one class: 1.0 is 1, 0 is 0.0, true is 1, false is 0.0." in caplog.text


def test_the_hash_of_a_local_source_is_verified(table):
    with open(table, "rb") as file:
        expected = hashlib.sha256(file.read()).hexdigest()
    assert task_rows.local_source("csv", table, expected, "downloads") == table
    assert described(read(table, **COLUMNS, sha256=expected, bad_rows="skip").rows) == described(ROWS)
    with pytest.raises(UserError, match="--sha256"):
        read(table, **COLUMNS, sha256="0" * 64)


def test_the_format_of_options_is_that_of_the_flags():
    options = SourceOptions("csv", delimiter="\\t", escape="\\", quotes=False, encoding="cp1252")
    assert dataclasses.astuple(options.table_format) == ("cp1252", "\t", "\\", False)
    assert dataclasses.astuple(SourceOptions("csv").table_format) == (None, None, None, None)


MEASURE = """
import re, sys
from trainer.data import splits, task_rows

def memory(what):
    with open("/proc/self/status") as status:
        return int(re.search(what + r":\\s+(\\d+) kB", status.read())[1]) * 1024

before = memory("VmRSS")
rows = task_rows.read_rows(task_rows.SourceOptions("csv", sys.argv[1])).rows
splits.split_rows(rows, "classification", 0)
print(memory("VmHWM") - before, len(rows), sum(len(row.texts().text) for row in rows))
"""


@pytest.mark.parametrize(("rows", "words_of_a_row"), [(50_000, 600), (500_000, 60)])
def test_reading_and_splitting_need_the_same_memory_for_any_texts(tmp_path, rows, words_of_a_row):
    words, rng = (
        ["the", "film", "plot", "actor", "scene", "camera", "script", "director", "story", "music"],
        random.Random(0),
    )
    with (tmp_path / "a.csv").open("w") as file:
        file.write("text,label\n")
        for number in range(rows):
            file.write(
                f"{number}: {' '.join(rng.choices(words, k=rng.randint(20, words_of_a_row)))},{'ab'[number % 2]}\n"
            )
    # The huge pages of `make test` would round the peak up, to 2 MiB and by malloc's own blocks: 60 bytes a row.
    environment = {name: os.environ[name] for name in os.environ.keys() - {"GLIBC_TUNABLES", "PYTHONMALLOC"}}
    done = python("-c", MEASURE, tmp_path / "a.csv", check=True, env=environment)
    peak, read_rows, characters = map(int, done.stdout.split())
    print(f"{rows:,} rows of {characters / rows:.0f} characters: {peak / 1e6:.0f} MB, {peak / rows:.0f} bytes a row")
    assert read_rows == rows
    assert peak < 350 * rows


# --- Several labels -------------------------------------------------------------------------------


def several(source, **options):
    found = read(source, multi_label=True, **options)
    return [(row.split, row.id, row.labels) for row in found.rows], found


def test_lists_of_json_are_several_labels(write):
    values = [["b", "a", "b"], [], None, "c, d"]
    path = write("a.jsonl", *(json.dumps({"text": "t", "label": value}) for value in values))
    rows, found = several(path)
    assert rows == [("", 0, ("a", "b")), ("", 1, ()), ("", 2, ()), ("", 3, ("c, d",))]
    assert (found.label_type, found.label_form, found.rows[0].label) == ("several", "lists", "")
    with pytest.raises(UserError, match=r"line 1: a list as label in 'label' \(--multi_label"):
        read(path)


def test_cells_of_all_tables_are_divided_alike(write):
    train = write("a.csv", "text,label", "x,a|b", "y,", "z,NA", "w,c;d")
    test = write("b.csv", "text,label", "v,c;d")
    rows, found = several(train, test_source=test, bad_rows="skip")
    assert rows == [("", 0, ("a", "b")), ("", 1, ()), ("", 3, ("c;d",)), ("test", 0, ("c;d",))]
    assert found.bad_rows == 1
    assert found.label_form == "separated by '|'; --label_delimiter names another"
    with pytest.raises(UserError, match=r"a\.csv line 4: a missing label in 'label', 'NA'"):
        several(train, test_source=test)
    assert several(test, label_delimiter="c")[0] == [("", 0, (";d",))]


def test_columns_of_0_and_1_are_several_labels(write):
    path = write("a.csv", "text,toxic,rude,mild", "x,1,0.0,true", "y,0,0,0", "z,1,2,0")
    rows, found = several(path, label_columns=["toxic", "rude", "mild"], bad_rows="skip")
    assert rows == [("", 0, ("mild", "toxic")), ("", 1, ())]
    assert found.label_form == "one column of 0 and 1 for each"
    with pytest.raises(UserError, match=r"line 4: '2' in 'rude', which is neither 0 nor 1"):
        several(path, label_columns=["toxic", "rude", "mild"])
    with pytest.raises(UserError, match="have the column 'kind'"):
        several(path, label_columns=["kind"])


def test_equal_numbers_among_several_labels_are_one(write, caplog):
    rows, _ = several(write("a.csv", "text,label", "x,1|2", "y,1.0"))
    assert rows == [("", 0, ("1", "2")), ("", 1, ("1",))]
    assert "1.0 is 1" in caplog.text


def test_a_folder_of_classes_has_no_several_labels(write, tmp_path):
    write("scores/a/1.txt", "text")
    with pytest.raises(UserError, match="--multi_label must be left out unless tables are read"):
        several(f"{tmp_path}/scores")
    options = SourceOptions("imdb", multi_label=True, label_columns=["a"])
    refused = [(p.setting, p.received) for p in task_rows.find_argument_problems(options, "out")]
    assert refused == [("--multi_label", "true"), ("--label_columns", "a")]

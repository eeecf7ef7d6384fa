import hashlib

import pytest

from trainer.data import task_rows
from trainer.data.sources import ColumnNames, Row
from trainer.errors import UserError


@pytest.fixture
def table(tmp_path):
    """The path of a CSV with two rows and a bad one."""
    path = tmp_path / "a.csv"
    path.write_text("review,stars\ngood,1\n,0\ndull,0\n")
    return path


COLUMNS = ColumnNames("review", None, "stars")
ROWS = [Row(0, "good", None, "1", ""), Row(2, "dull", None, "0", "")]


@pytest.mark.parametrize(
    ("task", "source", "output", "folder", "settings"),
    [
        ("csv", "a.csv", "out", "downloads", []),
        ("imdb", None, "gs://bucket/out", "downloads", []),
        (None, None, None, "downloads", ["--task", "--output"]),
        ("csv", None, None, "gs://bucket/downloads", ["--output", "--downloads", "--source"]),
    ],
)
def test_every_wrong_argument_is_found(task, source, output, folder, settings):
    problems = task_rows.find_argument_problems(task, source, output, folder)
    assert [problem.setting for problem in problems] == settings


def test_bad_rows_are_refused_or_counted(table):
    with pytest.raises(UserError, match=r"line 3: an empty text"):
        task_rows.read_rows("csv", str(table), columns=COLUMNS)
    assert task_rows.read_rows("csv", str(table), columns=COLUMNS, skip_bad_rows=True) == (ROWS, 1)


def test_a_source_of_bad_rows_alone_is_refused(tmp_path):
    path = tmp_path / "empty.csv"
    path.write_text("text,label\n,0\n")
    with pytest.raises(UserError, match=r"empty\.csv must hold rows"):
        task_rows.read_rows("csv", str(path), skip_bad_rows=True)


def test_rows_of_a_test_source_are_the_test_split(table):
    options = {"columns": COLUMNS, "skip_bad_rows": True}
    rows, bad_rows = task_rows.read_rows("csv", str(table), test_source=str(table), **options)
    assert [row.split for row in rows] == ["", "", "test", "test"]
    assert bad_rows == 2


def test_the_hash_of_a_local_source_is_verified(table):
    expected = hashlib.sha256(table.read_bytes()).hexdigest()
    assert task_rows.local_source("csv", str(table), expected, "downloads") == str(table)
    with pytest.raises(UserError, match="--sha256"):
        task_rows.local_source("csv", str(table), "0" * 64, "downloads")

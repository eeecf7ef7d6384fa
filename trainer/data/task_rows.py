"""The rows of a task's source: downloaded if it is a URL, read, and checked. What prepare_data.py's flags mean."""

from pathlib import Path

from trainer.data import downloads, sources, tasks
from trainer.data.sources import Row
from trainer.errors import Problem, UserError
from trainer.storage import fs, gcs


def find_argument_problems(
    task: str | None, source: str | None, output: str | None, downloads_folder: str
) -> list[Problem]:
    """What is missing or wrong among the arguments of a preparation, before anything is read."""
    problems = [
        Problem(flag, "be given", "none", "See --help.")
        for flag, value in (("--task", task), ("--output", output))
        if not value
    ]
    if gcs.is_gcs_path(downloads_folder):
        problems.append(Problem("--downloads", "be a folder of this machine", downloads_folder))
    if task == "csv" and not source:
        problems.append(Problem("--source", "name a .csv, .tsv or .jsonl file with --task=csv", "none"))
    return problems


def local_source(task: str, source: str | None, sha256: str | None, downloads_folder: str) -> str:
    """The source as a local file or folder: downloaded from a URL, the task's own if `source` is None, or a bucket.

    Raises UserError if a file's SHA-256 is not `sha256`, or not the task's own where `sha256` is None.
    """
    spec = tasks.TASKS[task]
    source = source or spec.url
    assert source  # find_argument_problems requires it of a task that has no URL.
    if source.startswith(("https://", "http://")):
        sha256 = sha256 or (spec.sha256 if source == spec.url else None)
        return str(downloads.download_file(source, Path(downloads_folder), sha256))
    path = fs.local_copy(source)
    if sha256 and Path(path).is_file():
        downloads.check_sha256(Path(path), sha256)
    return path


def read_rows(
    task: str,
    source: str | None,
    *,
    test_source: str | None = None,
    columns: sources.ColumnNames = sources.DEFAULT_COLUMNS,
    label_type: str = "auto",
    quotes: bool = True,
    skip_bad_rows: bool = False,
    sha256: str | None = None,
    downloads_folder: str = "downloads",
) -> tuple[list[Row], int]:
    """(the rows of a task's source, the number of bad rows, which are left out).

    `columns`, `quotes` and `test_source`, whose rows are the split "test", are those of task csv. Raises UserError if
    there are no rows, or bad rows and `skip_bad_rows` is false, and what the readers of sources raise.
    """
    bad_rows: list[str] = []
    if task == "movie_snippets":
        rows = list(sources.read_movie_snippets(ratings=label_type == "number"))
    else:
        path = local_source(task, source, sha256, downloads_folder)
        if task == "imdb":
            rows = list(sources.read_imdb(path, bad_rows))
        else:
            rows = list(sources.read_table(path, columns, "", bad_rows, quotes=quotes))
            if test_source:
                rows += sources.read_table(fs.local_copy(test_source), columns, "test", bad_rows, quotes=quotes)
    if not skip_bad_rows:
        problems = sources.find_bad_row_problems(source or task, bad_rows)
        if problems:
            raise UserError(*problems)
    if not rows:
        raise UserError(Problem(source or task, "hold rows", "none that can be used"))
    return rows, len(bad_rows)

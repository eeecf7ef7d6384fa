"""The flags of scripts/prepare_data.py. What it writes is tested with the functions that it calls."""

import dataclasses

from helpers import python

from trainer.data import task_rows, tasks


def test_every_task_is_offered():
    done = python("scripts/prepare_data.py", "--task=no", "--output=no")
    assert done.returncode == 2
    assert all(name in done.stderr for name in tasks.TASKS)


def test_every_wrong_flag_is_reported_at_once():
    wrong = ("--downloads=gs://bucket/downloads", "--encoding=windows", "--delimiter=::")
    done = python("scripts/prepare_data.py", "--task=csv", *wrong)
    assert (done.returncode, done.stdout) == (2, "")
    assert [line.split()[0] for line in done.stderr.removeprefix("error: ").splitlines()] == [
        "--output",
        "--downloads",
        "--source",
        "--delimiter",
        "--encoding",
    ]


def test_every_field_of_the_options_is_a_flag():
    done = python("scripts/prepare_data.py", "--help")
    for field in dataclasses.fields(task_rows.SourceOptions):
        assert f"--{field.name}:" in done.stdout or f"--[no]{field.name}:" in done.stdout

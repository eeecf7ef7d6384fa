"""The flags of scripts/prepare_data.py. What it writes is tested with the functions that it calls."""

from helpers import python

from trainer.data import tasks


def test_every_task_is_offered():
    done = python("scripts/prepare_data.py", "--task=no", "--output=no")
    assert done.returncode == 2
    assert all(name in done.stderr for name in tasks.TASKS)


def test_every_wrong_flag_is_reported_at_once():
    done = python("scripts/prepare_data.py", "--task=csv", "--downloads=gs://bucket/downloads")
    assert (done.returncode, done.stdout) == (2, "")
    assert [line.split()[0] for line in done.stderr.removeprefix("error: ").splitlines()] == [
        "--output",
        "--downloads",
        "--source",
    ]

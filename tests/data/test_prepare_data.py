"""The flags of scripts/prepare_data.py. What it writes is tested with the functions that it calls."""

import dataclasses

import tensorflow as tf
from fakes.encoders import save_callable
from helpers import python, write_reviews

from trainer.data import task_rows, tasks


def test_every_task_is_offered():
    done = python("scripts/prepare_data.py", "--task=no", "--output=no")
    assert done.returncode == 2
    assert all(name in done.stderr for name in tasks.TASKS)


def test_every_wrong_flag_is_reported_at_once():
    wrong = ("--downloads=gs://bucket/downloads", "--encoding=windows", "--delimiter=::", "--foo=1")
    done = python("scripts/prepare_data.py", "--task=csv", *wrong)
    assert (done.returncode, done.stdout) == (2, "")
    assert [line.split()[0] for line in done.stderr.removeprefix("error: ").splitlines()] == [
        "--foo",
        "--output",
        "--downloads",
        "--source",
        "--delimiter",
        "--encoding",
    ]


def test_every_field_of_the_options_is_a_flag():
    done = python("scripts/prepare_data.py", "--help")
    for field in dataclasses.fields(task_rows.SourceOptions):
        assert f"  --{field.name}=VALUE" in done.stdout or f"  --{field.name} / --no" in done.stdout


def test_what_is_no_encoder_is_refused_before_anything_is_written(tmp_path):
    source, folder = write_reviews(tmp_path / "reviews.csv", 10), tmp_path / "text-in"
    save_callable(folder, tf.TensorSpec([None], tf.string), lambda table, text: {"pooled_output": table})
    arguments = ["--task=csv", f"--source={source}", f"--encoder={folder}", f"--output={tmp_path / 'data'}"]
    done = python("scripts/prepare_data.py", *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert "--encoder" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "data").exists()

import dataclasses
import json
from pathlib import Path

import pytest
from helpers import write_reviews

from trainer import preparation
from trainer.data.task_rows import SourceOptions
from trainer.errors import UsageError, UserError
from trainer.preparation import PrepareOptions


def test_every_option_of_a_source_may_be_given():
    fields = {field.name for field in dataclasses.fields(SourceOptions)}
    assert {*PrepareOptions.__annotations__, "task", "source"} == fields


def test_a_prepared_folder_is_described(tiny, tmp_path, capsys):
    source, folder = write_reviews(tmp_path / "reviews.csv", 60), tmp_path / "data"
    data = preparation.prepare(source, folder, encoder=tiny, progress=False, seed=3)
    assert capsys.readouterr().err == ""
    manifest = json.loads((folder / "dataset.json").read_text())
    assert (data.folder, data.kind, data.labels) == (str(folder), "classification", ("negative", "positive"))
    assert manifest["seed"] == 3
    assert data.examples == {name: split["examples"] for name, split in manifest["splits"].items()}
    assert {name: sum(counts.values()) for name, counts in data.label_counts.items()} == data.examples
    assert data.removed == manifest["removed"]
    assert str(data).startswith(f"{folder}: csv, classification\n  train ")


def test_every_wrong_argument_is_reported_at_once(tmp_path):
    wrong = {"text_colum": "a", "label_type": "x", "label_columns": "a,b", "quotes": "maybe", "delimiter": "::"}
    with pytest.raises(UsageError) as caught:
        preparation.prepare("s3://a.csv", tmp_path / "data", task="cvs", downloads=Path("gs://b"), **wrong)
    problems = {problem.setting: problem for problem in caught.value.problems}
    assert list(problems) == [
        *("--source", "--downloads", "text_colum", "--label_type", "--label_columns", "--quotes", "--task"),
        "--delimiter",
    ]
    assert problems["text_colum"].advice == "The nearest is text_column."
    assert problems["--label_columns"].required == "be a list"
    assert problems["--task"].received == "cvs"
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("output", [None, ""])
def test_a_preparation_needs_a_source_and_an_output(output):
    with pytest.raises(UsageError) as caught:
        preparation.prepare(None, output)
    assert [problem.setting for problem in caught.value.problems] == ["--output", "--source"]


def test_an_encoder_that_is_not_there_is_named(tmp_path):
    source = write_reviews(tmp_path / "reviews.csv", 10)
    with pytest.raises(UserError, match="--encoder must be"):
        preparation.prepare(source, tmp_path / "data", encoder="no such encoder")
    assert not (tmp_path / "data").exists()


def test_an_encoder_that_a_run_has_rebuilt_is_not_loaded(finished_run, tiny, tmp_path, monkeypatch):
    from trainer.encoders import saved_models

    loaded = []
    monkeypatch.setattr(saved_models, "load_encoder", loaded.append)
    source = write_reviews(tmp_path / "reviews.csv", 60)
    preparation.prepare(source, tmp_path / "data", encoder=tiny, progress=False)
    assert (tmp_path / "data/dataset.json").exists()
    monkeypatch.setenv("HUBTUNE_CACHE_DIR", str(tmp_path / "empty"))
    preparation.prepare(source, tmp_path / "data", encoder=tiny, progress=False)
    assert [folders.encoder for folders in loaded] == [str(tiny / "encoder")]

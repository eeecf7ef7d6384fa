import dataclasses
import json
import logging
import shutil

import pytest

from trainer.config import loading
from trainer.data import manifests, records
from trainer.errors import UserError
from trainer.train import run_data
from trainer.train.run_files import find_own_data, resolve_run_files


@pytest.fixture
def files(model_dir):
    return resolve_run_files(str(model_dir))


@pytest.fixture
def manifest(prepared):
    return manifests.read_manifest(str(prepared))


def edit(path, remove=(), **changes):
    values = {key: value for key, value in json.loads(path.read_text()).items() if key not in remove}
    path.write_text(json.dumps(values | changes))


@pytest.fixture
def of_before(model_dir):
    """The model_dir as a run from before class names were kept has left it."""
    edit(model_dir / "identity.json", remove=("kind", "labels", "texts", "label_scale", "positive_class"))
    return model_dir


def set_data_dir(model_dir, folder):
    path = model_dir / "config.yaml"
    config = loading.load_config(str(path), [f"data_dir={folder}"])
    path.write_text(loading.dump_config(config))


def test_the_run_s_own_data_are_accepted_silently(files, manifest, prepared, caplog):
    assert run_data.compare_data(files, str(prepared), manifest) is None
    assert run_data.compare_data(files, "moved", manifest) is None
    assert not caplog.records


def test_other_class_names_are_refused_with_both_lists(files, manifest):
    other = dataclasses.replace(manifest, labels=("poor", "good"), texts=2)
    with pytest.raises(UserError) as raised:
        run_data.compare_data(files, "data/other", other)
    names, texts = map(str, raised.value.problems)
    assert f"--data_dir must have the class names of the run in --model_dir {files.root}: negative, positive. " in names
    assert "Received: data/other, with poor, good. " in names
    assert "have examples of 1 text, " in texts


@pytest.mark.parametrize("labels", [("positive", "negative"), ("negative",), ()])
def test_another_order_fewer_classes_and_numbers_are_refused_too(files, manifest, labels):
    with pytest.raises(UserError, match=r"negative, positive\. Received: data/other, with"):
        run_data.compare_data(files, "data/other", dataclasses.replace(manifest, labels=labels))


def test_another_kind_of_the_same_names_is_refused(files, manifest):
    other = dataclasses.replace(manifest, kind="multi_label")
    with pytest.raises(UserError, match=r"must have classes, as the run .* with several labels a text"):
        run_data.compare_data(files, "data/other", other)


def test_other_data_of_the_same_names_are_named(files, manifest, prepared, caplog):
    other = dataclasses.replace(manifest, seed=7)
    assert run_data.compare_data(files, "data/other", other) == run_data.OwnData(str(prepared), manifest)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    for words in ("data/other", other.fingerprint[:12], str(prepared), manifest.fingerprint[:12]):
        assert words in record.getMessage()


def test_a_run_of_before_has_its_class_names_in_its_data(of_before, files, manifest, prepared):
    assert run_data.compare_data(files, str(prepared), manifest) is None
    with pytest.raises(UserError, match=r"negative, positive\. Received: data/other, with poor, good\."):
        run_data.compare_data(files, "data/other", dataclasses.replace(manifest, labels=("poor", "good")))


def test_names_that_nobody_knows_are_said_not_to_be_compared(of_before, files, manifest, tmp_path, caplog):
    set_data_dir(of_before, tmp_path / "gone")
    own = run_data.compare_data(files, "data/other", dataclasses.replace(manifest, labels=("poor", "good")))
    assert own == run_data.OwnData(str(tmp_path / "gone"), None)
    assert "class names are not known, and were not compared" in caplog.text


@pytest.fixture
def own(manifest, prepared):
    return run_data.OwnData(str(prepared), manifest)


def read(manifest, prepared, split) -> records.Columns:
    return records.read_split(str(prepared), manifest, split, with_text=True)


def test_texts_of_train_are_counted(own, manifest, prepared):
    assert run_data.describe_overlap(own, read(manifest, prepared, "test"), "test").startswith("0 of the 30 examples")
    trained = read(manifest, prepared, "train")
    shouted = dataclasses.replace(trained, texts=[f" {text.upper()}\n" for text in trained.texts[:-1]] + ["another"])
    assert run_data.describe_overlap(own, shouted, "validation") == (
        "239 of the 240 examples of validation have a text that the run was trained on (its train)."
    )


def test_what_is_not_known_of_train_is_said(own, manifest, prepared, tmp_path):
    test = read(manifest, prepared, "test")
    unknown = "Whether texts of test are in the run's train is not known: "
    gone = run_data.describe_overlap(run_data.OwnData("data/gone", None), test, "test")
    assert gone == f"{unknown}data/gone does not hold the data that it was trained on any more."
    copy = shutil.copytree(prepared, tmp_path / "copy")
    name = manifest.splits["train"].shards[0].name
    (copy / name).unlink()
    broken = run_data.describe_overlap(run_data.OwnData(str(copy), manifest), test, "test")
    assert broken.startswith(unknown)
    assert name in broken


def test_data_prepared_anew_in_the_same_folder_are_not_the_run_s_own(files, model_dir, manifest, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    manifests.write_manifest(str(folder), dataclasses.replace(manifest, seed=9))
    set_data_dir(model_dir, folder)
    config, own_manifest = find_own_data(files)
    assert (config.data_dir, own_manifest) == (str(folder), None)

import shutil

import pytest

from trainer.encoders import saved_model_files


@pytest.mark.parametrize(
    ("removed", "missing"),
    [
        ([], ""),
        (["saved_model.pb"], "saved_model.pb"),
        (["variables/variables.index"], "variables/variables.index"),
        (["variables/variables.data-00000-of-00001"], "variables/variables.data-00000-of-00001"),
    ],
)
def test_a_missing_file_is_named(saved_model, tmp_path, removed, missing):
    folder = shutil.copytree(saved_model, tmp_path / "model")
    for name in removed:
        (folder / name).unlink()
    assert saved_model_files.find_missing_file(str(folder)) == missing
    assert saved_model_files.find_broken_file(str(folder)) == (f"which lacks {missing}" if missing else "")


def test_a_missing_shard_of_several_is_named(saved_model, tmp_path):
    folder = shutil.copytree(saved_model, tmp_path / "model")
    (folder / "variables/variables.data-00000-of-00001").rename(folder / "variables/variables.data-00000-of-00003")
    (folder / "variables/variables.data-00002-of-00003").touch()
    assert saved_model_files.find_missing_file(str(folder)) == "variables/variables.data-00001-of-00003"


def test_a_folder_without_variables_is_incomplete(saved_model, tmp_path):
    shutil.copy(saved_model / "saved_model.pb", tmp_path)
    assert saved_model_files.find_missing_file(str(tmp_path)) == "variables/variables.index"


def test_a_model_is_found_in_a_folder_unless_there_are_two(saved_model, tmp_path):
    assert saved_model_files.find_model_folder(str(saved_model)) == str(saved_model)
    assert saved_model_files.find_model_folder(str(tmp_path / "no")) == str(tmp_path / "no")
    first = shutil.copytree(saved_model, tmp_path / "outer" / "first")
    (tmp_path / "outer" / "notes").mkdir()
    assert saved_model_files.find_model_folder(str(tmp_path / "outer")) == str(first)
    shutil.copytree(saved_model, tmp_path / "outer" / "second")
    assert saved_model_files.find_model_folder(str(tmp_path / "outer")) == str(tmp_path / "outer")

import pytest

from trainer.encoders import source_files
from trainer.errors import UserError

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"


def test_one_file_of_a_choice_is_enough(tmp_path):
    (tmp_path / "b").touch()
    source_files.require_files(tmp_path, "--source", ["a", "b"], ["b"])
    with pytest.raises(UserError) as caught:
        source_files.require_files(tmp_path, "--source", ["a", "c"], ["b"], ["d"])
    assert [problem.required for problem in caught.value.problems] == [
        "name a folder with a or c",
        "name a folder with d",
    ]


@pytest.mark.parametrize("name", ["config.json", "vocab.txt", "model-00001-of-00002.safetensors"])
def test_a_pointer_of_git_lfs_is_named(tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / name).write_bytes(POINTER)
    with pytest.raises(UserError, match=rf"{tmp_path / name} .*git lfs pull"):
        source_files.require_files(tmp_path, "--source")


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff", b"", b"[" * 100_000])
def test_what_is_no_json_object_is_named(tmp_path, content):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"{path} must hold"):
        source_files.read_json(path)

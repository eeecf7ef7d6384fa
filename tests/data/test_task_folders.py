import zipfile

import pytest

from trainer.data import task_folders
from trainer.errors import UserError


@pytest.fixture
def make(tmp_path):
    """A function of paths -> the folder with these files, each holding its path."""

    def write(*paths):
        for path in paths:
            (tmp_path / "all" / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "all" / path).write_text(path)
        return str(tmp_path / "all")

    return write


def find(source, own=("RTE",), others=("WNLI", "original")):
    return task_folders.find_folder(source, ["train.tsv"], own, others)


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["train.tsv", "dev.tsv"], ""),
        (["RTE/train.tsv", "RTE/dev.tsv", "WNLI/train.tsv"], "RTE"),
        (["data/rte/train.tsv", "data/dev.tsv"], "data/rte"),
        (["a/train.tsv", "a/original/train.tsv"], "a"),
        (["a/b/train.tsv", "c/train.tsv"], "c"),
        (["train.tsv", "x/RTE/train.tsv"], "x/RTE"),
        ([".hidden/train.tsv", "__MACOSX/train.tsv", "a/train.tsv"], "a"),
    ],
)
def test_the_folder_of_its_name_or_the_least_deep_is_found(make, tmp_path, paths, expected):
    source = make(*paths)
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for path in paths:
            archive.write(f"{source}/{path}", path)
    for each in (source, f"{tmp_path}/all.zip"):
        folder = find(each)
        assert folder.path == expected
        with task_folders.open_file(folder, "train.tsv") as file:
            assert file.read().decode() == f"{expected}/train.tsv".lstrip("/")
        with (
            pytest.raises(UserError, match=r"--source must hold .*test\.tsv"),
            task_folders.open_file(folder, "test.tsv"),
        ):
            pass


@pytest.mark.parametrize("paths", [["WNLI/train.tsv"], ["RTE/dev.tsv"], ["a/train.tsv", "b/train.tsv"]])
def test_what_is_not_there_or_not_clear_is_refused(make, paths):
    with pytest.raises(UserError, match=r"--source must hold train\.tsv of RTE"):
        find(make(*paths))


def test_an_archive_of_its_name_in_a_folder_is_a_source(make, tmp_path):
    source = make("WNLI/train.tsv", "train.tsv", "packed/readme")
    with zipfile.ZipFile(f"{source}/packed/rte.zip", "w") as archive:
        archive.writestr("train.tsv", "packed")
    folder = find(source)
    assert folder.source == f"{source}/packed/rte.zip"
    with task_folders.open_file(folder, "train.tsv") as file:
        assert file.read() == b"packed"
    make("deep/er/RTE/train.tsv")
    assert find(source).path == "deep/er/RTE"


def test_the_name_of_the_source_itself_counts(make):
    source = make("WNLI/train.tsv")
    with pytest.raises(UserError, match="the source itself"):
        find(f"{source}/WNLI")


@pytest.mark.parametrize("content", [b"", b"PK\3\4 and no more"])
def test_what_is_no_archive_is_named(tmp_path, content):
    (tmp_path / "RTE.zip").write_bytes(content)
    with pytest.raises(UserError, match=r"--source must be a complete \.zip"):
        find(str(tmp_path / "RTE.zip"))


def test_an_archive_damaged_inside_is_named(tmp_path):
    path = tmp_path / "RTE.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("train.tsv", b"sentence" * 100)
    path.write_bytes(path.read_bytes().replace(b"sentence", b"sentance", 1))
    folder = find(str(path))
    with pytest.raises(UserError, match="Bad CRC"), task_folders.open_file(folder, "train.tsv") as file:
        file.read()

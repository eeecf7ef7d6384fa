"""The filesystem layer on this machine. test_gcs has the same for a bucket."""

import contextlib

import pytest

from trainer.errors import UserError
from trainer.storage import fs


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_file_holds_what_was_written(tmp_path):
    fs.write_text(f"{tmp_path}/a", "Größe\n")
    fs.write_bytes(f"{tmp_path}/b", b"\0\xff")
    assert fs.read_text(f"{tmp_path}/a") == "Größe\n"
    assert fs.read_bytes(f"{tmp_path}/b") == b"\0\xff"
    assert fs.size(f"{tmp_path}/b") == 2
    fs.write_json(f"{tmp_path}/c", {"size": "Größe"})
    assert fs.read_json(f"{tmp_path}/c") == {"size": "Größe"}
    assert fs.read_text(f"{tmp_path}/c") == '{\n "size": "Gr\\u00f6\\u00dfe"\n}\n'


def test_a_listing_is_sorted_and_has_no_slashes(tmp_path):
    for name in ("b", "a", "c"):
        (tmp_path / name).mkdir()
    (tmp_path / "c" / "d").write_text("")
    assert fs.list_names(str(tmp_path)) == ["a", "b", "c"]


def test_files_folders_and_missing_paths_are_told_apart(tmp_path):
    (tmp_path / "file").write_text("")
    fs.make_folder(f"{tmp_path}/x/y")
    fs.make_folder(f"{tmp_path}/x/y")
    kinds = [(fs.exists(f"{tmp_path}/{n}"), fs.is_folder(f"{tmp_path}/{n}")) for n in ("file", "x/y", "no")]
    assert kinds == [(True, False), (True, True), (False, False)]


@pytest.mark.parametrize("function", [fs.read_bytes, fs.size, fs.list_names])
def test_a_missing_path_is_an_error(tmp_path, function):
    with pytest.raises(FileNotFoundError, match="missing"):
        function(f"{tmp_path}/missing")


@pytest.mark.parametrize("path", ["s3://bucket/a", "https://host/a"])
def test_a_path_of_another_scheme_is_rejected(path):
    with pytest.raises(UserError, match=path):
        fs.make_folder(path)


def test_files_folders_and_missing_paths_can_be_removed(tmp_path):
    (tmp_path / "file").write_text("")
    fs.write_text(f"{tmp_path}/keep", "")
    fs.make_folder(f"{tmp_path}/x/y")
    for name in ("file", "x", "no"):
        fs.remove(f"{tmp_path}/{name}")
    assert fs.list_names(str(tmp_path)) == ["keep"]


def test_a_folder_is_copied_with_its_subfolders(tmp_path):
    source = tmp_path / "from"
    (source / "variables" / "deep").mkdir(parents=True)
    (source / "saved_model.pb").write_bytes(b"graph")
    (source / "variables" / "deep" / "data").write_bytes(b"\0values")
    before = contents(source)
    fs.copy_folder(str(source), f"{tmp_path}/to")
    fs.copy_folder(f"{source}/", f"{tmp_path}/slash")
    assert contents(source) == contents(tmp_path / "to") == contents(tmp_path / "slash") == before


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/passwd", "..", "", "a\\b", "a\0b", "link/x"])
def test_a_name_that_leads_out_of_its_folder_is_rejected(tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/link").symlink_to(tmp_path)
    with pytest.raises(UserError) as caught:
        fs.join_inside(str(tmp_path / "folder"), name)
    assert f"must stay in that folder. Received: {name!r}." in str(caught.value)


@pytest.mark.parametrize("folder", ["{}/folder", "gs://bucket/folder"])
def test_a_name_inside_its_folder_is_joined(tmp_path, folder):
    folder = folder.format(tmp_path)
    assert fs.join_inside(folder, "a/b..c.txt") == f"{folder}/a/b..c.txt"


def test_a_replaced_folder_holds_nothing_of_the_old_one(tmp_path):
    for name in ("old", "new"):
        fs.make_folder(f"{tmp_path}/{name}")
        fs.write_text(f"{tmp_path}/{name}/{name}", name)
    fs.replace_folder(f"{tmp_path}/new", f"{tmp_path}/old")
    assert contents(tmp_path) == {"old/new": b"new"}


def test_a_folder_appears_when_it_is_complete(tmp_path):
    target = f"{tmp_path}/deep/new"
    with fs.complete_folder(target) as partial:
        fs.write_text(f"{partial}/a", "text")
        assert not fs.exists(target)
    assert fs.read_text(f"{target}/a") == "text"
    with contextlib.suppress(KeyError), fs.complete_folder(target) as partial:
        fs.write_text(f"{partial}/c", "text")
        raise KeyError
    assert fs.list_names(target) == ["a"]
    assert fs.list_names(f"{tmp_path}/deep") == ["new"]


@pytest.mark.parametrize("name", ["exp [1]", "back\\slash", "star*", "why?"])
def test_tensorflow_gets_a_path_without_the_characters_of_patterns(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    fs.make_folder(name)
    fs.write_text(f"{name}/a", "text")
    path = fs.tensorflow_path(name)
    assert not set("[]*?\\") & set(path)
    assert fs.read_text(f"{path}/a") == "text"
    assert fs.tensorflow_path(f"{tmp_path}/plain name") == f"{tmp_path}/plain name"


def test_a_new_file_appears_when_it_is_complete(tmp_path):
    with fs.new_file(f"{tmp_path}/a") as path, open(path, "w") as file:
        file.write("new")
        assert not (tmp_path / "a").exists()
    assert contents(tmp_path) == {"a": b"new"}


def test_a_new_file_that_fails_leaves_the_old_one(tmp_path):
    def write_a_part():
        with fs.new_file(f"{tmp_path}/a") as path, open(path, "w") as file:
            file.write("ne")
            raise KeyboardInterrupt

    (tmp_path / "a").write_text("old")
    with pytest.raises(KeyboardInterrupt):
        write_a_part()
    assert contents(tmp_path) == {"a": b"old"}


def test_the_checksum_is_crc32c():
    assert fs.crc32c(b"123456789") == 0xE3069283  # the check value of the polynomial's catalogue
    assert fs.crc32c(b"") == 0

import os
import re
import signal
import socket

import pytest
from helpers import start

from trainer.storage import fs

HOLD = """
import sys, time
from trainer.storage import fs
with fs.exclusive_lock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_what_is_written_is_read(tmp_path):
    fs.write_text(f"{tmp_path}/a", "Größe\n")
    fs.write_bytes(f"{tmp_path}/b", b"\0\xff")
    assert fs.read_text(f"{tmp_path}/a") == "Größe\n"
    assert fs.read_bytes(f"{tmp_path}/b") == b"\0\xff"
    assert fs.size(f"{tmp_path}/b") == 2


def test_a_file_is_replaced_whole_and_nothing_is_left_beside_it(tmp_path):
    fs.write_text(f"{tmp_path}/a", "a longer text")
    fs.write_text(f"{tmp_path}/a", "short")
    assert contents(tmp_path) == {"a": b"short"}


def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "a"
    path.write_text("before")
    (tmp_path / "a.partial").mkdir()  # in the way of the temporary file
    with pytest.raises(Exception, match="partial"):
        fs.write_text(str(path), "after")
    assert path.read_text() == "before"


def test_names_are_sorted_and_folders_have_no_slash(tmp_path):
    for name in ("b", "a", "c"):
        (tmp_path / name).mkdir()
    (tmp_path / "c" / "d").write_text("")
    assert fs.list_names(str(tmp_path)) == ["a", "b", "c"]


def test_existence_of_files_and_folders(tmp_path):
    (tmp_path / "file").write_text("")
    fs.make_folder(f"{tmp_path}/x/y")
    fs.make_folder(f"{tmp_path}/x/y")
    found = [(fs.exists(f"{tmp_path}/{n}"), fs.is_folder(f"{tmp_path}/{n}")) for n in ("file", "x/y", "no")]
    assert found == [(True, False), (True, True), (False, False)]


def test_removing_takes_files_folders_and_nothing_alike(tmp_path):
    (tmp_path / "file").write_text("")
    fs.write_text(f"{tmp_path}/keep", "")
    fs.make_folder(f"{tmp_path}/x/y")
    for name in ("file", "x", "no"):
        fs.remove(f"{tmp_path}/{name}")
    assert fs.list_names(str(tmp_path)) == ["keep"]


def test_a_folder_is_copied_with_its_folders_and_the_original_stays(tmp_path):
    source = tmp_path / "from"
    (source / "variables" / "deep").mkdir(parents=True)
    (source / "saved_model.pb").write_bytes(b"graph")
    (source / "variables" / "deep" / "data").write_bytes(b"\0values")
    before = contents(source)
    fs.copy_folder(str(source), f"{tmp_path}/to")
    fs.copy_folder(f"{source}/", f"{tmp_path}/slash")
    assert contents(source) == contents(tmp_path / "to") == contents(tmp_path / "slash") == before


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/passwd", "..", "", "a\\b", "a\0b", "link/x"])
def test_a_name_that_leaves_its_folder_is_not_followed(tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/link").symlink_to(tmp_path)
    with pytest.raises(ValueError, match="must stay in that folder") as caught:
        fs.join_inside(str(tmp_path / "folder"), name)
    assert f"Received: {name!r}. It was not followed." in str(caught.value)


@pytest.mark.parametrize("folder", ["{}/folder", "gs://bucket/folder"])
def test_a_name_that_stays_is(tmp_path, folder):
    folder = folder.format(tmp_path)
    assert fs.join_inside(folder, "a/b..c.txt") == f"{folder}/a/b..c.txt"


def test_a_replaced_folder_holds_nothing_of_the_old_one(tmp_path):
    for name in ("old", "new"):
        fs.make_folder(f"{tmp_path}/{name}")
        fs.write_text(f"{tmp_path}/{name}/{name}", name)
    fs.replace_folder(f"{tmp_path}/new", f"{tmp_path}/old")
    assert contents(tmp_path) == {"old/new": b"new"}


def test_the_checksum_is_crc32c():
    assert fs.crc32c(b"123456789") == 0xE3069283  # the check value of the polynomial's catalogue
    assert fs.crc32c(b"") == 0


def test_a_folder_is_held_against_other_processes_until_its_holder_is_killed(tmp_path):
    folder = str(tmp_path / "run")
    holder = start(HOLD, folder)
    try:
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(ValueError, match="--model_dir must be used by one run at a time") as caught,
            fs.exclusive_lock(folder),
        ):
            pass
        assert folder in str(caught.value)
        assert f'"pid": {holder.pid}' in str(caught.value)
        assert socket.gethostname() in str(caught.value)
        assert "Wait for it to end, or choose another --model_dir." in str(caught.value)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with fs.exclusive_lock(folder):
            assert re.findall(r'"pid": (\d+)', (tmp_path / "run" / ".lock").read_text()) == [str(os.getpid())]
    finally:
        holder.kill()
        holder.communicate()


def test_a_failure_inside_gives_the_folder_back(tmp_path):
    with pytest.raises(RuntimeError), fs.exclusive_lock(str(tmp_path)):
        raise RuntimeError
    with fs.exclusive_lock(str(tmp_path)):
        pass

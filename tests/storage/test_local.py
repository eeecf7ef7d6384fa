"""Files and locks on this machine, through the filesystem layer."""

import json
import os
import signal
import socket
from pathlib import Path

import pytest
from helpers import start

from trainer.errors import UserError
from trainer.storage import fs, local, shared_disk

LOCK = """
import sys, time
from trainer.storage import fs, shared_disk
if "shared" in sys.argv:  # As if the disk were one of NFS.
    shared_disk.LOCAL_FILESYSTEMS = frozenset()
with fs.exclusive_lock(sys.argv[1]):
    print("locked", flush=True)
    time.sleep(60)
"""


SCRATCH = """
import sys, time
from trainer.storage import fs
print(fs.local_scratch("gs://bucket/run"), flush=True)
time.sleep(float(sys.argv[1]))
"""


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_writing_replaces_the_file_and_leaves_no_temporary_file(tmp_path):
    fs.write_text(f"{tmp_path}/a", "a longer text")
    fs.write_text(f"{tmp_path}/a", "short")
    assert contents(tmp_path) == {"a": b"short"}


def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "a"
    path.write_text("before")
    (tmp_path / "a.partial").mkdir()  # In the way of the temporary file.
    with pytest.raises(OSError, match="partial"):
        fs.write_text(str(path), "after")
    assert path.read_text() == "before"


@pytest.mark.parametrize("disk", ["local", "shared"])
def test_a_folder_is_locked_until_the_holder_is_killed(tmp_path, monkeypatch, disk):
    folder = str(tmp_path / "run")
    if disk == "shared":
        monkeypatch.setattr(shared_disk, "LOCAL_FILESYSTEMS", frozenset())
    holder = start(LOCK, folder, disk)
    try:
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(UserError) as caught, fs.exclusive_lock(folder):
            pass
        (problem,) = caught.value.problems
        assert problem.setting == "--model_dir"
        for words in (folder, f'"pid": "{holder.pid}"', socket.gethostname()):
            assert words in problem.received
        assert (tmp_path / "run" / ".lease").exists() is (disk == "shared")
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with fs.exclusive_lock(folder):
            assert json.loads((tmp_path / "run" / ".lock").read_text())["pid"] == str(os.getpid())
    finally:
        holder.kill()
        holder.communicate()


def test_a_lock_on_a_file_that_its_holder_removed_is_none(tmp_path, monkeypatch):
    def lock_late(file):
        os.remove(file.name)
        return True

    monkeypatch.setattr(local, "_try_lock", lock_late)
    with pytest.raises(UserError, match="be used by one run at a time"), fs.exclusive_lock(str(tmp_path)):
        pass


def test_an_exception_releases_the_lock(tmp_path):
    with pytest.raises(RuntimeError), fs.exclusive_lock(str(tmp_path)):
        raise RuntimeError
    with fs.exclusive_lock(str(tmp_path)):
        pass


@pytest.mark.parametrize("filesystems", [shared_disk.LOCAL_FILESYSTEMS, frozenset()])
def test_a_folder_that_was_locked_and_left_empty_is_removed(tmp_path, monkeypatch, filesystems):
    monkeypatch.setattr(shared_disk, "LOCAL_FILESYSTEMS", filesystems)
    with fs.exclusive_lock(str(tmp_path / "run")):
        pass
    assert not (tmp_path / "run").exists()


def test_scratch_folders_of_killed_processes_are_removed(tmp_path):
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    killed, running = (start(SCRATCH, 60, env=environment) for _ in range(2))
    folders = [Path(process.stdout.readline().strip()) for process in (killed, running)]
    (folders[0] / "ckpt-1.index").write_text("a file")
    (tmp_path / "hubtune-of-another-machine").mkdir()
    killed.kill()
    killed.wait()
    assert folders[0].exists()
    assert start(SCRATCH, 0, env=environment).wait(60) == 0
    running.kill()
    assert sorted(os.listdir(tmp_path)) == sorted([folders[1].parent.name, "hubtune-of-another-machine"])

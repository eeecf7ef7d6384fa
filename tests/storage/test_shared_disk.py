"""What the mounts of this machine, or those that a file describes, say of a folder."""

import os
import shutil
import tempfile

import pytest

from trainer.storage import shared_disk

MOUNTS = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:26 / /home rw - btrfs /dev/vdb rw,subvol=/home
31 22 0:50 / {folder}/nfs rw - nfs4 server:/export rw,vers=4.2,local_lock=none
32 31 0:51 / {folder}/nfs/scratch rw master:7 - tmpfs tmpfs rw
33 22 0:52 / {folder}/with\\040space rw - fuse.sshfs host:/ rw
34 22 0:53 / {folder}/covered rw - nfs server:/old rw
35 22 254:1 / {folder}/covered rw - xfs /dev/vdc rw
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "mountinfo").write_text(MOUNTS.format(folder=tmp_path))
    monkeypatch.setattr(shared_disk, "MOUNTS", str(tmp_path / "mountinfo"))
    for name in ("nfs/scratch", "nfs/runs/mine", "nfs-not", "with space/run", "covered"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "nfs")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "shared"),
    [
        ("", False),
        ("nfs", True),
        ("nfs/runs/mine", True),
        ("link/runs", True),
        ("nfs/scratch", False),
        ("nfs-not", False),
        ("with space/run", True),
        ("covered", False),
    ],
)
def test_the_innermost_mount_says_whether_others_may_write(folder, name, shared):
    assert shared_disk.is_shared(str(folder / name)) is shared


def test_a_disk_of_which_nothing_is_known_may_be_shared(tmp_path, monkeypatch):
    monkeypatch.setattr(shared_disk, "MOUNTS", str(tmp_path / "missing"))
    assert shared_disk.is_shared(str(tmp_path))


def test_the_mounts_of_this_machine_can_be_read():
    assert not shared_disk.is_shared("/dev/shm")


def test_an_identity_is_that_of_the_mount_and_of_the_machine_s_start(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    identity = shared_disk.mount_identity(str(tmp_path))
    assert shared_disk.mount_identity(str(tmp_path / "run")) == identity
    other = tempfile.mkdtemp(dir="/dev/shm")
    try:
        assert (shared_disk.mount_identity(other) == identity) is (os.stat(other).st_dev == os.stat(tmp_path).st_dev)
    finally:
        shutil.rmtree(other)
    monkeypatch.setattr(shared_disk, "BOOT_ID", str(tmp_path / "missing"))
    assert shared_disk.mount_identity(str(tmp_path)) != shared_disk.mount_identity(str(tmp_path))


def test_a_folder_that_is_missing_is_asked_for_again_without_an_error(tmp_path):
    shared_disk.refresh(str(tmp_path / "missing" / "run"))
    shared_disk.refresh(str(tmp_path))

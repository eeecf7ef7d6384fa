"""What is uploaded for a build. Builds themselves, started and followed: test_set_up_cloud."""

import io
import subprocess
import tarfile

import pytest

from trainer.cloud import image_builds


def test_the_source_is_what_git_tracks_the_same_bytes_for_the_same_files(tmp_path):
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    (tmp_path / "run.sh").write_text("echo\n")
    (tmp_path / "run.sh").chmod(0o755)
    (tmp_path / "secret").write_text("token")
    subprocess.run(["git", "add", "run.sh"], cwd=tmp_path, check=True)
    first = image_builds.archive(tmp_path)
    (tmp_path / "run.sh").touch()
    assert image_builds.archive(tmp_path) == first
    with tarfile.open(fileobj=io.BytesIO(first)) as tar:
        assert [(entry.name, entry.mode) for entry in tar] == [("run.sh", 0o755)]
    (tmp_path / "run.sh").write_text("echo 2\n")
    assert image_builds.mark(image_builds.archive(tmp_path)) != image_builds.mark(first)


def test_of_a_copy_without_its_history_the_source_is_what_gitignore_lets_through(tmp_path):
    (tmp_path / ".gitignore").write_text("/data/\n*.pyc\n")
    (tmp_path / "data").mkdir()
    for name in ("data/large", "task.pyc", "task.py"):
        (tmp_path / name).write_text("x")
    (tmp_path / "link").symlink_to("/etc/hostname")
    with tarfile.open(fileobj=io.BytesIO(image_builds.archive(tmp_path))) as tar:
        assert tar.getnames() == [".gitignore", "task.py"]


def test_without_git_nothing_is_uploaded(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="git must be installed"):
        image_builds.archive(tmp_path)

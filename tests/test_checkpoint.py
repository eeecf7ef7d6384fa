"""A series of checkpoints: what is kept, what counts, and what is done about damage."""

import dataclasses

import pytest
import tensorflow as tf

from trainer import checkpoint

START = tf.fill([500], -1.0)


def series(folder, keep=3) -> checkpoint.Series:
    """A fresh state of a few kilobytes and a string, as a run's is."""
    state = tf.train.Checkpoint(weights=tf.Variable(START), name=tf.Variable("", trainable=False))
    return checkpoint.Series(state, str(folder), keep)


def fill(saved: checkpoint.Series, *steps: int) -> None:
    for step in steps:
        saved.checkpoint.weights.assign(tf.fill([500], float(step)))
        saved.checkpoint.name.assign(f"at {step}")
        checkpoint.save(saved, step)


def holds(saved: checkpoint.Series) -> float:
    values = set(saved.checkpoint.weights.numpy().tolist())
    assert len(values) == 1
    return values.pop()


@pytest.fixture
def folder(tmp_path):
    """Checkpoints of steps 10, 20 and 30."""
    fill(series(tmp_path / "checkpoints"), 10, 20, 30)
    return tmp_path / "checkpoints"


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
    path.write_bytes(b"")


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def remove(path):
    path.unlink()


DAMAGES = [cut, empty, flip, remove]
FILES = ["index", "data-00000-of-00001"]


def test_a_folder_that_is_not_there_has_no_checkpoint(tmp_path):
    assert checkpoint.restore(series(tmp_path / "none")) is None
    assert checkpoint.steps(str(tmp_path / "none")) == []


def test_the_newest_is_restored(folder):
    fresh = series(folder)
    assert checkpoint.restore(fresh) == 30
    assert holds(fresh) == 30
    assert fresh.checkpoint.name.numpy() == b"at 30"


def test_it_is_a_plain_series_that_tensorflow_reads_by_itself(folder):
    latest = tf.train.latest_checkpoint(str(folder))
    assert latest == str(folder / "ckpt-30")
    state = tf.train.Checkpoint(weights=tf.Variable(START))
    state.restore(latest).expect_partial()
    assert state.weights.numpy()[0] == 30


def test_only_so_many_are_kept(folder):
    fill(series(folder, keep=2), 40, 50)
    assert checkpoint.steps(str(folder)) == [40, 50]
    assert {path.name for path in folder.iterdir()} == {
        "checkpoint",
        *(f"ckpt-{s}.{f}" for s in (40, 50) for f in FILES),
    }


def test_saving_a_step_again_replaces_it_and_costs_no_other(folder):
    again = series(folder)
    again.checkpoint.weights.assign(tf.fill([500], 7.0))
    checkpoint.save(again, 30)
    assert checkpoint.steps(str(folder)) == [10, 20, 30]
    fresh = series(folder)
    checkpoint.restore(fresh)
    assert holds(fresh) == 7


def test_deleting_step_1_leaves_step_10(tmp_path):
    fill(series(tmp_path, keep=2), 1, 10, 100)
    assert checkpoint.steps(str(tmp_path)) == [10, 100]
    assert not list(tmp_path.glob("ckpt-1.*"))
    assert checkpoint.damage(str(tmp_path / "ckpt-10")) is None


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", FILES)
def test_a_damaged_newest_is_named_and_the_one_before_taken(folder, file, damage, capsys):
    damage(folder / f"ckpt-30.{file}")
    fresh = series(folder)
    assert checkpoint.restore(fresh) == 20
    assert holds(fresh) == 20
    warning = capsys.readouterr().err
    assert "warning: not whole:" in warning
    assert f"{folder}/ckpt-30 (" in warning
    assert f"Going on from {folder}/ckpt-20." in warning
    assert checkpoint.steps(str(folder)) == [10, 20]  # dropped, so that it is not met again
    assert not list(folder.glob("ckpt-30*"))
    fill(fresh, 30)
    assert checkpoint.steps(str(folder)) == [10, 20, 30]


def test_a_whole_series_is_restored_without_a_word(folder, capsys):
    checkpoint.restore(series(folder))
    assert capsys.readouterr() == ("", "")


def test_if_all_are_damaged_nothing_is_restored_and_nothing_deleted(folder):
    for step in (10, 20, 30):
        flip(folder / f"ckpt-{step}.data-00000-of-00001")
    before = sorted(folder.iterdir())
    fresh = series(folder)
    with pytest.raises(ValueError, match="whole is required") as raised:
        checkpoint.restore(fresh)
    for words in ("ckpt-10 (", "ckpt-20 (", "ckpt-30 (", "--model_dir"):
        assert words in str(raised.value)
    assert holds(fresh) == -1
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize("content", ["", "no list\n", "model_checkpoint_path: \n"])
def test_a_list_that_cannot_be_read_is_not_taken_for_none(folder, content):
    (folder / "checkpoint").write_text(content)
    with pytest.raises(ValueError, match=r"must list the checkpoints\. Received: one that cannot be read\. Remove it"):
        checkpoint.restore(series(folder))


def test_the_folder_can_be_moved(folder, tmp_path):
    assert str(folder) not in (folder / "checkpoint").read_text()
    moved = folder.rename(tmp_path / "moved")
    fresh = series(moved)
    assert checkpoint.restore(fresh) == 30
    fill(fresh, 40)
    assert checkpoint.steps(str(moved)) == [20, 30, 40]


def test_files_that_were_written_but_not_committed_are_ignored(folder):
    cut_short = series(folder)
    cut_short.checkpoint.write(str(folder / "ckpt-40"))
    fresh = series(folder)
    assert checkpoint.restore(fresh) == 30
    assert holds(fresh) == 30
    fill(fresh, 40)
    assert checkpoint.steps(str(folder)) == [20, 30, 40]


def test_a_state_with_other_variables_is_refused(folder):
    other = series(folder)
    other.checkpoint.more = tf.Variable(1.0)
    with pytest.raises(AssertionError):
        checkpoint.restore(dataclasses.replace(other))

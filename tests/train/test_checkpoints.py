"""A series of checkpoints: what is kept, what counts, and what is done about damage."""

import dataclasses
import time

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from helpers import python

from trainer.train import checkpoints, optimizers

START = tf.fill([500], -1.0)


def series(folder, keep=3, background=False) -> checkpoints.CheckpointSeries:
    """A fresh state of a few kilobytes and a string, as a run's is."""
    state = tf.train.Checkpoint(weights=tf.Variable(START), name=tf.Variable("", trainable=False))
    return checkpoints.CheckpointSeries(state, str(folder), keep, background)


def put(saved: checkpoints.CheckpointSeries, step: int) -> None:
    """The state as it is at `step`."""
    saved.checkpoint.weights.assign(tf.fill([500], float(step)))
    saved.checkpoint.name.assign(f"at {step}")


def fill(saved: checkpoints.CheckpointSeries, *steps: int, wait: bool = True) -> None:
    for step in steps:
        put(saved, step)
        checkpoints.save_checkpoint(saved, step, wait=wait)


def holds(saved: checkpoints.CheckpointSeries) -> float:
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
    assert checkpoints.restore_newest(series(tmp_path / "none")) is None
    assert checkpoints.list_steps(str(tmp_path / "none")) == []


def test_the_newest_is_restored(folder):
    fresh = series(folder)
    assert checkpoints.restore_newest(fresh) == 30
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
    assert checkpoints.list_steps(str(folder)) == [40, 50]
    assert {path.name for path in folder.iterdir()} == {
        "checkpoint",
        *(f"ckpt-{s}.{f}" for s in (40, 50) for f in FILES),
    }


def test_saving_a_step_again_replaces_it_and_costs_no_other(folder):
    again = series(folder)
    again.checkpoint.weights.assign(tf.fill([500], 7.0))
    checkpoints.save_checkpoint(again, 30)
    assert checkpoints.list_steps(str(folder)) == [10, 20, 30]
    fresh = series(folder)
    checkpoints.restore_newest(fresh)
    assert holds(fresh) == 7


def test_deleting_step_1_leaves_step_10(tmp_path):
    fill(series(tmp_path, keep=2), 1, 10, 100)
    assert checkpoints.list_steps(str(tmp_path)) == [10, 100]
    assert not list(tmp_path.glob("ckpt-1.*"))
    assert checkpoints.find_corruption(str(tmp_path / "ckpt-10")) is None


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", FILES)
def test_a_damaged_newest_is_named_and_the_one_before_taken(folder, file, damage, capsys):
    damage(folder / f"ckpt-30.{file}")
    fresh = series(folder)
    assert checkpoints.restore_newest(fresh) == 20
    assert holds(fresh) == 20
    warning = capsys.readouterr().err
    assert "warning: not whole:" in warning
    assert f"{folder}/ckpt-30 (" in warning
    assert f"Going on from {folder}/ckpt-20." in warning
    assert checkpoints.list_steps(str(folder)) == [10, 20]  # dropped, so that it is not met again
    assert not list(folder.glob("ckpt-30*"))
    fill(fresh, 30)
    assert checkpoints.list_steps(str(folder)) == [10, 20, 30]


def test_a_whole_series_is_restored_without_a_word(folder, capsys):
    checkpoints.restore_newest(series(folder))
    assert capsys.readouterr() == ("", "")


def test_if_all_are_damaged_nothing_is_restored_and_nothing_deleted(folder):
    for step in (10, 20, 30):
        flip(folder / f"ckpt-{step}.data-00000-of-00001")
    before = sorted(folder.iterdir())
    fresh = series(folder)
    with pytest.raises(ValueError, match="whole is required") as raised:
        checkpoints.restore_newest(fresh)
    for words in ("ckpt-10 (", "ckpt-20 (", "ckpt-30 (", "--model_dir"):
        assert words in str(raised.value)
    assert holds(fresh) == -1
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize("content", ["", "no list\n", "model_checkpoint_path: \n"])
def test_a_list_that_cannot_be_read_is_not_taken_for_none(folder, content):
    (folder / "checkpoint").write_text(content)
    with pytest.raises(ValueError, match=r"must list the checkpoints\. Received: one that cannot be read\. Remove it"):
        checkpoints.restore_newest(series(folder))


@pytest.mark.parametrize("name", ["../other/ckpt-1", "/other/ckpt-1", "ckpt-1/../../ckpt-2", "other"])
def test_a_listed_name_that_leaves_the_folder_is_not_followed(tmp_path, name):
    fill(series(tmp_path), 1)
    (tmp_path / "checkpoint").write_text(
        f'model_checkpoint_path: "ckpt-1"\nall_model_checkpoint_paths: "{name}"\nall_model_checkpoint_paths: "ckpt-1"\n'
    )
    with pytest.raises(ValueError, match=f"of its own folder, ckpt-STEP. Received: '{name}'. It was not followed"):
        checkpoints.restore_newest(series(tmp_path))


def test_the_folder_can_be_moved(folder, tmp_path):
    assert str(folder) not in (folder / "checkpoint").read_text()
    moved = folder.rename(tmp_path / "moved")
    fresh = series(moved)
    assert checkpoints.restore_newest(fresh) == 30
    fill(fresh, 40)
    assert checkpoints.list_steps(str(moved)) == [20, 30, 40]


def test_files_that_were_written_but_not_committed_are_ignored(folder):
    cut_short = series(folder)
    cut_short.checkpoint.write(str(folder / "ckpt-40"))
    fresh = series(folder)
    assert checkpoints.restore_newest(fresh) == 30
    assert holds(fresh) == 30
    fill(fresh, 40)
    assert checkpoints.list_steps(str(folder)) == [20, 30, 40]


def test_a_state_with_other_variables_is_refused(folder):
    other = series(folder)
    other.checkpoint.more = tf.Variable(1.0)
    with pytest.raises(AssertionError):
        checkpoints.restore_newest(dataclasses.replace(other))


# --- Saves in the background ----------------------------------------------------------------------


def test_a_save_in_the_background_holds_the_values_of_its_call(tmp_path):
    training = series(tmp_path, background=True)
    for step in (10, 20, 30):  # the first is TensorFlow's copy by itself, the next by a function of its own
        fill(training, step, wait=False)
        put(training, -5)  # training goes on
    assert checkpoints.is_saved(training, 30)
    assert holds(training) == -5
    assert checkpoints.list_steps(str(tmp_path)) == [10, 20, 30]
    for step in (10, 20, 30):
        reader = tf.train.load_checkpoint(str(tmp_path / f"ckpt-{step}"))
        assert set(reader.get_tensor("weights/.ATTRIBUTES/VARIABLE_VALUE").tolist()) == {step}
        assert reader.get_tensor("name/.ATTRIBUTES/VARIABLE_VALUE") == b"at %d" % step
    for again in (training, series(tmp_path), series(tmp_path, background=True)):
        assert checkpoints.restore_newest(again) == 30
        assert holds(again) == 30
        assert again.checkpoint.name.numpy() == b"at 30"


def test_what_is_listed_while_a_save_goes_on_is_whole(tmp_path):
    large = tf.Variable(tf.zeros([4_000_000]))
    saving = checkpoints.CheckpointSeries(tf.train.Checkpoint(large=large), str(tmp_path), 3, background=True)
    for step in (1, 2, 3):
        large.assign(tf.fill([4_000_000], float(step)))
        checkpoints.save_checkpoint(saving, step, wait=False)
        large.assign(tf.fill([4_000_000], -1.0))
        until = time.monotonic() + 10
        while step not in checkpoints.list_steps(str(tmp_path)):
            assert time.monotonic() < until
        # Looked at without waiting for the thread.
        assert checkpoints.find_corruption(str(tmp_path / f"ckpt-{step}")) is None
        reader = tf.train.load_checkpoint(str(tmp_path / f"ckpt-{step}"))
        assert np.unique(reader.get_tensor("large/.ATTRIBUTES/VARIABLE_VALUE")).tolist() == [step]
    assert checkpoints.is_saved(saving, 3)


def test_a_save_in_the_background_deletes_what_is_beyond_keep(tmp_path):
    saving = series(tmp_path, keep=2, background=True)
    fill(saving, 1, 10, 100, 1000, wait=False)
    assert checkpoints.is_saved(saving, 1000)
    assert not checkpoints.is_saved(saving, 10)
    assert checkpoints.list_steps(str(tmp_path)) == [100, 1000]
    assert {path.name for path in tmp_path.iterdir()} == {
        "checkpoint",
        *(f"ckpt-{s}.{f}" for s in (100, 1000) for f in FILES),
    }


def test_a_save_that_is_waited_for_comes_after_the_one_in_the_background(tmp_path):
    saving = series(tmp_path, background=True)
    fill(saving, 10, wait=False)
    fill(saving, 20)
    assert checkpoints.list_steps(str(tmp_path)) == [10, 20]
    fill(saving, 30, wait=False)
    fill(saving, 30)  # a signal came in that very step
    assert checkpoints.list_steps(str(tmp_path)) == [10, 20, 30]
    fill(saving, 40, wait=False)
    assert checkpoints.is_saved(saving, 40)
    fresh = series(tmp_path)
    assert checkpoints.restore_newest(fresh) == 40
    assert holds(fresh) == 40


def test_a_save_that_is_not_waited_for_is_whole_at_once_without_a_background(tmp_path):
    fill(series(tmp_path), 10, wait=False)
    assert checkpoints.list_steps(str(tmp_path)) == [10]


def test_a_process_that_ends_at_once_ends_the_save_first(tmp_path):
    code = """
import sys, tensorflow as tf
from trainer.train import checkpoints
state = tf.train.Checkpoint(weights=tf.Variable(tf.fill([2_000_000], 7.0)))
checkpoints.save_checkpoint(checkpoints.CheckpointSeries(state, sys.argv[1], 3, background=True), 10, wait=False)
state.weights.assign_add(tf.ones([2_000_000]))
"""
    python("-c", f"import trainer{code}", tmp_path, check=True)
    assert checkpoints.list_steps(str(tmp_path)) == [10]
    assert checkpoints.find_corruption(str(tmp_path / "ckpt-10")) is None
    reader = tf.train.load_checkpoint(str(tmp_path / "ckpt-10"))
    assert np.unique(reader.get_tensor("weights/.ATTRIBUTES/VARIABLE_VALUE")).tolist() == [7]


@pytest.mark.parametrize("wait", [False, True])
def test_a_save_that_failed_in_the_background_is_named_and_the_next_is_waited_for(tmp_path, capsys, wait):
    saving = series(tmp_path, background=True)
    fill(saving, 10, wait=False)
    (tmp_path / "ckpt-20_temp").write_text("")  # where TensorFlow would make a folder
    fill(saving, 20, wait=False)
    assert not checkpoints.is_saved(saving, 20)
    assert checkpoints.list_steps(str(tmp_path)) == [10]
    for step in (30, 40):
        fill(saving, step, wait=wait)
        assert checkpoints.list_steps(str(tmp_path))[-1] == step
    assert "the checkpoint of step 20 could not be written" in capsys.readouterr().err
    assert_no_error_is_left(saving)


def test_a_list_that_cannot_be_replaced_is_a_save_that_failed(tmp_path):
    saving = series(tmp_path, background=True)
    fill(saving, 10, wait=False)
    assert checkpoints.is_saved(saving, 10)
    (tmp_path / "checkpoint.partial").mkdir()
    fill(saving, 20, wait=False)
    assert not checkpoints.is_saved(saving, 20)
    with pytest.raises(OSError, match=r"checkpoint\.partial"):
        fill(saving, 30, wait=False)
    (tmp_path / "checkpoint.partial").rmdir()
    fill(saving, 40)
    assert checkpoints.list_steps(str(tmp_path)) == [10, 40]
    assert_no_error_is_left(saving)


def assert_no_error_is_left(saving):
    """TensorFlow would raise what its thread raised once more when Python ends."""
    options = tf.train.CheckpointOptions(experimental_enable_async_checkpoint=True)
    with pytest.raises(tf.errors.OpError):
        saving.checkpoint.write(f"{saving.folder}/last", options)


def test_the_same_is_written_with_and_without_a_background(tmp_path):
    model = tf_keras.Sequential([tf_keras.layers.Dense(3, input_shape=(2,)), tf_keras.layers.Dense(1)])
    optimizer = optimizers.build_adamw(1e-3, 10, 0.1, 0.01)
    optimizers.create_slots(optimizer, model.trainable_variables)
    fingerprint = tf.Variable("f00", trainable=False)
    random = np.random.default_rng(0)
    for variable in (*model.variables, *optimizer.variables()):
        variable.assign(tf.cast(random.normal(10.0, 5.0, variable.shape), variable.dtype))
    state = tf.train.Checkpoint(model=model, optimizer=optimizer, fingerprint=fingerprint, weight=tf.Variable(3.0))
    found = []
    for step, background in ((1, False), (2, True), (3, True)):
        saving = checkpoints.CheckpointSeries(state, str(tmp_path), 3, background)
        checkpoints.save_checkpoint(saving, step, wait=False)
        assert checkpoints.is_saved(saving, step)
        reader = tf.train.load_checkpoint(str(tmp_path / f"ckpt-{step}"))
        names = set(reader.get_variable_to_shape_map()) - {"_CHECKPOINTABLE_OBJECT_GRAPH"}
        found.append(
            {name: np.asarray(reader.get_tensor(name)).tolist() for name in names if "save_counter" not in name}
        )
    assert len([name for name in found[0] if "OPTIMIZER_SLOT" in name]) == 2 * len(model.trainable_variables)
    assert found[0] == found[1] == found[2]

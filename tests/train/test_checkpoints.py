import dataclasses
import time

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from helpers import python

from trainer.errors import UserError
from trainer.train import checkpoints, optimizers

START = tf.fill([500], -1.0)


def new_series(folder, keep=3, background=False) -> checkpoints.CheckpointSeries:
    """A series with a new state: a few kilobytes of numbers and a string, as in a run."""
    state = tf.train.Checkpoint(weights=tf.Variable(START), name=tf.Variable("", trainable=False))
    return checkpoints.CheckpointSeries(state, str(folder), keep, background)


def set_values(saved: checkpoints.CheckpointSeries, step: int) -> None:
    """Give the state its values at `step`."""
    saved.checkpoint.weights.assign(tf.fill([500], float(step)))
    saved.checkpoint.name.assign(f"at {step}")


def save_steps(saved: checkpoints.CheckpointSeries, *steps: int, wait: bool = True) -> None:
    for step in steps:
        set_values(saved, step)
        checkpoints.save_checkpoint(saved, step, wait=wait)


def value_of(saved: checkpoints.CheckpointSeries) -> float:
    values = set(saved.checkpoint.weights.numpy().tolist())
    assert len(values) == 1
    return values.pop()


@pytest.fixture
def folder(tmp_path):
    """Checkpoints of steps 10, 20 and 30."""
    save_steps(new_series(tmp_path / "checkpoints"), 10, 20, 30)
    return tmp_path / "checkpoints"


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
    path.write_bytes(b"")


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def remove(path):
    path.unlink()


CORRUPTIONS = [truncate, empty, flip, remove]
FILES = ["index", "data-00000-of-00001"]


def test_a_missing_folder_has_no_checkpoint(tmp_path):
    assert checkpoints.restore_newest(new_series(tmp_path / "none")) is None
    assert checkpoints.list_steps(str(tmp_path / "none")) == []


def test_the_newest_checkpoint_is_restored(folder):
    fresh = new_series(folder)
    assert checkpoints.restore_newest(fresh) == 30
    assert value_of(fresh) == 30
    assert fresh.checkpoint.name.numpy() == b"at 30"


def test_tensorflow_itself_can_read_the_series(folder):
    latest = tf.train.latest_checkpoint(str(folder))
    assert latest == str(folder / "ckpt-30")
    state = tf.train.Checkpoint(weights=tf.Variable(START))
    state.restore(latest).expect_partial()
    assert state.weights.numpy()[0] == 30


def test_older_checkpoints_are_deleted(folder):
    save_steps(new_series(folder, keep=2), 40, 50)
    assert checkpoints.list_steps(str(folder)) == [40, 50]
    assert {path.name for path in folder.iterdir()} == {
        "checkpoint",
        *(f"ckpt-{s}.{f}" for s in (40, 50) for f in FILES),
    }


def test_saving_a_step_again_replaces_its_checkpoint_alone(folder):
    again = new_series(folder)
    again.checkpoint.weights.assign(tf.fill([500], 7.0))
    checkpoints.save_checkpoint(again, 30)
    assert checkpoints.list_steps(str(folder)) == [10, 20, 30]
    fresh = new_series(folder)
    checkpoints.restore_newest(fresh)
    assert value_of(fresh) == 7


def test_deleting_step_1_keeps_step_10(tmp_path):
    save_steps(new_series(tmp_path, keep=2), 1, 10, 100)
    assert checkpoints.list_steps(str(tmp_path)) == [10, 100]
    assert not list(tmp_path.glob("ckpt-1.*"))
    assert checkpoints.find_corruption(str(tmp_path / "ckpt-10")) is None


@pytest.mark.parametrize("corrupt", CORRUPTIONS)
@pytest.mark.parametrize("file", FILES)
def test_a_corrupt_checkpoint_is_named_and_the_previous_restored(folder, file, corrupt, caplog):
    corrupt(folder / f"ckpt-30.{file}")
    fresh = new_series(folder)
    assert checkpoints.restore_newest(fresh) == 20
    assert value_of(fresh) == 20
    warning = caplog.text
    assert "corrupt: " in warning
    assert f"{folder}/ckpt-30 (" in warning
    assert f"Resuming from {folder}/ckpt-20." in warning
    assert checkpoints.list_steps(str(folder)) == [10, 20]  # deleted, so that it is not read again
    assert not list(folder.glob("ckpt-30*"))
    save_steps(fresh, 30)
    assert checkpoints.list_steps(str(folder)) == [10, 20, 30]


def test_an_intact_series_is_restored_without_a_message(folder, caplog):
    checkpoints.restore_newest(new_series(folder))
    assert not [record for record in caplog.records if record.name.startswith("trainer.")]


def test_if_all_are_corrupt_none_is_restored_or_deleted(folder):
    for step in (10, 20, 30):
        flip(folder / f"ckpt-{step}.data-00000-of-00001")
    before = sorted(folder.iterdir())
    fresh = new_series(folder)
    with pytest.raises(ValueError, match="must be complete") as raised:
        checkpoints.restore_newest(fresh)
    for words in ("ckpt-10 (", "ckpt-20 (", "ckpt-30 (", "--model_dir"):
        assert words in str(raised.value)
    assert value_of(fresh) == -1
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize("content", ["", "no list\n", "model_checkpoint_path: \n"])
def test_an_unreadable_list_is_an_error(folder, content):
    (folder / "checkpoint").write_text(content)
    with pytest.raises(ValueError, match=r"must list the checkpoints\."):
        checkpoints.restore_newest(new_series(folder))


@pytest.mark.parametrize("name", ["../other/ckpt-1", "/other/ckpt-1", "ckpt-1/../../ckpt-2", "other"])
def test_a_listed_path_outside_the_folder_is_rejected(tmp_path, name):
    save_steps(new_series(tmp_path), 1)
    (tmp_path / "checkpoint").write_text(
        f'model_checkpoint_path: "ckpt-1"\nall_model_checkpoint_paths: "{name}"\nall_model_checkpoint_paths: "ckpt-1"\n'
    )
    with pytest.raises(ValueError, match=f"of its own folder, ckpt-STEP. Received: '{name}'. It was not followed"):
        checkpoints.restore_newest(new_series(tmp_path))


def test_the_folder_can_be_moved(folder, tmp_path):
    assert str(folder) not in (folder / "checkpoint").read_text()
    moved = folder.rename(tmp_path / "moved")
    fresh = new_series(moved)
    assert checkpoints.restore_newest(fresh) == 30
    save_steps(fresh, 40)
    assert checkpoints.list_steps(str(moved)) == [20, 30, 40]


def test_files_that_were_not_committed_are_ignored(folder):
    unfinished = new_series(folder)
    unfinished.checkpoint.write(str(folder / "ckpt-40"))
    fresh = new_series(folder)
    assert checkpoints.restore_newest(fresh) == 30
    assert value_of(fresh) == 30
    save_steps(fresh, 40)
    assert checkpoints.list_steps(str(folder)) == [20, 30, 40]


def test_a_state_with_other_variables_is_rejected(folder):
    other = new_series(folder)
    other.checkpoint.more = tf.Variable(1.0)
    with pytest.raises(UserError, match=r"step 30 must hold the variables of this run's model.*--model_dir"):
        checkpoints.restore_newest(dataclasses.replace(other))


# --- Saves in the background ----------------------------------------------------------------------


def test_a_background_save_holds_the_values_at_its_call(tmp_path):
    training = new_series(tmp_path, background=True)
    for step in (10, 20, 30):  # TensorFlow copies the variables in two ways, for the first save and for later ones
        save_steps(training, step, wait=False)
        set_values(training, -5)  # training continues
    assert checkpoints.is_saved(training, 30)
    assert value_of(training) == -5
    assert checkpoints.list_steps(str(tmp_path)) == [10, 20, 30]
    for step in (10, 20, 30):
        reader = tf.train.load_checkpoint(str(tmp_path / f"ckpt-{step}"))
        assert set(reader.get_tensor("weights/.ATTRIBUTES/VARIABLE_VALUE").tolist()) == {step}
        assert reader.get_tensor("name/.ATTRIBUTES/VARIABLE_VALUE") == b"at %d" % step
    for again in (training, new_series(tmp_path), new_series(tmp_path, background=True)):
        assert checkpoints.restore_newest(again) == 30
        assert value_of(again) == 30
        assert again.checkpoint.name.numpy() == b"at 30"


def test_a_checkpoint_is_complete_when_it_is_listed(tmp_path):
    large = tf.Variable(tf.zeros([4_000_000]))
    saving = checkpoints.CheckpointSeries(tf.train.Checkpoint(large=large), str(tmp_path), 3, background=True)
    for step in (1, 2, 3):
        large.assign(tf.fill([4_000_000], float(step)))
        checkpoints.save_checkpoint(saving, step, wait=False)
        large.assign(tf.fill([4_000_000], -1.0))
        deadline = time.monotonic() + 60
        while step not in checkpoints.list_steps(str(tmp_path)):
            assert time.monotonic() < deadline
        # Without waiting for the thread.
        assert checkpoints.find_corruption(str(tmp_path / f"ckpt-{step}")) is None
        reader = tf.train.load_checkpoint(str(tmp_path / f"ckpt-{step}"))
        assert np.unique(reader.get_tensor("large/.ATTRIBUTES/VARIABLE_VALUE")).tolist() == [step]
    assert checkpoints.is_saved(saving, 3)


def test_a_background_save_deletes_older_checkpoints(tmp_path):
    saving = new_series(tmp_path, keep=2, background=True)
    save_steps(saving, 1, 10, 100, 1000, wait=False)
    assert checkpoints.is_saved(saving, 1000)
    assert not checkpoints.is_saved(saving, 10)
    assert checkpoints.list_steps(str(tmp_path)) == [100, 1000]
    assert {path.name for path in tmp_path.iterdir()} == {
        "checkpoint",
        *(f"ckpt-{s}.{f}" for s in (100, 1000) for f in FILES),
    }


def test_a_waiting_save_comes_after_the_background_save(tmp_path):
    saving = new_series(tmp_path, background=True)
    save_steps(saving, 10, wait=False)
    save_steps(saving, 20)
    assert checkpoints.list_steps(str(tmp_path)) == [10, 20]
    save_steps(saving, 30, wait=False)
    save_steps(saving, 30)  # as after a signal in the same step
    assert checkpoints.list_steps(str(tmp_path)) == [10, 20, 30]
    save_steps(saving, 40, wait=False)
    assert checkpoints.is_saved(saving, 40)
    fresh = new_series(tmp_path)
    assert checkpoints.restore_newest(fresh) == 40
    assert value_of(fresh) == 40


def test_without_background_saves_a_save_is_complete_at_once(tmp_path):
    save_steps(new_series(tmp_path), 10, wait=False)
    assert checkpoints.list_steps(str(tmp_path)) == [10]


def test_a_process_completes_its_save_before_it_ends(tmp_path):
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
def test_a_failed_background_save_is_named_and_saving_continues(tmp_path, caplog, wait):
    saving = new_series(tmp_path, background=True)
    save_steps(saving, 10, wait=False)
    (tmp_path / "ckpt-20_temp").write_text("")  # where TensorFlow would make a folder
    save_steps(saving, 20, wait=False)
    assert not checkpoints.is_saved(saving, 20)
    assert checkpoints.list_steps(str(tmp_path)) == [10]
    for step in (30, 40):
        save_steps(saving, step, wait=wait)
        assert checkpoints.list_steps(str(tmp_path))[-1] == step
    assert "the checkpoint of step 20 could not be written" in caplog.text
    assert_no_error_is_left(saving)


def test_a_list_that_cannot_be_replaced_is_a_failed_save(tmp_path):
    saving = new_series(tmp_path, background=True)
    save_steps(saving, 10, wait=False)
    assert checkpoints.is_saved(saving, 10)
    (tmp_path / "checkpoint.partial").mkdir()
    save_steps(saving, 20, wait=False)
    assert not checkpoints.is_saved(saving, 20)
    with pytest.raises(OSError, match=r"checkpoint\.partial"):
        save_steps(saving, 30, wait=False)
    (tmp_path / "checkpoint.partial").rmdir()
    save_steps(saving, 40)
    assert checkpoints.list_steps(str(tmp_path)) == [10, 40]
    assert_no_error_is_left(saving)


def assert_no_error_is_left(saving):
    """An error of the thread that nobody has read would be raised again when Python ends."""
    options = tf.train.CheckpointOptions(experimental_enable_async_checkpoint=True)
    with pytest.raises((tf.errors.OpError, OSError)):
        saving.checkpoint.write(f"{saving.folder}/last", options)


def test_background_saves_write_the_same_tensors(tmp_path):
    model = tf_keras.Sequential([tf_keras.layers.Dense(3, input_shape=(2,)), tf_keras.layers.Dense(1)])
    optimizer = optimizers.build_adamw(1e-3, 10, 0.1, 0.01)
    optimizers.create_slots(optimizer, model.trainable_variables)
    fingerprint = tf.Variable("f00", trainable=False)
    random = np.random.default_rng(0)
    for variable in (*model.variables, *optimizer.variables()):
        variable.assign(tf.cast(random.normal(10.0, 5.0, variable.shape), variable.dtype))
    state = tf.train.Checkpoint(model=model, optimizer=optimizer, fingerprint=fingerprint, weight=tf.Variable(3.0))
    saved = []
    for step, background in ((1, False), (2, True), (3, True)):
        saving = checkpoints.CheckpointSeries(state, str(tmp_path), 3, background)
        checkpoints.save_checkpoint(saving, step, wait=False)
        assert checkpoints.is_saved(saving, step)
        reader = tf.train.load_checkpoint(str(tmp_path / f"ckpt-{step}"))
        names = set(reader.get_variable_to_shape_map()) - {"_CHECKPOINTABLE_OBJECT_GRAPH"}
        saved.append(
            {name: np.asarray(reader.get_tensor(name)).tolist() for name in names if "save_counter" not in name}
        )
    assert len([name for name in saved[0] if "OPTIMIZER_SLOT" in name]) == 2 * len(model.trainable_variables)
    assert saved[0] == saved[1] == saved[2]

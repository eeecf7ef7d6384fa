"""A series of checkpoints, of which only complete ones count.

A folder is a plain tf.train.Checkpoint series: ckpt-<step>, and the file `checkpoint` that lists those that are kept.
Only that file commits a checkpoint, and it is replaced as a unit: a checkpoint that was interrupted is never seen.

TensorFlow writes and reads local files alone. Those of a series in a bucket are uploaded before they are committed, and
downloaded before they are read, each checked against its CRC32C.
"""

import contextlib
import dataclasses
import logging
import re
import shutil
from collections.abc import Iterator, Sequence

import tensorflow as tf
from google.protobuf import text_format
from tensorflow.python.training.checkpoint_state_pb2 import CheckpointState

from trainer.errors import Problem, UserError
from trainer.storage import fs

CHECKPOINT_PREFIX = "ckpt-"
# What TensorFlow raises for a local file that it may not read, or if the disk fails: the file may be complete.
UNREADABLE_ERRORS = (tf.errors.PermissionDeniedError, tf.errors.UnknownError)
# For variables on a host that is gone. To write a file that is on this one raises none of these.
LOST_HOST_ERRORS = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.UnavailableError,
)

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass
class CheckpointSeries:
    """The checkpoints of one state in one folder, of which the newest `keep` are kept."""

    checkpoint: tf.train.Checkpoint
    folder: str
    keep: int
    background: bool = False  # A thread may write a save. Restore before the first such save.
    io_device: str | None = None  # remote_hosts.coordinator_device: files are read and written there.
    unfinished_step: int | None = None  # Of a save in the background that is not committed.
    # Where TensorFlow writes and reads: `folder`, or scratch space if that is in a bucket.
    local_folder: str = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.local_folder = fs.local_scratch(self.folder)


def check_scratch_space(series: CheckpointSeries, needed_bytes: int) -> None:
    """Raises UserError if a series in a bucket has less local space to be written in than `needed_bytes`."""
    free_bytes = shutil.disk_usage(series.local_folder).free if series.local_folder != series.folder else needed_bytes
    if free_bytes < needed_bytes:
        required = f"have {needed_bytes / 1e6:,.0f} MB for checkpoints on their way to {series.folder}"
        received = f"{free_bytes / 1e6:,.0f} MB in {fs.scratch_root()}"
        raise UserError(Problem("The folder of temporary files", required, received, "Set TMPDIR to another folder."))


def list_checkpoints(folder: str) -> list[str]:
    """The committed checkpoints' prefixes, oldest first.

    Raises UserError for a list that cannot be parsed, and what reading raises if storage fails: a failure that counted
    as "none" would start the run again at step 0.
    """
    path = fs.join(folder, "checkpoint")
    # TensorFlow's own function takes a file that cannot be read for a missing one.
    state = CheckpointState()
    try:
        text_format.Parse(fs.read_text(path), state)
    except FileNotFoundError:
        return []
    except (text_format.ParseError, UnicodeDecodeError):
        state = CheckpointState()
    if not state.model_checkpoint_path:
        advice = "Remove it to start the run again."
        raise UserError(Problem(path, "list the checkpoints", "one that cannot be parsed", advice))
    foreign = [name for name in state.all_model_checkpoint_paths if not re.fullmatch(rf"{CHECKPOINT_PREFIX}\d+", name)]
    if foreign:  # A listed checkpoint is read, and deleted when it is old.
        required = f"list checkpoints of its own folder, {CHECKPOINT_PREFIX}STEP"
        raise UserError(Problem(path, required, repr(foreign[0]), "It was not followed."))
    return [fs.join(folder, name) for name in state.all_model_checkpoint_paths]


def step_of(prefix: str) -> int:
    """ ".../ckpt-20" -> 20."""
    return int(prefix.rsplit(CHECKPOINT_PREFIX, 1)[1])


def list_steps(folder: str) -> list[int]:
    """The committed checkpoints' steps, oldest first."""
    return [step_of(prefix) for prefix in list_checkpoints(folder)]


def _commit(folder: str, steps: Sequence[int]) -> None:
    """List these, the newest last, in TensorFlow's own format. The list has names alone, so the folder can be moved."""
    names = [f"{CHECKPOINT_PREFIX}{step}" for step in steps]
    lines = [f'model_checkpoint_path: "{names[-1]}"', *(f'all_model_checkpoint_paths: "{name}"' for name in names)]
    fs.write_text(fs.join(folder, "checkpoint"), "\n".join(lines) + "\n")


def list_files(folder: str, name: str) -> list[str]:
    """The names of a checkpoint's files: its index, and its tensors in one or more."""
    return [file for file in fs.list_names(folder) if file.startswith((f"{name}.index", f"{name}.data-"))]


def _delete(folder: str, name: str) -> None:
    for file in list_files(folder, name):
        fs.remove(fs.join(folder, file))


def _delete_local_copy(series: CheckpointSeries, name: str) -> None:
    if series.local_folder != series.folder:
        _delete(series.local_folder, name)


def save_checkpoint(series: CheckpointSeries, step: int, *, wait: bool = True) -> None:
    """Write the checkpoint of `step`, commit it, and delete the oldest beyond `keep`.

    With `wait` off and series.background, the caller waits only for a copy of the variables, and for the save before
    this one if that is still being written or uploaded. Raises OSError if it cannot be written or uploaded. The next
    save warns of one that failed in the background, and is not written in the background: if it fails, it raises.
    """
    series.checkpoint.sync()
    fs.make_folder(series.local_folder)  # Also where a cleaner of temporary files has removed it.
    if series.unfinished_step is not None:
        _LOG.warning("the checkpoint of step %s could not be written.", series.unfinished_step)
        series.background, series.unfinished_step = False, None
    background = series.background and not wait
    if background:
        series.unfinished_step = step
    name = f"{CHECKPOINT_PREFIX}{step}"

    def commit(_: str) -> None:
        if series.local_folder != series.folder:
            try:
                for file in list_files(series.local_folder, name):
                    fs.copy_file(fs.join(series.local_folder, file), fs.join(series.folder, file))
            finally:
                _delete_local_copy(series, name)
        before = [step_of(p) for p in list_checkpoints(series.folder) if step_of(p) != step]
        kept = [*before, step][-series.keep :]
        _commit(series.folder, kept)
        for old in set(before) - set(kept):
            _delete(series.folder, f"{CHECKPOINT_PREFIX}{old}")
        series.unfinished_step = None

    options = tf.train.CheckpointOptions(
        experimental_enable_async_checkpoint=background,
        experimental_write_callbacks=[commit],
        experimental_io_device=series.io_device,
    )
    try:
        series.checkpoint.write(fs.join(series.local_folder, name), options)
    except LOST_HOST_ERRORS:
        raise
    except tf.errors.OpError as error:
        reason = str(error).splitlines()[0].split("}} ", 1)[-1][:250]
        raise OSError(
            f"{fs.join(series.folder, name)} could not be written. Received: {type(error).__name__}, {reason}. Run the "
            "same command again to resume from the checkpoint before it."
        ) from None


def is_saved(series: CheckpointSeries, step: int) -> bool:
    """Whether the checkpoint of `step` is committed. Waits for a save in the background."""
    series.checkpoint.sync()
    return step in list_steps(series.folder)


def find_corruption(prefix: str) -> str | None:
    """Why a local checkpoint is corrupt, None if it is complete. Reads every tensor, and so verifies every checksum.

    Raises OSError if it cannot be read: it may be complete then.
    """
    try:
        reader = tf.train.load_checkpoint(prefix)
        for name in reader.get_variable_to_shape_map():
            reader.get_tensor(name)
    except UNREADABLE_ERRORS as error:
        raise OSError(f"{prefix} could not be read ({str(error).splitlines()[0][:200]}).") from None
    except (tf.errors.OpError, IndexError, ValueError, RuntimeError) as error:
        return str(error).splitlines()[0][:200]
    return None


def download_checkpoint(prefix: str) -> str:
    """The prefix to read a checkpoint at: that of a local copy, verified by checksum, of one in a bucket.

    The copy lives as long as the process.
    """
    folder, _, name = prefix.rpartition("/")
    if not fs.in_bucket(prefix):
        return fs.join(fs.tensorflow_path(folder), name)
    return fs.join(fs.local_copy(folder, list_files(folder, name)), name)


@contextlib.contextmanager
def background_saves_finished(series: CheckpointSeries) -> Iterator[None]:
    """At the end of the block, also after an exception, wait for a save in the background."""
    try:
        yield
    finally:
        series.checkpoint.sync()


@contextlib.contextmanager
def _local_checkpoint(series: CheckpointSeries, step: int) -> Iterator[str]:
    """The local prefix of a committed checkpoint, for as long as the block lasts if it is in a bucket."""
    name = f"{CHECKPOINT_PREFIX}{step}"
    if series.local_folder == series.folder:
        yield download_checkpoint(fs.join(series.folder, name))
        return
    try:
        for file in list_files(series.folder, name):
            fs.copy_file(fs.join(series.folder, file), fs.join(series.local_folder, file))
        yield fs.join(series.local_folder, name)
    finally:
        _delete_local_copy(series, name)


def _restore(series: CheckpointSeries, step: int) -> str | None:
    """Restore a checkpoint. Returns why it is corrupt, None if it has been restored.

    Raises UserError if it is of another model. Encoders that an earlier version did not rebuild have such checkpoints.
    """
    with _local_checkpoint(series, step) as prefix:
        corruption = find_corruption(prefix)
        if corruption is None:
            options = tf.train.CheckpointOptions(experimental_io_device=series.io_device)
            status = series.checkpoint.read(prefix, options)
            try:
                status.assert_existing_objects_matched()
            except AssertionError:
                required = "hold the variables of this run's model"
                advice = "Start again with another --model_dir; --init_from takes the weights of a finished run."
                raise UserError(Problem(f"The checkpoint of step {step}", required, "others", advice)) from None
        return corruption


def restore_step(series: CheckpointSeries, step: int) -> None:
    """Restore the checkpoint of `step`. Changes nothing in the folder. Raises UserError if it is missing or corrupt."""
    corruption = _restore(series, step)
    if corruption is not None:
        received = f"{fs.join(series.folder, f'{CHECKPOINT_PREFIX}{step}')} ({corruption})"
        raise UserError(Problem(f"The checkpoint of step {step}", "be complete", received))


def restore_newest(series: CheckpointSeries) -> int | None:
    """Restore the newest complete checkpoint. Returns its step, None if the series has none yet.

    Warns of a corrupt one, deletes it, and falls back to the one before it. Raises UserError if all are corrupt: to
    start again would silently discard the run's work.
    """
    prefixes = list_checkpoints(series.folder)
    corrupt: dict[str, str] = {}
    for index, prefix in reversed(list(enumerate(prefixes))):
        corruption = _restore(series, step_of(prefix))
        if corruption is not None:
            corrupt[prefix] = f"{prefix} ({corruption})"
            continue
        if corrupt:
            _LOG.warning("corrupt: %s. Resuming from %s.", "; ".join(corrupt.values()), prefix)
            _commit(series.folder, list(map(step_of, prefixes[: index + 1])))
            for corrupt_prefix in corrupt:
                _delete(*corrupt_prefix.rsplit("/", 1))
        return step_of(prefix)
    if corrupt:
        advice = "Use another --model_dir to start again."
        raise UserError(Problem("One of the run's checkpoints", "be complete", "; ".join(corrupt.values()), advice))
    return None

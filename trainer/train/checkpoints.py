"""A series of checkpoints, of which only complete ones count.

A folder is a plain tf.train.Checkpoint series: ckpt-<step>, and the file `checkpoint` that lists those that are kept.
Only that file commits a checkpoint, and it is replaced as a unit: a checkpoint that was interrupted is never seen.
"""

import contextlib
import dataclasses
import logging
import re
from collections.abc import Iterator, Sequence

import tensorflow as tf
from google.protobuf import text_format
from tensorflow.python.training.checkpoint_state_pb2 import CheckpointState

from trainer.errors import Problem, UserError
from trainer.storage import fs

CHECKPOINT_PREFIX = "ckpt-"
# TensorFlow reads the parts of a checkpoint again to join them. If they come back corrupt, all is written once more.
MAX_WRITE_ATTEMPTS = 3

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


def list_checkpoints(folder: str) -> list[str]:
    """The committed checkpoints' prefixes, oldest first.

    Raises UserError for a list that cannot be parsed, and what reading raises if storage fails: a failure that counted
    as "none" would start the run again at step 0.
    """
    path = fs.join(folder, "checkpoint")
    if not fs.exists(path):
        return []
    # TensorFlow's own function returns None if storage cannot be reached.
    state = CheckpointState()
    try:
        text_format.Parse(fs.read_text(path), state)
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


def _commit(folder: str, prefixes: Sequence[str]) -> None:
    """List these, the newest last, in TensorFlow's own format. The list has names alone, so the folder can be moved."""
    names = [prefix.rsplit("/", 1)[-1] for prefix in prefixes]
    lines = [f'model_checkpoint_path: "{names[-1]}"', *(f'all_model_checkpoint_paths: "{name}"' for name in names)]
    fs.write_text(fs.join(folder, "checkpoint"), "\n".join(lines) + "\n")


def _delete(prefix: str) -> None:
    folder, _, name = prefix.rpartition("/")
    for file in fs.list_names(folder):
        if file.startswith((f"{name}.index", f"{name}.data-")):
            fs.remove(fs.join(folder, file))


def save_checkpoint(series: CheckpointSeries, step: int, *, wait: bool = True) -> None:
    """Write the checkpoint of `step`, commit it, and delete the oldest beyond `keep`.

    With `wait` off and series.background, the caller waits only for a copy of the variables, and for the save before
    this one if that is still being written. Raises what writing raises, OSError if storage cannot be reached. The next
    save warns of one that failed in the background, and is not written in the background: if it fails, it raises.
    """
    series.checkpoint.sync()
    fs.make_folder(series.folder)
    if series.unfinished_step is not None:
        _LOG.warning("the checkpoint of step %s could not be written.", series.unfinished_step)
        series.background, series.unfinished_step = False, None
    background = series.background and not wait
    if background:
        series.unfinished_step = step

    def commit(prefix: str) -> None:
        before = [p for p in list_checkpoints(series.folder) if p != prefix]
        kept = [*before, prefix][-series.keep :]
        _commit(series.folder, kept)
        for old in set(before) - set(kept):
            _delete(old)
        series.unfinished_step = None

    options = tf.train.CheckpointOptions(
        experimental_enable_async_checkpoint=background,
        experimental_write_callbacks=[commit],
        experimental_io_device=series.io_device,
    )
    path = fs.join(series.folder, f"{CHECKPOINT_PREFIX}{step}")
    try:
        for left in reversed(range(MAX_WRITE_ATTEMPTS)):
            try:
                series.checkpoint.write(path, options)
                break
            except (tf.errors.DataLossError, tf.errors.OutOfRangeError):
                if not left:
                    raise
    except STORAGE_ERRORS as error:  # As such they would look like the loss of another worker.
        reason = str(error).splitlines()[0].split("}} ", 1)[-1][:250]
        raise OSError(
            f"{path} could not be written. Received: {type(error).__name__}, {reason}. Run the same command again to "
            "resume from the checkpoint before it."
        ) from None


def is_saved(series: CheckpointSeries, step: int) -> bool:
    """Whether the checkpoint of `step` is committed. Waits for a save in the background."""
    series.checkpoint.sync()
    return step in list_steps(series.folder)


# What TensorFlow raises if storage cannot be reached or read. No checkpoint is corrupt then. Aborted: no retry is left.
STORAGE_ERRORS = (
    tf.errors.AbortedError,
    tf.errors.DeadlineExceededError,
    tf.errors.PermissionDeniedError,
    tf.errors.UnauthenticatedError,
    tf.errors.UnavailableError,
)


def find_corruption(prefix: str) -> str | None:
    """Why a checkpoint is corrupt, None if it is complete. Reads every tensor, and so verifies every checksum.

    Raises one of STORAGE_ERRORS if storage cannot be reached.
    """
    try:
        reader = tf.train.load_checkpoint(prefix)
        for name in reader.get_variable_to_shape_map():
            reader.get_tensor(name)
    except STORAGE_ERRORS:
        raise
    except (tf.errors.OpError, IndexError, ValueError, RuntimeError) as error:
        return str(error).splitlines()[0][:200]
    return None


def download_checkpoint(prefix: str) -> str:
    """The prefix to read a checkpoint at: its own, or that of a local copy of one in a bucket, verified by checksum.

    If it was read from the bucket, a byte flipped in transit would look like a corrupt checkpoint, and delete it.
    """
    folder, _, name = prefix.rpartition("/")
    if not fs.in_bucket(prefix):
        return fs.join(fs.tensorflow_path(folder), name)
    files = [file for file in fs.list_names(folder) if file.startswith((f"{name}.index", f"{name}.data-"))]
    return fs.join(fs.local_copy(folder, files), name)


@contextlib.contextmanager
def background_saves_finished(series: CheckpointSeries) -> Iterator[None]:
    """At the end of the block, also after an exception, wait for a save in the background."""
    try:
        yield
    finally:
        series.checkpoint.sync()


def _read(series: CheckpointSeries, prefix: str) -> None:
    options = tf.train.CheckpointOptions(experimental_io_device=series.io_device)
    series.checkpoint.read(prefix, options).assert_existing_objects_matched()


def restore_step(series: CheckpointSeries, step: int) -> None:
    """Restore the checkpoint of `step`. Changes nothing in the folder. Raises UserError if it is missing or corrupt."""
    prefix = fs.join(series.folder, f"{CHECKPOINT_PREFIX}{step}")
    local_prefix = download_checkpoint(prefix)
    corruption = find_corruption(local_prefix)
    if corruption is not None:
        raise UserError(Problem(f"The checkpoint of step {step}", "be complete", f"{prefix} ({corruption})"))
    _read(series, local_prefix)


def restore_newest(series: CheckpointSeries) -> int | None:
    """Restore the newest complete checkpoint. Returns its step, None if the series has none yet.

    Warns of a corrupt one, deletes it, and falls back to the one before it. Raises UserError if all are corrupt: to
    start again would silently discard the run's work.
    """
    prefixes = list_checkpoints(series.folder)
    corrupt = []
    for index in reversed(range(len(prefixes))):
        prefix = prefixes[index]
        local_prefix = download_checkpoint(prefix)
        corruption = find_corruption(local_prefix)
        if corruption is not None:
            corrupt.append(f"{prefix} ({corruption})")
            continue
        if corrupt:
            _LOG.warning("corrupt: %s. Resuming from %s.", "; ".join(corrupt), prefix)
            _commit(series.folder, prefixes[: index + 1])
            for prefix_after in prefixes[index + 1 :]:
                _delete(prefix_after)
        _read(series, local_prefix)
        return step_of(prefix)
    if corrupt:
        advice = "Use another --model_dir to start again."
        raise UserError(Problem("One of the run's checkpoints", "be complete", "; ".join(corrupt), advice))
    return None

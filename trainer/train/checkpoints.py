"""A series of checkpoints, of which only whole ones count.

A folder is a plain tf.train.Checkpoint series: ckpt-<step>, and the file `checkpoint` that lists
those that are kept. A checkpoint is committed by that file alone, which is replaced whole: one whose
writing was cut is never seen.
"""

import contextlib
import dataclasses
import re
import sys
from collections.abc import Iterator, Sequence

import tensorflow as tf
from google.protobuf import text_format
from tensorflow.python.training.checkpoint_state_pb2 import CheckpointState

from trainer.storage import fs

CHECKPOINT_PREFIX = "ckpt-"
# How often a checkpoint is written whose parts, which TensorFlow reads again to join them, come back damaged.
MAX_WRITE_ATTEMPTS = 3


@dataclasses.dataclass
class CheckpointSeries:
    checkpoint: tf.train.Checkpoint
    folder: str
    keep: int
    background: bool = False  # whether a save may be written by a thread of its own; restore comes before such a save
    begun: int | None = None  # the step whose save in the background has not been committed


def list_checkpoints(folder: str) -> list[str]:
    """The committed checkpoints' prefixes, oldest first.

    Raises what reading the list raises, if it is there but cannot be read: taken for "none", a
    failure of the store would start the run again at step 0.
    """
    if not fs.exists(fs.join(folder, "checkpoint")):
        return []
    # Read by storage, which raises what went wrong: TensorFlow's own reading returns None for a store out of reach.
    state = CheckpointState()
    try:
        text_format.Parse(fs.read_text(fs.join(folder, "checkpoint")), state)
    except (text_format.ParseError, UnicodeDecodeError):
        state = CheckpointState()
    if not state.model_checkpoint_path:
        raise ValueError(
            f"{fs.join(folder, 'checkpoint')} must list the checkpoints. Received: one that cannot be read. "
            "Remove it to start the run again."
        )
    strange = [name for name in state.all_model_checkpoint_paths if not re.fullmatch(rf"{CHECKPOINT_PREFIX}\d+", name)]
    if strange:  # what is listed is read, and when it is old, removed
        raise ValueError(
            f"{fs.join(folder, 'checkpoint')} must list checkpoints of its own folder, {CHECKPOINT_PREFIX}STEP. "
            f"Received: {strange[0]!r}. It was not followed."
        )
    return [fs.join(folder, name) for name in state.all_model_checkpoint_paths]


def step_of(prefix: str) -> int:
    return int(prefix.rsplit(CHECKPOINT_PREFIX, 1)[1])


def list_steps(folder: str) -> list[int]:
    """The committed checkpoints' steps, oldest first."""
    return [step_of(prefix) for prefix in list_checkpoints(folder)]


def _commit(folder: str, prefixes: Sequence[str]) -> None:
    """List these, the last as the latest, in TensorFlow's own format; by name, so that the folder can be moved."""
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

    With `wait` off and series.background, the caller only waits for a copy of the variables (and for the save before
    this one, if that is still being written). Raises what writing raises, OSError for storage out of reach. A save
    that failed in the background is named on standard error by the next, and no other is made there: the next raises,
    if it fails too.
    """
    series.checkpoint.sync()
    fs.make_folder(series.folder)
    if series.begun is not None:
        print(f"warning: the checkpoint of step {series.begun} could not be written.", file=sys.stderr)
        series.background, series.begun = False, None
    background = series.background and not wait
    if background:
        series.begun = step

    def commit(prefix: str) -> None:
        before = [p for p in list_checkpoints(series.folder) if p != prefix]
        kept = [*before, prefix][-series.keep :]
        _commit(series.folder, kept)
        for old in set(before) - set(kept):
            _delete(old)
        series.begun = None

    options = tf.train.CheckpointOptions(
        experimental_enable_async_checkpoint=background, experimental_write_callbacks=[commit]
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
    except STORAGE_ERRORS as error:  # one of them would be taken for another worker's end
        why = str(error).splitlines()[0].split("}} ", 1)[-1][:250]
        raise OSError(
            f"{path} could not be written. Received: {type(error).__name__}, {why}. Run the same command again to go "
            "on from the checkpoint before it."
        ) from None


def is_saved(series: CheckpointSeries, step: int) -> bool:
    """Whether the checkpoint of `step` is committed; waits for a save in the background."""
    series.checkpoint.sync()
    return step in list_steps(series.folder)


# What TensorFlow raises where storage cannot be reached, or not be read: it has damaged nothing. Aborted: its retries
# are used up.
STORAGE_ERRORS = (
    tf.errors.AbortedError,
    tf.errors.DeadlineExceededError,
    tf.errors.PermissionDeniedError,
    tf.errors.UnauthenticatedError,
    tf.errors.UnavailableError,
)


def find_corruption(prefix: str) -> str | None:
    """Why a checkpoint is not whole; None if it is. Reads every tensor, and with it every checksum.

    Raises what reading raises for other reasons: storage that cannot be reached has damaged nothing.
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
    """The prefix to read a checkpoint at: its own, or that of a copy of what is in a bucket, which came undamaged.

    Read from the bucket, a byte flipped on its way would be a damaged checkpoint, to be dropped.
    """
    if not fs.in_bucket(prefix):
        return prefix
    folder, _, name = prefix.rpartition("/")
    files = [file for file in fs.list_names(folder) if file.startswith((f"{name}.index", f"{name}.data-"))]
    return fs.join(fs.local_copy(folder, files), name)


@contextlib.contextmanager
def background_saves_finished(series: CheckpointSeries) -> Iterator[None]:
    """Leave the block with nothing being written in the background, however it ends."""
    try:
        yield
    finally:
        series.checkpoint.sync()


def restore_step(series: CheckpointSeries, step: int) -> None:
    """Restore the checkpoint of `step`, and change nothing in the folder.

    Raises ValueError if it is not there, or not whole.
    """
    prefix = fs.join(series.folder, f"{CHECKPOINT_PREFIX}{step}")
    here = download_checkpoint(prefix)
    why = find_corruption(here)
    if why is not None:
        raise ValueError(f"The checkpoint of step {step} is required. Received: {prefix} ({why}).")
    series.checkpoint.read(here).assert_existing_objects_matched()


def restore_newest(series: CheckpointSeries) -> int | None:
    """Restore the newest whole checkpoint and return its step; None if the series has none yet.

    One that is damaged is named on standard error, dropped, and the one before it taken. Raises
    ValueError if all are damaged: starting again would silently throw the run's work away.
    """
    prefixes = list_checkpoints(series.folder)
    damaged = []
    for index in reversed(range(len(prefixes))):
        prefix = prefixes[index]
        here = download_checkpoint(prefix)
        why = find_corruption(here)
        if why is not None:
            damaged.append(f"{prefix} ({why})")
            continue
        if damaged:
            print(f"warning: not whole: {'; '.join(damaged)}. Going on from {prefix}.", file=sys.stderr)
            _commit(series.folder, prefixes[: index + 1])
            for bad in prefixes[index + 1 :]:
                _delete(bad)
        series.checkpoint.read(here).assert_existing_objects_matched()
        return step_of(prefix)
    if damaged:
        raise ValueError(
            f"A checkpoint that is whole is required to go on. Received: {'; '.join(damaged)}. Choose another "
            "--model_dir to start again."
        )
    return None

"""What rebuilding an encoder found, kept on this disk: its graph is loaded, and compared with the rebuilt one, once.

A file's name has the SHA-256 of all that the finding depends on: the SavedModel's bytes, the code that rebuilds it and
the libraries that compute. The values are read from the SavedModel each time.
"""

import contextlib
import dataclasses
import functools
import hashlib
import os
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from trainer.encoders import architectures, builders, compiled_operations, dropout, fused_layers, native
from trainer.storage import fs

_CODE = (architectures, builders, compiled_operations, dropout, fused_layers, native)
_LIBRARIES = ("tensorflow", "tf-keras", "tf-models-official")


@dataclasses.dataclass(frozen=True)
class RebuiltEncoder:
    """What native.rebuild_encoder gives, and the canonical names of the SavedModel's trainable variables."""

    architecture: architectures.Architecture
    values: list[np.ndarray]
    names: list[str]
    fused_checked: bool = False  # Whether native.check_fused_layers has passed.


def cache_folder() -> str:
    """HUBTUNE_CACHE_DIR, or hubtune in the user's own cache."""
    return os.environ.get("HUBTUNE_CACHE_DIR") or os.path.expanduser("~/.cache/hubtune")


def find_rebuilt(folder: str, sha256: str) -> RebuiltEncoder | None:
    """What keep_rebuilt kept of the SavedModel in a local folder, whose registry.saved_model_sha256 is `sha256`.

    None if nothing was kept, or what was cannot be read.
    """
    try:
        kept = fs.read_json(_file(sha256))
        reader = _open_variables(folder)
        return RebuiltEncoder(
            architectures.Architecture(**kept["architecture"]),
            [reader.get_tensor(key) for key in kept["keys"]],
            kept["names"],
            kept["fused_checked"],
        )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, tf.errors.OpError):
        return None


def keep_rebuilt(folder: str, sha256: str, rebuilt: RebuiltEncoder) -> None:
    """Keep what was found, without its values: their keys in the SavedModel's checkpoint.

    Nothing is kept of an encoder whose checkpoint has other values, or where the cache cannot be written.
    """
    reader = _open_variables(folder)
    dtypes = reader.get_variable_to_dtype_map()
    stored = {_content(reader.get_tensor(key)): key for key, dtype in dtypes.items() if dtype.is_floating}
    keys = [stored.get(_content(value)) for value in rebuilt.values]
    if None in keys:
        return
    kept = {
        "architecture": dataclasses.asdict(rebuilt.architecture),
        "keys": keys,
        "names": rebuilt.names,
        "fused_checked": rebuilt.fused_checked,
    }
    with contextlib.suppress(OSError):
        fs.make_folder(cache_folder())
        fs.write_json(_file(sha256), kept)


def _open_variables(folder: str) -> Any:  # TensorFlow's reader of checkpoints has no public type.
    return tf.train.load_checkpoint(fs.join(fs.tensorflow_path(folder), "variables", "variables"))


def _content(value: np.ndarray) -> tuple[Sequence[int], bytes]:
    """Equal for arrays of the same shape and bits: whichever of them is read, the value is the same."""
    return value.shape, hashlib.sha256(value.tobytes()).digest()


def _file(sha256: str) -> str:
    return fs.join(cache_folder(), f"rebuilt-{hashlib.sha256(f'{sha256} {_code_version()}'.encode()).hexdigest()}.json")


@functools.cache
def _code_version() -> str:
    digest = hashlib.sha256(" ".join(version(library) for library in _LIBRARIES).encode())
    for module in _CODE:
        digest.update(Path(str(module.__file__)).read_bytes())
    return digest.hexdigest()

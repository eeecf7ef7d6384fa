"""The files that weights come in: safetensors, one or in shards, PyTorch's own, and TensorFlow's checkpoints."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from trainer.encoders import source_files, torch_files
from trainer.errors import Problem, UserError

# What a folder of Hugging Face may hold its weights in, in the order of preference. An index names its shards.
FILES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")


@dataclasses.dataclass(frozen=True)
class WeightsFile:
    """The tensors of a file, or of several that belong together."""

    path: Path  # For messages: the file, the index of shards, or the prefix of a checkpoint.
    names: list[str]
    read: Callable[[str], np.ndarray]  # The tensor of a name.


def open_weights(folder: Path) -> WeightsFile:
    """Read the first of FILES that a folder has. Raises UserError if it is damaged, or holds more than tensors."""
    path = next(path for name in FILES if (path := folder / name).is_file())
    tensors = _read_shards(path) if path.suffix == ".json" else _read_file(path)
    return WeightsFile(path, list(tensors), tensors.__getitem__)


def open_checkpoint(path: Path, reader: Any) -> WeightsFile:
    """A checkpoint of names, as TensorFlow 1 wrote it. `path` is its prefix, `reader` tf.train.load_checkpoint's."""
    return WeightsFile(path, list(reader.get_variable_to_shape_map()), reader.get_tensor)


def _read_file(path: Path) -> Mapping[str, np.ndarray]:
    return torch_files.read_tensors(path) if path.suffix == ".bin" else _read_safetensors(path)


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    try:
        return safetensors.numpy.load_file(path)
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:  # the latter for unknown types
        received = f"{path.stat().st_size:,} bytes that cannot be read ({type(error).__name__}: {error})"
        raise UserError(
            Problem(str(path), "be a complete file of safetensors", received, "Download it again.")
        ) from None


def _read_shards(index: Path) -> dict[str, np.ndarray]:
    """The tensors of the files that an index names, each with exactly those that the index says it has."""
    files_by_name = source_files.read_json(index).get("weight_map")
    required = "have the weight_map of names of tensors to names of files next to it"
    if not isinstance(files_by_name, dict) or not files_by_name:
        raise UserError(Problem(str(index), required, repr(files_by_name)[:80]))
    files = list(dict.fromkeys(files_by_name.values()))
    suffix = ".bin" if ".bin." in index.name else ".safetensors"
    # A name with a folder could lead out of this one.
    if strange := [f for f in files if not isinstance(f, str) or Path(f).name != f or not f.endswith(suffix)]:
        raise UserError(Problem(str(index), required, repr(strange[0])))
    if missing := [file for file in files if not (index.parent / file).is_file()]:
        received = f"no {', '.join(missing[:5])}"
        raise UserError(Problem(str(index), "have its files next to it", received, "Download the rest of them."))
    tensors: dict[str, np.ndarray] = {}
    for file in files:
        loaded = _read_file(index.parent / file)
        listed = {name for name, its_file in files_by_name.items() if its_file == file}
        if different := sorted(listed ^ set(loaded)):
            received = f"{len(different)} others, such as {different[0]}"
            required = f"hold the {len(listed)} tensors that {index.name} lists for it"
            raise UserError(Problem(str(index.parent / file), required, received, "Download the folder again."))
        tensors |= loaded
    return tensors

"""Load the SavedModel of an encoder, and check that it is one."""

from collections.abc import Mapping
from typing import Any

import tensorflow as tf
import tensorflow_hub as hub
import tensorflow_text  # noqa: F401  registers the operators in some encoders' graphs

from trainer.encoders import native
from trainer.encoders.registry import EncoderFolders
from trainer.encoders.saved_model_files import find_broken_file
from trainer.errors import Problem, UserError, describe_error
from trainer.storage import fs

_REQUIRED = (
    "be a text encoder in TensorFlow 2's SavedModel format: it takes a dictionary of "
    f"{', '.join(native.INPUT_NAMES)}, int32 [batch, tokens], and returns a dictionary with pooled_output, float "
    "[batch, size]"
)


def small_batch() -> dict[str, tf.Tensor]:
    """Inputs for any encoder: two texts of 8 tokens, with ids that every vocabulary has. int32 [2, 8] each."""
    ids = zip(native.INPUT_NAMES, (1, 1, 0), strict=True)
    return {name: tf.fill([2, 8], tf.constant(value, tf.int32)) for name, value in ids}


def load_encoder(folders: EncoderFolders) -> Any:
    """Load the SavedModel of an encoder, and call it with a small batch.

    Raises UserError, naming what is wrong, if it is damaged, or no encoder that can be trained.
    """
    saved = load_saved_model(folders.encoder, folders.place)
    if defect := _find_defect(saved, folders.encoder):
        is_export = hasattr(saved, "tokenizer") and hasattr(saved, "serve")
        advice = "An export of a run is a trained classifier. The run's config.yaml names its encoder."
        received = f"{folders.place}, which {defect}"
        raise UserError(Problem("--encoder", _REQUIRED, received, advice if is_export else ""))
    return saved


def load_saved_model(folder: str, place: str = "", io_device: str | None = None) -> Any:
    """Load a SavedModel from a local folder. Its variables are trainable. Messages name `place`, by default the folder.

    `io_device` is remote_hosts.coordinator_device of a strategy in whose scope this is called.

    Raises UserError, naming the file, if a file is missing, cut, or of another format.
    """
    try:
        return hub.load(folder, options=tf.saved_model.LoadOptions(experimental_io_device=io_device))
    except Exception as error:  # TensorFlow raises errors of a dozen types, IndexError among them.
        reason = find_broken_file(folder) or f"which fails to load with {describe_error(error)}"
        received = f"{place or folder}, {reason}"
        advice = "Copy or download the folder again."
        raise UserError(Problem("--encoder", "name a complete SavedModel", received, advice)) from None


def _find_defect(saved: Any, folder: str) -> str:
    """Why a loaded SavedModel is no encoder, as a clause after "which"; "" if it is one."""
    if fs.exists(fs.join(folder, "tfhub_module.pb")):
        return "is a module in the format of TensorFlow 1"
    if not callable(saved):
        signatures = getattr(saved, "signatures", {})
        offers = [f"{name} of {_describe(s.structured_input_signature)}" for name, s in signatures.items()]
        return f"cannot be called. It has {' and '.join(offers) or 'no signatures'}"
    if not getattr(saved, "trainable_variables", None):
        return "has no trainable variables"
    try:
        outputs = hub.KerasLayer(saved)(small_batch())
    except tf.errors.OpError as error:
        return f"fails for two texts of 8 tokens with {describe_error(error)}"
    except Exception:  # ValueError, TypeError, KeyError and others, for inputs of another form
        functions = saved.__call__.concrete_functions
        taken = _describe(functions[0].structured_input_signature) if functions else "nothing"
        return f"takes {taken}"
    if not isinstance(outputs, Mapping):
        return f"returns {_describe(outputs)} instead of a dictionary"
    if "pooled_output" not in outputs:
        return f"returns {', '.join(sorted(outputs))}, without pooled_output"
    pooled = outputs["pooled_output"]
    if pooled.shape.rank != 2 or pooled.shape[0] != 2 or not pooled.dtype.is_floating:
        return f"returns for two texts as pooled_output {_describe(pooled)}"
    if not bool(tf.reduce_all(tf.math.is_finite(tf.cast(pooled, tf.float32)))):
        return "returns values that are not finite: its variables are damaged"
    return ""


def _describe(structure: Any, name: str = "") -> str:
    """The tensors, or their specifications, in a structure: `input_mask int32 [?, ?], input_word_ids int32 [?, ?]`."""
    if isinstance(structure, Mapping):
        parts = [_describe(value, str(key)) for key, value in structure.items()]
    elif isinstance(structure, list | tuple):
        parts = [_describe(value) for value in structure]
    elif isinstance(structure, tf.Tensor | tf.TypeSpec):
        rank = structure.shape.rank
        sizes = "[...]" if rank is None else f"[{', '.join('?' if d is None else str(d) for d in structure.shape)}]"
        kind = "text" if structure.dtype == tf.string else structure.dtype.name
        parts = [f"{name or getattr(structure, 'name', None) or 'a tensor'} {kind} {sizes}"]
    else:  # such as training=False
        parts = []
    return ", ".join(filter(None, parts))

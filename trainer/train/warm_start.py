"""Warm start: a new run that goes on from the weights of another one, its parent (the key `init_from`).

The encoder's weights are always the parent's. So are the head's if the classes are the same, in the same order, or if
both runs predict a number. Weights are found by the names of their variables, in a run's best/ or in an export.

The parent is read when the run starts, and never again: a resumed run has its own checkpoint, and identity.json names
the parent.
"""

import dataclasses
import hashlib
import logging
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf import trackable_object_graph_pb2

from trainer.data import manifests, tokenization
from trainer.data.label_scale import LabelScale
from trainer.encoders import freezing, native, saved_model_files
from trainer.errors import Problem, UserError
from trainer.storage import fs, preflight
from trainer.train import averages, builder, checkpoints, label_use, run_files
from trainer.train.run_files import RunFiles

FLAG = "--init_from"
# The keys in a checkpoint of what saved_model.build_serving_module saves: the variables of the model, the names of its
# classes, the thresholds of several labels, the scale of its numbers.
_EXPORTED_VARIABLES, _EXPORTED_NAMES = "model_variables/", "names/.ATTRIBUTES/VARIABLE_VALUE"
_EXPORTED_THRESHOLDS = "thresholds/.ATTRIBUTES/VARIABLE_VALUE"
_EXPORTED_SCALE = "label_scale/.ATTRIBUTES/VARIABLE_VALUE"
_OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
MAX_SHOWN_VARIABLES = 3
_REQUIRED = "name a run's model_dir, its best/ or its export"

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class WarmStart:
    """A parent, and what is known of it. None: not known."""

    parent: builder.Parent
    prefix: str | None  # The checkpoint of its weights, local. None: this run has a checkpoint of its own.
    labels: tuple[str, ...] | None = None  # Its class names by index, () for regression.
    several_labels: bool = False  # Whether its texts have several of these.
    vocabulary: str | None = None  # The SHA-256 of its vocabulary.
    encoder: str | None = None  # Its --encoder.
    encoder_sha256: str | None = None
    scale: LabelScale | None = None  # Of its numbers. None: it learned them as they are.


def find_warm_start(files: RunFiles, init_from: str) -> WarmStart | None:
    """The parent of the run in `files`: the one that it started from, or, for a new run, `init_from` ("" for none).

    Raises UserError if `init_from` has no weights, or is not what the run started from.
    """
    if checkpoints.list_checkpoints(files.checkpoints) or fs.exists(files.result):
        identity = run_files.read_identity(files)
        started = builder.Parent(**identity["parent"]) if "parent" in identity else None
        if init_from and (started is None or init_from != started.path):
            required = f"be left out, or be what the run in --model_dir {files.root} started from"
            received = f"{init_from}; that run started from {started.path if started else 'its encoder alone'}"
            raise UserError(Problem(FLAG, required, received, "Use another --model_dir for a new run."))
        return WarmStart(started, None) if started else None
    return read_parent(init_from) if init_from else None


def read_parent(path: str) -> WarmStart:
    """What is at `path`: a run's model_dir, its best/, or an export, local or in a bucket.

    Raises UserError if it is none of these, or its checkpoint is corrupt, and UsageError for a bucket out of reach.
    """
    preflight.check_paths([preflight.PathUse(FLAG, path)])
    if saved_model_files.is_saved_model(path):
        local = fs.tensorflow_path(path)
        prefix = fs.join(local, "variables", "variables")
        reader = _open_checkpoint(path, prefix)
        labels = _exported_labels(path, reader)
        scale = LabelScale(*reader.get_tensor(_EXPORTED_SCALE).tolist()) if reader.has_tensor(_EXPORTED_SCALE) else None
        vocabulary = tokenization.vocabulary_sha256(local)
        several = reader.has_tensor(_EXPORTED_THRESHOLDS)
        return WarmStart(_identify(path, prefix), prefix, labels, several, vocabulary, scale=scale)
    folder = fs.join(path, "best") if fs.is_folder(fs.join(path, "best")) else path
    saved = checkpoints.list_checkpoints(folder)
    if not saved:
        advice = "A run has weights once it has evaluated." if fs.exists(fs.join(path, "config.yaml")) else ""
        raise UserError(Problem(FLAG, _REQUIRED, _describe(path), advice))
    prefix = checkpoints.download_checkpoint(saved[-1])
    if any(key.startswith("optimizer/") for key in _open_checkpoint(path, prefix).get_variable_to_shape_map()):
        raise UserError(Problem(FLAG, _REQUIRED, f"{path}, its checkpoints"))
    root = path if folder != path else path.rpartition("/")[0] or "."
    return _complete(WarmStart(_identify(path, prefix), prefix), run_files.resolve_run_files(root))


def _describe(path: str) -> str:
    return f"{path}, which has no weights of a run" if fs.exists(path) else f"{path}, which does not exist"


def _complete(start: WarmStart, files: RunFiles) -> WarmStart:
    """With what the files of the parent's run say of it, as far as they are there."""
    identity = run_files.read_identity(files)
    config, manifest = run_files.find_own_data(files)
    labels = identity.get("labels", manifest.labels if manifest else None)
    vocabulary = manifest.vocabulary.sha256 if manifest else None
    if vocabulary is None and saved_model_files.is_saved_model(files.export):
        vocabulary = tokenization.vocabulary_sha256(files.export)
    return dataclasses.replace(
        start,
        labels=None if labels is None else tuple(labels),
        several_labels=identity.get("kind", manifest.kind if manifest else None) == "multi_label",
        vocabulary=vocabulary,
        encoder=config.encoder if config else None,
        encoder_sha256=identity.get("encoder_sha256"),
        scale=LabelScale(**identity["label_scale"]) if identity.get("label_scale") else None,
    )


def _open_checkpoint(path: str, prefix: str) -> Any:
    """TensorFlow's reader. Raises UserError if the checkpoint is corrupt or not TensorFlow's."""
    corruption = checkpoints.find_corruption(prefix)
    if corruption is not None:
        raise UserError(Problem(FLAG, "have complete weights", f"{path} ({corruption})"))
    reader = tf.train.load_checkpoint(prefix)
    if not reader.has_tensor(_OBJECT_GRAPH):
        raise UserError(Problem(FLAG, _REQUIRED, f"{path}, whose checkpoint is of another program"))
    return reader


def _exported_labels(path: str, reader: Any) -> tuple[str, ...]:
    keys = reader.get_variable_to_shape_map()
    if not any(key.startswith(_EXPORTED_VARIABLES) for key in keys):
        received = f"{path}, a SavedModel that is no export of this program"
        advice = "An encoder is what --encoder names."
        raise UserError(Problem(FLAG, _REQUIRED, received, advice))
    return tuple(name.decode() for name in reader.get_tensor(_EXPORTED_NAMES)) if _EXPORTED_NAMES in keys else ()


def _identify(path: str, prefix: str) -> builder.Parent:
    """The parent with the SHA-256 of its checkpoint, the same in whatever folder it is."""
    folder, _, name = prefix.rpartition("/")
    digest = hashlib.sha256()
    for file in checkpoints.list_files(folder, name):
        digest.update(fs.read_bytes(fs.join(folder, file)))
    return builder.Parent(path, digest.hexdigest())


# --- Taking the weights -----------------------------------------------------------------------------


def start_from_parent(job: builder.Job, start: WarmStart) -> builder.Job:
    """The job with the parent's weights in its model, unless it has a checkpoint of its own; with its parent named.

    Raises UserError for a parent of another vocabulary, or whose encoder's variables are not this one's.
    """
    config = dataclasses.replace(job.config, init_from=start.parent.path)
    job = dataclasses.replace(job, config=config, parent=start.parent)
    if start.prefix is None:
        return job
    _check_vocabulary(start, job.manifest, config.data_dir)
    reader = tf.train.load_checkpoint(start.prefix)
    keys, variables = _keys_by_name(reader), native.variables_by_name(job.model.variables)
    new_head = _why_new_head(start.labels, job.manifest.labels)
    several = job.manifest.kind == "multi_label"
    if not new_head and start.several_labels != several:
        predicted = ("several labels", "one class of them") if start.several_labels else ("one class", "several")
        new_head = f"that run predicts {predicted[0]}, this one {predicted[1]}"
    if new_head:
        keys, variables = _without_head(keys), _without_head(variables)
    all_shapes = reader.get_variable_to_shape_map()
    shapes = {name: tuple(all_shapes[key]) for name, key in keys.items()}
    _check_variables(start, job, variables, _extend_positions(start, job, variables, shapes))
    if start.encoder_sha256 not in (None, job.encoder.sha256):  # Its activation may be another one: no shape tells.
        _LOG.warning(
            "--encoder=%s is another one than that of %s, with variables of the same names and shapes.",
            *(config.encoder, start.parent.path),
        )
    with job.strategy.scope():
        for name, variable in variables.items():
            variable.assign(native.fit_positions(name, reader.get_tensor(keys[name]), variable.shape[0]))
        if not new_head and job.manifest.kind == "regression":
            _rescale_head(variables, start.scale, job.label_use.scale)
        if job.averages:
            averages.copy_from_model(job.averages, job.model)
    head = f"The head is new: {new_head}." if new_head else "The classification head was loaded as well."
    _LOG.info("weights of %s (SHA-256 %s). %s", start.parent.path, start.parent.sha256[:12], head)
    return job


def _rescale_head(variables: dict[str, tf.Variable], before: LabelScale | None, after: LabelScale | None) -> None:
    """Make a head that has learned numbers of the scale `before` predict the same numbers in the scale `after`."""
    before, after = before or LabelScale(0.0, 1.0), after or LabelScale(0.0, 1.0)
    factor = before.deviation / after.deviation
    kernel, bias = variables[f"{freezing.HEAD}kernel"], variables[f"{freezing.HEAD}bias"]
    kernel.assign(kernel * factor)
    bias.assign(bias * factor + (before.mean - after.mean) / after.deviation)


def _keys_by_name(reader: Any) -> dict[str, str]:
    """The canonical name of each of a checkpoint's model variables -> its key there."""
    graph = trackable_object_graph_pb2.TrackableObjectGraph.FromString(reader.get_tensor(_OBJECT_GRAPH))
    attributes = [
        attribute
        for node in graph.nodes
        for attribute in node.attributes
        if attribute.checkpoint_key.startswith(("model/", _EXPORTED_VARIABLES))
    ]
    names = native.canonical_names([attribute.full_name for attribute in attributes])
    return {name: attribute.checkpoint_key for name, attribute in zip(names, attributes, strict=True)}


def _without_head(by_name: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in by_name.items() if not name.startswith(freezing.HEAD)}


def _check_vocabulary(start: WarmStart, manifest: manifests.Manifest, data_dir: str) -> None:
    if start.vocabulary is None:
        _LOG.warning(
            "the vocabulary of %s is not known, and was not compared with that of the data.", start.parent.path
        )
    elif start.vocabulary != manifest.vocabulary.sha256:
        required = f"be prepared with the vocabulary of --init_from={start.parent.path} ({start.vocabulary[:12]})"
        received = f"{data_dir}, prepared with that of {manifest.encoder} ({manifest.vocabulary.sha256[:12]})"
        raise UserError(Problem("--data_dir", required, received, "Prepare it with that run's encoder."))


def _extend_positions(
    start: WarmStart, job: builder.Job, variables: dict[str, tf.Variable], shapes: dict[str, tuple[int, ...]]
) -> dict[str, tuple[int, ...]]:
    """The parent's shapes after its table of positions has been extended to model.max_positions.

    Raises UserError if the parent has more positions than the job.
    """
    asked, extended = job.config.model.max_positions, dict(shapes)
    for name in filter(native.is_position_table, shapes.keys() & variables.keys()):
        (positions, width), (own, own_width) = shapes[name], variables[name].shape
        if positions > own and width == own_width:
            required = f"be the {positions} positions of {FLAG}={start.parent.path}"
            received = str(asked) if asked else f"none, with the {own} of --encoder={job.config.encoder}"
            advice = f"Set it with --model.max_positions={positions}."
            raise UserError(Problem("model.max_positions", required, received, advice))
        if asked:
            extended[name] = (own, width)
    return extended


def _check_variables(
    start: WarmStart, job: builder.Job, variables: dict[str, tf.Variable], shapes: dict[str, tuple[int, ...]]
) -> None:
    """Compare the variables to be assigned with the parent's, of these shapes. Raises UserError if any differs."""
    own = {name: tuple(variable.shape) for name, variable in variables.items()}
    different = sorted(name for name in own.keys() | shapes.keys() if own.get(name) != shapes.get(name))
    if not different:
        return
    shown = "; ".join(
        f"{name} {_format_shape(shapes.get(name))}, not {_format_shape(own.get(name))}"
        for name in different[:MAX_SHOWN_VARIABLES]
    )
    required = f"have the variables of --encoder={job.config.encoder}"
    received = f"{start.parent.path}, with {len(different)} others ({shown})"
    advice = f"Use its own encoder, --encoder={start.encoder}." if start.encoder else "Use its own --encoder."
    raise UserError(Problem(FLAG, required, received, advice))


def _format_shape(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else "x".join(map(str, shape)) or "scalar"


def _why_new_head(parent: tuple[str, ...] | None, own: tuple[str, ...]) -> str:
    """Why the parent's head does not fit, "" if it does. Class names by index, () for regression."""
    if parent is None:
        return "the classes of that run are not known"
    if parent == own:
        return ""
    if not parent or not own:
        return f"that run predicts {'classes' if parent else 'a number'}, this one {'classes' if own else 'a number'}"
    if sorted(parent) == sorted(own):
        return "the classes are in another order"
    return f"that run's classes are {label_use.format_names(parent)}"

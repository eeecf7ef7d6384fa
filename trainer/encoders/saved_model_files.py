"""The files of a SavedModel: whether all are there, and can be read."""

import re

from trainer.errors import describe_error
from trainer.storage import fs

_SHARD = re.compile(r"variables\.data-\d{5}-of-(\d{5})")


def is_saved_model(folder: str) -> bool:
    return fs.exists(fs.join(folder, "saved_model.pb"))


def find_model_folder(folder: str) -> str:
    """The folder with saved_model.pb: `folder`, or the only one in it that has that file, as in some archives."""
    if is_saved_model(folder) or not fs.is_folder(folder):
        return folder
    inside = [fs.join(folder, name) for name in fs.list_names(folder)]
    models = [path for path in inside if fs.is_folder(path) and is_saved_model(path)]
    return models[0] if len(models) == 1 else folder


def find_missing_file(folder: str) -> str:
    """The first file that a SavedModel lacks, by the names of its files alone; "" if it lacks none."""
    if not is_saved_model(folder):
        return "saved_model.pb"
    variables = fs.join(folder, "variables")
    names = fs.list_names(variables) if fs.is_folder(variables) else []
    if "variables.index" not in names:
        return "variables/variables.index"
    shards = [match for match in map(_SHARD.fullmatch, names) if match]
    count = int(shards[0][1]) if shards else 1
    expected = [f"variables.data-{shard:05d}-of-{count:05d}" for shard in range(count)]
    return next((f"variables/{name}" for name in expected if name not in names), "")


def find_broken_file(folder: str) -> str:
    """Which file of a SavedModel cannot be read, as a clause that describes the folder; "" if each can.

    Reads all of the local folder: a second for 1 GB.
    """
    import tensorflow as tf
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    if missing := find_missing_file(folder):
        return f"which lacks {missing}"
    try:
        saved = saved_model_pb2.SavedModel.FromString(fs.read_bytes(fs.join(folder, "saved_model.pb")))
    except DecodeError:
        return "whose saved_model.pb is cut, or of another format"
    if not saved.meta_graphs:
        return "whose saved_model.pb is empty"
    file = "variables/variables.index"
    try:
        reader = tf.train.load_checkpoint(fs.join(folder, "variables", "variables"))
        file = "variables/variables.data-*"
        for name in reader.get_variable_to_shape_map():
            reader.get_tensor(name)
    except Exception as error:  # TensorFlow raises errors of a dozen types, IndexError among them.
        return f"whose {file} cannot be read: {describe_error(error)}"
    return ""

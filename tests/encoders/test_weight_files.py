import json

import numpy as np
import pytest
import safetensors.numpy
from fakes.bert import random_weights
from fakes.torch_files import write_state_dict

from trainer.encoders import weight_files
from trainer.errors import UserError


@pytest.fixture
def shards(tmp_path):
    """A function suffix -> random_weights in two files and their index, whose path it returns."""

    def write(suffix):
        values = random_weights()
        names = sorted(values)
        parts = {f"model-0000{i + 1}-of-00002.{suffix}": names[i::2] for i in range(2)}
        for file, part in parts.items():
            save = safetensors.numpy.save_file if suffix == "safetensors" else write_state_dict
            save({name: values[name] for name in part}, tmp_path / file)
        stem = "model" if suffix == "safetensors" else "pytorch_model"
        index = tmp_path / f"{stem}.{suffix}.index.json"
        index.write_text(json.dumps({"weight_map": {name: file for file, part in parts.items() for name in part}}))
        return index

    return write


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_shards_are_read_as_one_file(tmp_path, shards, suffix):
    index = shards(suffix)
    file = weight_files.open_weights(tmp_path)
    assert file.path == index
    assert sorted(file.names) == sorted(random_weights())
    assert all(np.array_equal(file.read(name), value) for name, value in random_weights().items())


def test_one_file_of_safetensors_is_preferred(tmp_path, shards):
    shards("safetensors")
    shards("bin")
    safetensors.numpy.save_file({"x": np.ones(1, np.float32)}, tmp_path / "model.safetensors")
    assert weight_files.open_weights(tmp_path).names == ["x"]


@pytest.mark.parametrize("file", ["../weights.safetensors", "/weights.safetensors", "..", "", 3, None, "model.bin"])
def test_a_shard_in_another_folder_or_format_is_refused(tmp_path, file):
    path = tmp_path / "folder" / "model.safetensors.index.json"
    path.parent.mkdir()
    safetensors.numpy.save_file({"x": np.ones(1, np.float32)}, tmp_path / "weights.safetensors")
    path.write_text(json.dumps({"weight_map": {"x": file}}))
    with pytest.raises(UserError, match=rf"{path} must have the weight_map"):
        weight_files.open_weights(path.parent)


@pytest.mark.parametrize("weight_map", [None, [], {}, "x"])
def test_an_index_without_its_map_is_refused(tmp_path, weight_map):
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(UserError, match="must have the weight_map"):
        weight_files.open_weights(tmp_path)


def test_a_missing_shard_is_named(tmp_path, shards):
    shards("safetensors")
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(UserError, match=r"Received: no model-00002-of-00002\.safetensors"):
        weight_files.open_weights(tmp_path)


def test_a_shard_with_other_tensors_than_listed_is_refused(tmp_path, shards):
    shards("safetensors")
    safetensors.numpy.save_file({"x": np.ones(1, np.float32)}, tmp_path / "model-00002-of-00002.safetensors")
    with pytest.raises(UserError, match=r"model-00002-of-00002\.safetensors must hold the"):
        weight_files.open_weights(tmp_path)


@pytest.mark.parametrize("length", [0, 20, 3000])
def test_a_cut_file_is_named(tmp_path, length):
    path = tmp_path / "model.safetensors"
    safetensors.numpy.save_file(random_weights(), path)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(UserError, match=rf"{path} must .*{length:,} bytes.*Download it again"):
        weight_files.open_weights(tmp_path)

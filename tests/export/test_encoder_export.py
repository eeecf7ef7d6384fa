"""A run's encoder, exported and loaded again. It is random, and so large that another value would show."""

import dataclasses
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_hub as hub
import tf_keras
from helpers import excerpt, random_encoder_inputs

from trainer.data import tokenization
from trainer.encoders import architectures, classifier, convert, dropout, native, registry, saved_models
from trainer.errors import UserError
from trainer.export import encoder_export

ARCHITECTURE = architectures.Architecture(1024, 32, 32, 2, 2, 64, 40, 2, "gelu", 0.1, 0.2, 1e-6)
INPUTS = random_encoder_inputs(rows=3, seq_length=12, vocab_size=1024)


def build_run_model(architecture=ARCHITECTURE):
    """A classifier with seeded dropout, as a run trains it, with random values."""
    encoder = native.build_encoder(architecture, output_range=1)
    model = classifier.build_classifier(encoder, 2, 0.1, seed=0)
    rng = np.random.default_rng(0)
    for variable in model.variables:
        variable.assign(rng.normal(0, 0.3, variable.shape))
    return model


def build_trained(tiny, architecture=ARCHITECTURE, name="mine"):
    model = build_run_model(architecture)
    preprocess = str(tiny / "preprocess")
    return encoder_export.TrainedEncoder(
        name=name,
        encoder=encoder_export.build_trained_encoder(architecture, model.variables),
        architecture=architecture,
        preprocess=preprocess,
        vocabulary=tokenization.read_vocabulary(preprocess) or b"",
        lower_case=True,
    )


@pytest.fixture(scope="module")
def trained(tiny):
    return build_trained(tiny)


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    """The folders of the encoder in each format."""
    root = tmp_path_factory.mktemp("exported")
    folders = {name: root / name for name in encoder_export.FORMATS}
    for name, folder in folders.items():
        assert encoder_export.write_encoder(trained, str(folder), name, "# a card\n") <= 1e-5
    return folders


def tensors(inputs=INPUTS):
    return {name: tf.constant(value) for name, value in inputs.items()}


def test_the_encoder_has_the_run_s_values_without_its_dropout(trained):
    model = build_run_model()
    (encoder,) = (layer for layer in model.layers if layer.name.startswith("bert_encoder"))
    pooled = encoder(tensors())["pooled_output"]
    assert np.abs(trained.encoder(tensors())["pooled_output"] - pooled).max() < 1e-6
    layers = [one for one in trained.encoder._flatten_layers() if isinstance(one, tf_keras.layers.Dropout)]
    assert layers
    assert not [one for one in layers if isinstance(one._random_generator, dropout.LayerGenerator)]


def test_a_hub_layer_that_trains_has_the_run_s_outputs(trained, exported):
    layer = hub.KerasLayer(str(exported["hub"] / "encoder"), trainable=True)
    expected = trained.encoder(tensors())
    outputs = layer(tensors())
    for name in ("pooled_output", "sequence_output"):
        assert np.abs(outputs[name] - expected[name]).max() < 1e-5
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(layer(tensors(), training=True)["pooled_output"])
    assert all(gradient is not None for gradient in tape.gradient(total, layer.trainable_variables))
    first, second = (layer(tensors(), training=True)["pooled_output"].numpy() for _ in range(2))
    assert (first != second).any()  # Its dropout is in the graph.


@pytest.mark.parametrize("embedding_width", [32, 16])
def test_an_export_that_is_rebuilt_again_has_equal_bits(tiny, tmp_path, embedding_width):
    architecture = dataclasses.replace(ARCHITECTURE, embedding_width=embedding_width)
    trained = build_trained(tiny, architecture)
    encoder_export.write_encoder(trained, str(tmp_path / "out"), "hub", "")
    rebuilt, values = native.rebuild_encoder(saved_models.load_saved_model(str(tmp_path / "out/encoder")))
    assert rebuilt == architecture
    for variable, value in zip(trained.encoder.trainable_variables, values, strict=True):
        assert np.array_equal(variable.numpy(), value)


def test_the_folder_of_an_export_is_an_encoder_again(trained, exported):
    folders = registry.resolve_encoder(str(exported["hub"]))
    saved_models.load_encoder(folders)
    assert tokenization.read_vocabulary(folders.encoder) == trained.vocabulary
    text = tf.constant(["The Movie was great"])
    tokens = [tokenization.load_tokenizer(folder).tokenize(text) for folder in (folders.preprocess, trained.preprocess)]
    assert tokens[0].to_list() == tokens[1].to_list()


def test_a_hugging_face_folder_that_is_imported_has_equal_bits(trained, exported):
    imported = convert.read_hugging_face(exported["hugging_face"], exported["hugging_face"])
    values = native.variables_by_name(imported.encoder.trainable_variables)
    expected = native.variables_by_name(trained.encoder.trainable_variables)
    assert values.keys() == expected.keys()
    assert all(np.array_equal(values[name].numpy(), expected[name].numpy()) for name in expected)
    assert imported.lower_case
    assert imported.vocabulary_file.read_bytes() == trained.vocabulary


def test_each_format_has_its_files_and_the_card(exported):
    assert sorted(os.listdir(exported["hub"])) == ["README.md", "encoder", "preprocess"]
    assert sorted(os.listdir(exported["hugging_face"])) == [
        *("README.md", "config.json", "model.safetensors"),
        *("tokenizer.json", "tokenizer_config.json", "vocab.txt"),
    ]
    assert (exported["hub"] / "README.md").read_text() == "# a card\n"


def test_another_family_is_refused_for_hugging_face(tiny, tmp_path):
    narrow = build_trained(tiny, dataclasses.replace(ARCHITECTURE, embedding_width=16), name="electra_small")
    with pytest.raises(UserError, match=r"--format must be hub .*electra_small, whose embeddings are of another size"):
        encoder_export.write_encoder(narrow, str(tmp_path / "out"), "hugging_face", "")
    assert list(tmp_path.iterdir()) == []


def test_an_encoder_with_other_outputs_is_not_written(trained, tmp_path):
    """Here the file says another activation than the encoder has."""
    other = dataclasses.replace(trained, architecture=dataclasses.replace(ARCHITECTURE, activation="relu"))
    with pytest.raises(UserError, match="The exported encoder's outputs must be within 1e-05"):
        encoder_export.write_encoder(other, str(tmp_path / "out"), "hugging_face", "")
    assert list(tmp_path.iterdir()) == []


def test_the_values_are_compared_bit_by_bit(trained):
    other = encoder_export.build_trained_encoder(ARCHITECTURE, build_run_model().variables)
    variables = list(other.trainable_variables)
    assert encoder_export._check_encoder(trained, other, variables) == 0
    bias = native.variables_by_name(variables)["pooler_transform/bias"]
    bias.assign(np.nextafter(bias.numpy(), np.float32(9)))
    with pytest.raises(UserError, match=r"must have the run's values.*pooler_transform/bias"):
        encoder_export._check_encoder(trained, other, variables)
    with pytest.raises(UserError, match=r"must have the run's values.*pooler_transform/bias"):
        encoder_export._check_encoder(trained, other, [v for v in variables if v is not bias])


# What computes the outputs of a folder with Hugging Face's own library: token ids and outputs of texts, to a file.
IN_TRANSFORMERS = """
import sys, numpy, torch
from transformers import AutoModel, AutoTokenizer
folder, texts, output = sys.argv[1], sys.argv[3:], sys.argv[2]
inputs = AutoTokenizer.from_pretrained(folder)(texts, return_tensors="pt", padding=True)
with torch.no_grad():
    outputs = AutoModel.from_pretrained(folder)(**inputs)
numpy.savez(output, input_word_ids=inputs["input_ids"], input_mask=inputs["attention_mask"],
    input_type_ids=inputs["token_type_ids"], pooled_output=outputs.pooler_output,
    sequence_output=outputs.last_hidden_state)
"""


@pytest.fixture(scope="module")
def transformers_python(tmp_path_factory):
    """The Python of an environment with transformers and PyTorch, which take 6 GB."""
    folder = tmp_path_factory.mktemp("transformers")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    command = [folder / "bin/python", "-m", "pip", "install", "--quiet", "torch==2.14.1", "transformers==5.18.0"]
    subprocess.run(command, check=True, capture_output=True)
    yield folder / "bin/python"
    shutil.rmtree(folder)


@pytest.mark.chaos
@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "relu"])
def test_transformers_has_the_run_s_outputs(tiny, tmp_path, transformers_python, activation):
    trained = build_trained(tiny, dataclasses.replace(ARCHITECTURE, activation=activation))
    encoder_export.write_encoder(trained, str(tmp_path / "hf"), "hugging_face", "")
    texts = ["The Movie was GREAT, naïve and wonderful!", "dull", "a [UNK] plot, 12 actors"]
    command = [transformers_python, "-c", IN_TRANSFORMERS, tmp_path / "hf", tmp_path / "outputs.npz", *texts]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, excerpt(done.stderr)
    received = np.load(tmp_path / "outputs.npz")
    inputs = {name: received[name].astype(np.int32) for name in native.INPUT_NAMES}
    expected = trained.encoder(tensors(inputs))
    real = inputs["input_mask"][:, :, np.newaxis]
    assert np.abs(expected["pooled_output"] - received["pooled_output"]).max() < 1e-5
    assert np.abs((expected["sequence_output"] - received["sequence_output"]) * real).max() < 1e-5
    tokenizer = tokenization.load_tokenizer(trained.preprocess)
    ours = tokenization.pack_inputs(
        tokenizer.tokenize(tf.constant(texts[:2])), None, tokenizer.special, ARCHITECTURE.max_positions, "head"
    )
    for row in range(2):  # Of special tokens in a text, Hugging Face makes special tokens.
        length = inputs["input_mask"][row].sum()
        assert ours["input_word_ids"][row].numpy()[:length].tolist() == inputs["input_word_ids"][row, :length].tolist()

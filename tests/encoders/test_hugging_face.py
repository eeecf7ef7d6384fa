import dataclasses
import json

import numpy as np
import pytest
import safetensors.numpy
import tensorflow as tf
import tokenizers
from fakes.bert import CONFIG, compute_outputs
from helpers import random_encoder_inputs

from trainer.data import tokenization
from trainer.encoders import architectures, bert_configs, hugging_face, native

ARCHITECTURE = architectures.Architecture(1024, 16, 16, 2, 4, 24, 20, 2, "gelu", 0.1, 0.2, 1e-6)
TEXTS = ["The Movie was GREAT, naïve and un-wonderfully long!", "影 a [MASK] 12.5 % x", "", "superbly acted"]


def write(folder, vocabulary, activation="gelu", lower_case=True):
    architecture = dataclasses.replace(ARCHITECTURE, activation=activation)
    encoder = native.build_encoder(architecture, seeded_dropout=False)
    rng = np.random.default_rng(0)
    for variable in encoder.trainable_variables:
        variable.assign(rng.normal(0, 0.5, variable.shape))
    folder.mkdir()
    hugging_face.write_folder(folder, encoder, architecture, vocabulary, lower_case=lower_case)
    return encoder


@pytest.fixture(scope="module")
def vocabulary(tiny):
    return tokenization.read_vocabulary(str(tiny / "preprocess"))


@pytest.mark.parametrize(("activation", "hidden_act"), [("gelu", "gelu"), ("gelu_tanh", "gelu_new"), ("relu", "relu")])
def test_a_folder_computes_what_the_encoder_does(tmp_path, vocabulary, activation, hidden_act):
    encoder = write(tmp_path / "hf", vocabulary, activation)
    config = json.loads((tmp_path / "hf/config.json").read_text())
    assert config["hidden_act"] == hidden_act
    assert config.keys() >= CONFIG.keys() - {"initializer_range"}
    values = safetensors.numpy.load_file(tmp_path / "hf/model.safetensors")
    inputs = random_encoder_inputs(rows=3, seq_length=12, vocab_size=1024)
    sequence, pooled = compute_outputs(config, values, inputs)
    outputs = encoder({name: tf.constant(value) for name, value in inputs.items()})
    assert np.abs(outputs["sequence_output"] - sequence).max() < 2e-5
    assert np.abs(outputs["pooled_output"] - pooled).max() < 2e-5
    assert bert_configs.read_architecture(tmp_path / "hf/config.json").activation == activation


def test_the_tokenizer_has_the_token_ids_of_the_preprocessor(tmp_path, tiny, vocabulary):
    write(tmp_path / "hf", vocabulary)
    tokenizer = tokenizers.Tokenizer.from_file(str(tmp_path / "hf/tokenizer.json"))
    ours = tokenization.load_tokenizer(str(tiny / "preprocess"))
    texts = [text.replace("[MASK] ", "") for text in TEXTS]  # Hugging Face finds special tokens in a text.
    expected = tokenization.pack_inputs(ours.tokenize(tf.constant(texts)), None, ours.special, 64, "head")
    for row, encoded in enumerate(tokenizer.encode_batch(texts)):
        length = int(expected["input_mask"][row].numpy().sum())
        assert encoded.ids == expected["input_word_ids"][row, :length].numpy().tolist()


def test_the_tokenizer_packs_pairs_as_preparation_does(tmp_path, tiny, vocabulary):
    write(tmp_path / "hf", vocabulary)
    tokenizer = tokenizers.Tokenizer.from_file(str(tmp_path / "hf/tokenizer.json"))
    ours = tokenization.load_tokenizer(str(tiny / "preprocess"))
    first, second = (ours.tokenize(tf.constant([text])) for text in ("a movie", "the great plot"))
    expected = tokenization.pack_inputs(first, second, ours.special, 64, "head")
    encoded = tokenizer.encode("a movie", "the great plot")
    assert encoded.ids == expected["input_word_ids"][0].numpy().tolist()
    assert encoded.type_ids == expected["input_type_ids"][0].numpy().tolist()


@pytest.mark.parametrize("lower_case", [True, False])
def test_the_files_say_whether_texts_are_lower_cased(tmp_path, vocabulary, lower_case):
    write(tmp_path / "hf", vocabulary, lower_case=lower_case)
    settings = json.loads((tmp_path / "hf/tokenizer_config.json").read_text())
    assert settings["do_lower_case"] is lower_case
    assert settings["model_max_length"] == 20
    modes = {path.stat().st_mode for path in (tmp_path / "hf").iterdir()}
    assert len(modes) == 1
    tokenizer = tokenizers.Tokenizer.from_file(str(tmp_path / "hf/tokenizer.json"))
    assert (tokenizer.encode("MOVIE").ids == tokenizer.encode("movie").ids) is lower_case


def test_a_bert_has_no_family_problem():
    assert hugging_face.find_family_problem("mine", ARCHITECTURE) is None


@pytest.mark.parametrize("change", [{"embedding_width": 8}, {"family": "albert"}, {"norm_first": True}])
def test_any_other_encoder_is_refused_by_name(change):
    problem = hugging_face.find_family_problem("mine", dataclasses.replace(ARCHITECTURE, **change))
    assert problem.setting == "--format"
    assert "hugging_face for mine, " in problem.received

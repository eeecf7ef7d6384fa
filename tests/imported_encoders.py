"""Encoders read from folders of Hugging Face, compared with a BERT in NumPy."""

import json

import numpy as np
import tensorflow as tf
from fakes.bert import CONFIG, compute_outputs, random_weights
from helpers import random_encoder_inputs

from trainer.encoders import convert

INPUTS = random_encoder_inputs(rows=3, seq_length=12, vocab_size=CONFIG["vocab_size"])


def read(folder) -> convert.ImportedEncoder:
    """Import a folder of Hugging Face; a vocabulary of tokenizer.json goes to the folder next to it."""
    return convert.read_hugging_face(folder, folder.parent)


def assert_outputs(encoder, folder, weights=None) -> None:
    """The encoder has the outputs of the BERT in a folder: of its configuration, with random_weights or others."""
    config = json.loads(next(folder.glob("*config.json")).read_text())
    if "model_type" not in config:
        config["hidden_act"] = config["hidden_act"].replace("gelu", "gelu_new")  # Google's
    sequence, pooled = compute_outputs(config, weights or random_weights(), INPUTS)
    received = encoder({name: tf.constant(value) for name, value in INPUTS.items()})
    assert np.abs(received["sequence_output"] - sequence).max() < 2e-5
    assert np.abs(received["pooled_output"] - pooled).max() < 2e-5

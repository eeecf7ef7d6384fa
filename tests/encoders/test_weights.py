import json

import numpy as np
import pytest
import tensorflow as tf
from fakes.bert import CONFIG, random_weights, to_distilbert, write_hugging_face

from trainer.encoders import bert_configs, convert, native, tensor_names, weight_files, weights

LAST = "encoder.layer.1.output.dense.bias"


@pytest.fixture
def assign(tmp_path):
    """A function weights -> an encoder of CONFIG with the values of a file of these weights, and the problems."""

    def assign_values(values, config=None):
        folder, config = write_hugging_face(tmp_path / "hf", values), config or {"model_type": "bert", **CONFIG}
        (folder / "config.json").write_text(json.dumps(config))
        encoder = convert.build_bert(bert_configs.read_architecture(folder / "config.json"))
        names = tensor_names.HUGGING_FACE[config["model_type"]]
        read, problems = weights.read_values(encoder, weight_files.open_weights(folder), names)
        if not problems:
            weights.assign_values(encoder, read)
        return encoder, problems

    return assign_values


def values_of(encoder):
    return {native.canonical_name(v.name): v.numpy() for v in encoder.trainable_variables}


# --- Every tensor ---------------------------------------------------------------------------------


def test_heads_and_buffers_are_left_out(assign):
    other = {
        "cls.predictions.bias": np.zeros(30, np.float32),
        "cls.seq_relationship.weight": np.zeros([2, 16], np.float32),
        "classifier.weight": np.zeros([2, 16], np.float32),
        "bert.embeddings.position_ids": np.arange(20)[np.newaxis],
    }
    encoder, problems = assign({f"bert.{name}": value for name, value in random_weights().items()} | other)
    assert not problems
    table = next(v for v in encoder.trainable_variables if "word_embeddings" in v.name)
    assert np.array_equal(table, random_weights()["embeddings.word_embeddings.weight"])


def test_every_missing_weight_is_named(assign):
    missing = [LAST, "pooler.dense.weight"]
    _, problems = assign({name: value for name, value in random_weights().items() if name not in missing})
    assert [problem.received for problem in problems] == [f"no {', '.join(missing)}"]


def test_more_layers_than_the_configuration_has_are_named(assign):
    _, (problem,) = assign(random_weights(layers=3))
    assert "encoder.layer.2.attention.output.LayerNorm.bias" in problem.received
    assert problem.received.endswith("and 11 more")


@pytest.mark.parametrize(
    "name",
    [
        "encoder.layer.0.attention.self.distance_embedding.weight",
        "encoder.layer.0.crossattention.self.query.weight",
        "embeddings_project.weight",
        "model.pooler.dense.bias",
    ],
)
def test_a_weight_of_another_architecture_is_named(assign, name):
    _, (problem,) = assign(random_weights() | {name: np.zeros([16, 16], np.float32)})
    assert problem.received == name


@pytest.mark.parametrize("name", ["bert.pooler.dense.bias", "bert.embeddings.LayerNorm.beta"])
def test_a_weight_under_two_names_is_refused(assign, name):
    _, (problem,) = assign(random_weights() | {name: np.zeros(16, np.float32)})
    assert name in problem.received


@pytest.mark.parametrize(
    ("value", "received"),
    [
        (np.full(16, np.nan, np.float32), "16 of 16 that are NaN or infinite"),
        (np.array([np.inf] + [0.0] * 15, np.float32), "1 of 16 that are NaN or infinite"),
        (np.zeros(16, np.int8), "int8"),
        (np.zeros(17, np.float32), "(17,)"),
    ],
)
def test_a_damaged_weight_is_named(assign, value, received):
    _, (problem,) = assign(random_weights() | {LAST: value})
    assert problem.setting.startswith(f"{LAST} in ")
    assert problem.received == received


# --- What a file lacks ----------------------------------------------------------------------------


def test_a_drawn_pooler_is_the_same_each_time(assign, tmp_path):
    kernels = []
    for name in ("a", "b"):
        (tmp_path / "hf").rename(tmp_path / name) if (tmp_path / "hf").exists() else None
        encoder, problems = assign({k: v for k, v in random_weights().items() if not k.startswith("pooler")})
        assert not problems
        kernels.append(values_of(encoder)["pooler_transform/kernel"])
        assert not values_of(encoder)["pooler_transform/bias"].any()
    assert np.array_equal(*kernels)
    assert 0.01 < kernels[0].std() < 0.03


@pytest.mark.parametrize("part", ["weight", "bias"])
def test_half_a_pooler_is_not_completed(assign, part):
    _, (problem,) = assign({k: v for k, v in random_weights().items() if k != f"pooler.dense.{part}"})
    assert problem.received == f"no pooler.dense.{part}"


def test_a_distilbert_has_two_token_types_of_zeros(assign):
    config, values = to_distilbert(CONFIG, random_weights())
    encoder, problems = assign(values, config)
    assert not problems
    assert values_of(encoder)["type_embeddings/embeddings"].tolist() == [[0.0] * 16] * 2


def test_stored_values_are_those_that_were_read(assign):
    encoder, _ = assign(random_weights())
    stored = weights.stored_values(encoder)
    query = random_weights()["encoder.layer.1.attention.self.query.weight"]
    assert np.array_equal(stored["transformer/layer_1/self_attention/query/kernel"], query.T)
    assert np.array_equal(stored["pooler_transform/bias"], random_weights()["pooler.dense.bias"])


# --- Precision ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float16, np.float64, tf.bfloat16.as_numpy_dtype])
def test_weights_of_other_precision_become_float32(assign, dtype):
    values = {name: value.astype(dtype) for name, value in random_weights().items()}
    encoder, problems = assign(values)
    assert not problems
    table = next(v for v in encoder.trainable_variables if "word_embeddings" in v.name)
    assert table.dtype == tf.float32
    assert np.array_equal(table, values["embeddings.word_embeddings.weight"].astype(np.float32))

import numpy as np
import pytest
import safetensors.numpy
import tensorflow as tf
from fakes.bert import random_weights, write_hugging_face

from trainer.encoders import bert_configs, convert, weights
from trainer.errors import UserError

LAST = "encoder.layer.1.output.dense.bias"


@pytest.fixture
def assign(tmp_path):
    """A function weights -> the encoder with the values of a file of these weights, and the problems."""

    def assign_values(values):
        folder = write_hugging_face(tmp_path / "hf", values)
        encoder = convert.build_bert(bert_configs.read_architecture(folder / "config.json"))
        return encoder, weights.assign_values(encoder, weights.open_safetensors(folder / "model.safetensors"))

    return assign_values


# --- Names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("canonical", "google", "hugging_face"),
    [
        ("word_embeddings/embeddings", "embeddings/word_embeddings", "embeddings.word_embeddings.weight"),
        ("type_embeddings/embeddings", "embeddings/token_type_embeddings", "embeddings.token_type_embeddings.weight"),
        ("embeddings/layer_norm/gamma", "embeddings/LayerNorm/gamma", "embeddings.LayerNorm.weight"),
        (
            "transformer/layer_11/self_attention/query/kernel",
            "encoder/layer_11/attention/self/query/kernel",
            "encoder.layer.11.attention.self.query.weight",
        ),
        (
            "transformer/layer_0/self_attention_layer_norm/beta",
            "encoder/layer_0/attention/output/LayerNorm/beta",
            "encoder.layer.0.attention.output.LayerNorm.bias",
        ),
        (
            "transformer/layer_3/output/kernel",
            "encoder/layer_3/output/dense/kernel",
            "encoder.layer.3.output.dense.weight",
        ),
        ("pooler_transform/bias", "pooler/dense/bias", "pooler.dense.bias"),
    ],
)
def test_names_in_every_format(canonical, google, hugging_face):
    assert weights.google_name(canonical) == google
    assert weights.hugging_face_name(canonical) == hugging_face


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


@pytest.mark.parametrize("dtype", [np.float16, np.float64, tf.bfloat16.as_numpy_dtype])
def test_weights_of_other_precision_become_float32(assign, dtype):
    values = {name: value.astype(dtype) for name, value in random_weights().items()}
    encoder, problems = assign(values)
    assert not problems
    table = next(v for v in encoder.trainable_variables if "word_embeddings" in v.name)
    assert table.dtype == tf.float32
    assert np.array_equal(table, values["embeddings.word_embeddings.weight"].astype(np.float32))


# --- Files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "advice"),
    [
        (lambda data: data[: len(data) // 2], "Download it again"),
        (lambda data: data[:20], "Download it again"),
        (lambda data: b"", "Download it again"),
        (lambda data: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
    ],
)
def test_a_damaged_file_is_named_with_advice(tmp_path, change, advice):
    path = tmp_path / "model.safetensors"
    safetensors.numpy.save_file(random_weights(), path)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(UserError, match=rf"{path} must .*{advice}"):
        weights.open_safetensors(path)

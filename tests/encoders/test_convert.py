import json

import numpy as np
import pytest
import tensorflow as tf
from fakes.bert import (
    CONFIG,
    PIECES,
    compute_outputs,
    random_weights,
    to_distilbert,
    to_electra,
    write_hugging_face,
    write_vocabulary,
)
from fakes.torch_files import write_state_dict
from imported_encoders import INPUTS, assert_outputs, read

from trainer.encoders import convert, importing, random_encoders
from trainer.encoders import weights as weights_module
from trainer.errors import UserError

# --- Hugging Face ---------------------------------------------------------------------------------


def old_names(name: str) -> str:
    name = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
    return f"bert.{name}"


@pytest.mark.parametrize("rename", [str, old_names])
@pytest.mark.parametrize("kind", ["gelu", "gelu_new", "relu"])
def test_a_hugging_face_bert_keeps_its_outputs(tmp_path, kind, rename):
    values = {rename(name): value for name, value in random_weights().items()}
    folder = write_hugging_face(tmp_path / "hf", values, hidden_act=kind)
    assert_outputs(read(folder).encoder, folder)


def without_pooler(weights):
    """Weights with the pooler that an import draws where a file has none."""
    hidden = CONFIG["hidden_size"]
    kernel = np.random.default_rng(weights_module.POOLER_SEED).normal(0, 0.02, [hidden, hidden])
    return weights | {"pooler.dense.weight": kernel.astype(np.float32).T, "pooler.dense.bias": np.zeros(hidden)}


def without_types(weights):
    return weights | {"embeddings.token_type_embeddings.weight": np.zeros([2, CONFIG["hidden_size"]])}


def test_a_bert_without_pooler_gets_one_that_is_said(tmp_path, caplog):
    values = {name: value for name, value in random_weights().items() if not name.startswith("pooler")}
    values["cls.predictions.bias"] = np.zeros(30, np.float32)
    folder = write_hugging_face(tmp_path / "hf", values)
    assert_outputs(read(folder).encoder, folder, without_pooler(random_weights()))
    (record,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "seed 0" in record.getMessage()


@pytest.mark.parametrize("kind", ["gelu", "relu"])
def test_a_distilbert_keeps_its_outputs(tmp_path, kind):
    config, values = to_distilbert(CONFIG | {"hidden_act": kind}, random_weights())
    folder = write_hugging_face(tmp_path / "hf", values)
    (folder / "config.json").write_text(json.dumps(config))
    received = read(folder).encoder({name: tf.constant(value) for name, value in INPUTS.items()})
    expected = compute_outputs(CONFIG | {"hidden_act": kind}, without_types(without_pooler(random_weights())), INPUTS)
    assert np.abs(received["sequence_output"] - expected[0]).max() < 2e-5
    assert np.abs(received["pooled_output"] - expected[1]).max() < 2e-5


@pytest.mark.parametrize("width", [16, 8])
@pytest.mark.parametrize("head", ["generator_predictions", "discriminator_predictions"])
def test_an_electra_keeps_its_outputs(tmp_path, width, head):
    weights = random_weights(width=width)
    config, values = to_electra(CONFIG, weights, head)
    folder = write_hugging_face(tmp_path / "hf", values, **config)
    assert_outputs(read(folder).encoder, folder, without_pooler(weights))


def test_the_head_count_decides_the_outputs(tmp_path):
    """No weight shows it: an encoder with another one is built as well, and is another."""
    folder = write_hugging_face(tmp_path / "hf", num_attention_heads=2)
    encoder = read(folder).encoder
    assert_outputs(encoder, folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", **CONFIG}))
    with pytest.raises(AssertionError):
        assert_outputs(encoder, folder)


@pytest.mark.parametrize("missing", [["config.json"], ["model.safetensors"], ["model.safetensors", "vocab.txt"]])
def test_every_missing_file_of_hugging_face_is_named(tmp_path, missing):
    folder = write_hugging_face(tmp_path / "hf")
    for name in missing:
        (folder / name).unlink()
    with pytest.raises(UserError) as caught:
        read(folder)
    assert len(caught.value.problems) == len(missing)
    for name, problem in zip(missing, caught.value.problems, strict=True):
        assert name in problem.required
        assert str(folder) in problem.received


def test_a_pickle_beside_other_weights_is_not_read(tmp_path):
    folder = write_hugging_face(tmp_path / "hf")
    (folder / "pytorch_model.bin").write_bytes(b"cos\nmkdir\n(S'" + bytes(tmp_path / "made") + b"'\ntR.")
    assert_outputs(read(folder).encoder, folder)
    assert not (tmp_path / "made").exists()


def test_weights_of_pytorch_and_a_tokenizer_alone_are_enough(tmp_path):
    folder = write_hugging_face(tmp_path / "hf")
    (folder / "model.safetensors").unlink()
    (folder / "vocab.txt").unlink()
    write_state_dict(random_weights(), folder / "pytorch_model.bin")
    vocab = {piece: i for i, piece in enumerate(PIECES)}
    normalizer = {"type": "BertNormalizer", "lowercase": False}
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocab}, "normalizer": normalizer}))
    imported = read(folder)
    assert_outputs(imported.encoder, folder)
    assert imported.vocabulary_file.read_text().split() == PIECES
    assert not imported.lower_case
    assert not (folder / "vocab.txt").exists()


@pytest.mark.parametrize("model_type", ["roberta", None])
def test_another_model_type_is_rejected(tmp_path, model_type):
    with pytest.raises(UserError, match=f"model_type .*Received: {model_type}"):
        read(write_hugging_face(tmp_path / "hf", model_type=model_type))


def test_everything_wrong_with_a_folder_is_reported_at_once(tmp_path):
    values = {name: value for name, value in random_weights().items() if "pooler.dense.bias" not in name}
    folder = write_hugging_face(tmp_path / "hf", values)
    write_vocabulary(folder, [*PIECES, "y"])
    (folder / "tokenizer_config.json").write_text('{"strip_accents": false}')
    with pytest.raises(UserError) as caught:
        read(folder)
    settings = [problem.setting.split()[0].rpartition("/")[2] for problem in caught.value.problems]
    assert settings == ["vocab.txt", "strip_accents", "model.safetensors"]


@pytest.mark.parametrize(
    ("file", "content"),
    [("config.json", b"{"), ("vocab.txt", b"a\xff"), ("model.safetensors", b"x"), ("tokenizer.json", b"[")],
)
def test_a_damaged_file_ends_the_command_before_it_writes(tmp_path, file, content):
    folder = write_hugging_face(tmp_path / "hf")
    (folder / file).write_bytes(content)
    with pytest.raises(UserError, match=str(folder / file)):
        importing.import_encoder(importing.parse_source(f"hf:{folder}"), f"{tmp_path}/out", lambda *_: folder)
    assert [path.name for path in tmp_path.iterdir()] == ["hf"]


# --- Checkpoints ----------------------------------------------------------------------------------


@pytest.fixture
def google(tmp_path):
    """A function that writes random_weights as a checkpoint like Google's of 2018, and returns the folder."""

    def write(drop=(), layers=2):
        folder = tmp_path / "google"
        folder.mkdir()
        with tf.Graph().as_default(), tf.compat.v1.Session() as session:
            for name, value in random_weights(layers).items():
                path = "bert/" + name.replace("layer.", "layer_").replace(".", "/")
                if "LayerNorm" in path:
                    path = path.replace("/weight", "/gamma").replace("/bias", "/beta")
                elif "_embeddings" in path:
                    path = path.removesuffix("/weight")
                elif path.endswith("/weight"):
                    path, value = path.replace("/weight", "/kernel"), value.T
                if path not in drop:
                    tf.compat.v1.get_variable(path, initializer=value)
            for name in ("cls/predictions/output_bias", "bert/pooler/dense/kernel/adam_m", "global_step"):
                tf.compat.v1.get_variable(name, initializer=np.zeros(30, np.float32))
            session.run(tf.compat.v1.global_variables_initializer())
            tf.compat.v1.train.Saver().save(session, str(folder / "bert_model.ckpt"))
        (folder / "bert_config.json").write_text(json.dumps(CONFIG))
        write_vocabulary(folder)
        return folder

    return write


def test_googles_checkpoint_keeps_its_outputs(google):
    folder = google()
    source = convert.read_checkpoint(folder)
    assert_outputs(source.encoder, folder)
    assert source.lower_case


def test_a_vocabulary_with_capitals_is_cased(google):
    folder = google()
    write_vocabulary(folder, [*PIECES[:-1], "Q"])
    assert not convert.read_checkpoint(folder).lower_case


def test_missing_weights_of_googles_checkpoint_are_named(google):
    name = "encoder/layer_0/output/dense/kernel"
    with pytest.raises(UserError, match=name):
        convert.read_checkpoint(google(drop=[f"bert/{name}"]))


def test_more_layers_than_googles_configuration_has_are_named(google):
    with pytest.raises(UserError, match="encoder/layer_2/"):
        convert.read_checkpoint(google(layers=3))


@pytest.mark.parametrize("suffix", [".index", ".data-00000-of-00001"])
@pytest.mark.parametrize("length", [0, 100, 1000])
def test_a_damaged_checkpoint_is_named(google, suffix, length):
    folder = google()
    path = folder / f"bert_model.ckpt{suffix}"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(UserError, match=f"{folder}/bert_model.ckpt must be "):
        convert.read_checkpoint(folder)


def write_objects(folder, name, **config):
    """Write a checkpoint of a 2-layer BERT under a name, with these changes to its configuration; return the BERT."""
    encoder = random_encoders.build_random_encoder("tiny", folder).encoder
    tf.train.Checkpoint(**{name: encoder}).save(str(folder / "ckpt"))
    sizes = dict(vocab_size=1024, hidden_size=64, num_attention_heads=2, intermediate_size=256)
    (folder / "bert_config.json").write_text(json.dumps(CONFIG | sizes | dict(max_position_embeddings=512) | config))
    return encoder


@pytest.mark.parametrize("name", ["encoder", "model"])
def test_an_object_checkpoint_keeps_its_values(tmp_path, name):
    encoder = write_objects(tmp_path, name)
    read = convert.read_checkpoint(tmp_path).encoder
    assert all((a == b).all() for a, b in zip(read.get_weights(), encoder.get_weights(), strict=True))


@pytest.mark.parametrize("config", [dict(num_hidden_layers=1), dict(num_hidden_layers=3), dict(intermediate_size=128)])
def test_objects_of_other_sizes_are_refused(tmp_path, config):
    write_objects(tmp_path, "model", **config)
    with pytest.raises(UserError, match="ckpt-1 must "):
        convert.read_checkpoint(tmp_path)


def test_a_checkpoint_of_other_objects_is_rejected(tmp_path):
    tf.train.Checkpoint(classifier=tf.Variable(1.0)).save(str(tmp_path / "ckpt"))
    (tmp_path / "bert_config.json").write_text(json.dumps(CONFIG))
    write_vocabulary(tmp_path)
    with pytest.raises(UserError, match=r"ckpt-1 must hold a BertEncoder"):
        convert.read_checkpoint(tmp_path)


def test_every_missing_file_of_a_checkpoint_is_named(tmp_path):
    with pytest.raises(UserError) as caught:
        convert.read_checkpoint(tmp_path)
    assert [problem.required.split()[-1] for problem in caught.value.problems] == ["bert_config.json", "vocab.txt"]


@pytest.mark.parametrize("names", [[], ["a.index", "b.index"]])
def test_a_folder_must_hold_exactly_one_checkpoint(tmp_path, names):
    (tmp_path / "bert_config.json").write_text(json.dumps(CONFIG))
    write_vocabulary(tmp_path)
    for name in names:
        (tmp_path / name).write_text("")
    with pytest.raises(UserError, match=rf"\*\.index .*Received: {tmp_path} with {len(names)}\."):
        convert.read_checkpoint(tmp_path)

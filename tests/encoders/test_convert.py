import contextlib
import dataclasses
import json
import math

import numpy as np
import pytest
import safetensors.numpy
import tensorflow as tf
import tensorflow_hub as hub
from helpers import python

from trainer.data import tokenization
from trainer.encoders import convert, random_encoders

SIZES = dict(
    vocab_size=30,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=24,
    max_position_embeddings=20,
    type_vocab_size=2,
    hidden_act="gelu",
    hidden_dropout_prob=0.1,
    attention_probs_dropout_prob=0.1,
    initializer_range=0.02,
)
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwx", "."]


def weights() -> dict[str, np.ndarray]:
    """Random values of a BERT by Hugging Face's names, large enough for every part to show in the outputs."""
    rng = np.random.default_rng(0)
    hidden, inner = SIZES["hidden_size"], SIZES["intermediate_size"]

    def dense(name, outputs, inputs):
        return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}

    def norm(name):
        return {f"{name}.weight": (hidden,), f"{name}.bias": (hidden,)}

    shapes = {f"embeddings.{kind}_embeddings.weight": (SIZES[size], hidden) for kind, size in (
        ("word", "vocab_size"), ("position", "max_position_embeddings"), ("token_type", "type_vocab_size")
    )} | norm("embeddings.LayerNorm") | dense("pooler.dense", hidden, hidden)  # fmt: skip
    for layer in range(SIZES["num_hidden_layers"]):
        at = f"encoder.layer.{layer}"
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            shapes |= dense(f"{at}.attention.{part}", hidden, hidden)
        shapes |= dense(f"{at}.intermediate.dense", inner, hidden) | dense(f"{at}.output.dense", hidden, inner)
        shapes |= norm(f"{at}.attention.output.LayerNorm") | norm(f"{at}.output.LayerNorm")
    return {name: rng.normal(0, 0.5, shape).astype(np.float32) for name, shape in shapes.items()}


def forward(w, inputs, gelu) -> tuple[np.ndarray, np.ndarray]:
    """BERT as its paper has it, in numpy: (sequence output [B, S, H], pooled output [B, H])."""

    def dense(x, name):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(x, name):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-12)
        return x * w[f"{name}.weight"] + w[f"{name}.bias"]

    words, types = inputs["input_word_ids"], inputs["input_type_ids"]
    x = w["embeddings.word_embeddings.weight"][words] + w["embeddings.token_type_embeddings.weight"][types]
    x = norm(x + w["embeddings.position_embeddings.weight"][: words.shape[1]], "embeddings.LayerNorm")
    heads = SIZES["num_attention_heads"]
    for layer in range(SIZES["num_hidden_layers"]):
        at = f"encoder.layer.{layer}"
        q, k, v = (
            dense(x, f"{at}.attention.self.{part}").reshape(*words.shape, heads, -1).transpose(0, 2, 1, 3)
            for part in ("query", "key", "value")
        )
        scores = q @ k.transpose(0, 1, 3, 2) / math.sqrt(q.shape[-1]) - 1e9 * (1 - inputs["input_mask"][:, None, None])
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (scores / scores.sum(-1, keepdims=True) @ v).transpose(0, 2, 1, 3).reshape(x.shape)
        x = norm(x + dense(mixed, f"{at}.attention.output.dense"), f"{at}.attention.output.LayerNorm")
        inner = gelu(dense(x, f"{at}.intermediate.dense"))
        x = norm(x + dense(inner, f"{at}.output.dense"), f"{at}.output.LayerNorm")
    return x, np.tanh(dense(x[:, 0], "pooler.dense"))


def exact(x):
    return x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2


def tanh(x):
    return x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2


INPUTS = {
    "input_word_ids": np.random.default_rng(1).integers(0, 30, (3, 12)).astype(np.int32),
    "input_mask": (np.arange(12) < [[12], [7], [2]]).astype(np.int32),
    "input_type_ids": np.random.default_rng(2).integers(0, 2, (3, 12)).astype(np.int32),
}


def assert_outputs(encoder, gelu) -> None:
    """That an encoder has the outputs of `weights`, and not those of the other kind of GELU."""
    received = encoder({name: tf.constant(value) for name, value in INPUTS.items()})
    for kind, equal in ((gelu, True), ({exact: tanh, tanh: exact}[gelu], False)):
        sequence, pooled = forward(weights(), INPUTS, kind)
        difference = max(
            np.abs(received["sequence_output"] - sequence).max(), np.abs(received["pooled_output"] - pooled).max()
        )
        assert bool(difference < 2e-5) is equal, difference


def write_vocabulary(folder, pieces=PIECES):
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n")


@pytest.fixture
def hugging_face(tmp_path):
    """A function that writes a Hugging Face folder with `weights`, changed as asked, and returns it."""

    def write(rename=lambda name: name, drop=(), dtype=np.float32, **config):
        folder = tmp_path / "hf"
        folder.mkdir()
        values = {rename(name): value.astype(dtype) for name, value in weights().items() if name not in drop}
        safetensors.numpy.save_file(values, folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps({"model_type": "bert", **SIZES, **config}))
        write_vocabulary(folder)
        return folder

    return write


# --- Names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "google", "hugging_face"),
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
def test_a_variable_has_its_name_in_every_format(ours, google, hugging_face):
    assert convert.google_name(ours) == google
    assert convert.hugging_face_name(ours) == hugging_face


# --- Hugging Face ---------------------------------------------------------------------------------


def old_names(name: str) -> str:
    name = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
    return f"bert.{name}"


@pytest.mark.parametrize(("kind", "gelu"), [("gelu", exact), ("gelu_new", tanh)])
@pytest.mark.parametrize("rename", [str, old_names])
def test_a_hugging_face_encoder_has_its_outputs(hugging_face, kind, gelu, rename):
    assert_outputs(convert.read_hugging_face(hugging_face(rename, hidden_act=kind)).encoder, gelu)


def test_weights_in_half_precision_are_taken(hugging_face):
    source = convert.read_hugging_face(hugging_face(dtype=np.float16))
    table = next(v for v in source.encoder.trainable_variables if "word_embeddings" in v.name)
    assert table.dtype == tf.float32
    assert np.array_equal(table, weights()["embeddings.word_embeddings.weight"].astype(np.float16).astype(np.float32))


def test_what_is_exported_has_the_outputs_of_the_source_and_its_casing(hugging_face, tmp_path):
    folder = hugging_face()
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    words = "The the Movie movie Was was GREAT great".split()  # noqa: SIM905
    write_vocabulary(folder, [*PIECES[:5], *words, *"ABCDEFGHabcdefgh", "."])
    convert.write_encoder(convert.read_hugging_face(folder), f"{tmp_path}/made/out")
    assert sorted(p.name for p in (tmp_path / "made").iterdir()) == ["out"]
    assert sorted(p.name for p in (tmp_path / "made" / "out").iterdir()) == ["encoder", "preprocess"]
    assert_outputs(hub.load(str(tmp_path / "made" / "out" / "encoder")), exact)
    tokenizer = tokenization.load_tokenizer(str(tmp_path / "made" / "out" / "preprocess"))
    assert not tokenizer.lower_case
    assert tokenizer.tokenize(["A a ."]).to_list() == [[13, 21, 29]]


@pytest.mark.parametrize(
    ("remove", "message"),
    [
        ("config.json", r"--source must name a folder with config.json. Received: .*hf, which has none"),
        ("model.safetensors", r"--source=hf:DIR needs model.safetensors in DIR. Received: .*hf, which has none"),
        ("vocab.txt", r"--source must name a folder with vocab.txt beside the weights. Received: .*hf"),
    ],
)
def test_a_missing_file_is_named(hugging_face, remove, message):
    folder = hugging_face()
    (folder / remove).unlink()
    with pytest.raises(ValueError, match=message):
        convert.read_hugging_face(folder)


def test_what_would_run_or_lead_elsewhere_is_not_read(hugging_face, tmp_path):
    """Weights in parts, whose index names files, and pickled ones."""
    folder = hugging_face()
    (folder / "model.safetensors").rename(tmp_path / "weights")
    index = {"weight_map": {"bert.pooler.dense.bias": str(tmp_path / "weights"), "x": "../weights"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "pytorch_model.bin").write_bytes(b"cos\nmkdir\n(S'" + bytes(tmp_path / "made") + b"'\ntR.")
    with pytest.raises(
        ValueError, match=r"--source=hf:DIR needs model.safetensors in DIR. Received: .*hf, which has none"
    ):
        convert.read_hugging_face(folder)
    assert not (tmp_path / "made").exists()


def test_missing_weights_are_named(hugging_face):
    gone = ["encoder.layer.1.output.dense.bias", "pooler.dense.weight"]
    message = r"model.safetensors must hold the weights of a whole BERT encoder. Received: one without "
    with pytest.raises(ValueError, match=message + ", ".join(gone)):
        convert.read_hugging_face(hugging_face(drop=gone))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (dict(model_type="roberta"), r"hf must hold a model of type bert. Received: 'roberta'"),
        (dict(hidden_act="relu"), r"The encoder's hidden_act must be gelu or gelu_new. Received: relu"),
        (dict(intermediate_size=32), r"intermediate"),
    ],
)
def test_another_architecture_is_refused(hugging_face, config, message):
    with pytest.raises(ValueError, match=message):
        convert.read_hugging_face(hugging_face(**config))


@pytest.mark.parametrize("content", ['{"model_type": "bert", "hidden_act": "gelu"}', "{"])
def test_a_configuration_that_is_none_is_refused_by_name(hugging_face, content):
    folder = hugging_face()
    (folder / "config.json").write_text(content)
    with pytest.raises(ValueError, match=r"config\.json"):
        convert.read_hugging_face(folder)


# --- Checkpoints ----------------------------------------------------------------------------------


@pytest.fixture
def google(tmp_path):
    """A function that writes `weights` as Google's checkpoints of 2018 have them, and returns the folder."""

    def write(drop=()):
        folder = tmp_path / "google"
        folder.mkdir()
        with tf.Graph().as_default(), tf.compat.v1.Session() as session:
            for name, value in weights().items():
                path = "bert/" + name.replace("layer.", "layer_").replace(".", "/")
                if "LayerNorm" in path:
                    path = path.replace("/weight", "/gamma").replace("/bias", "/beta")
                elif "_embeddings" in path:
                    path = path.removesuffix("/weight")
                elif path.endswith("/weight"):
                    path, value = path.replace("/weight", "/kernel"), value.T
                if path not in drop:
                    tf.compat.v1.get_variable(path, initializer=value)
            tf.compat.v1.get_variable("cls/predictions/output_bias", initializer=np.zeros(30, np.float32))
            session.run(tf.compat.v1.global_variables_initializer())
            tf.compat.v1.train.Saver().save(session, str(folder / "bert_model.ckpt"))
        (folder / "bert_config.json").write_text(json.dumps(SIZES))
        write_vocabulary(folder)
        return folder

    return write


def test_googles_checkpoint_has_its_outputs(google):
    source = convert.read_checkpoint(google())
    assert_outputs(source.encoder, tanh)
    assert source.lower_case


def test_a_vocabulary_with_capitals_is_cased(google):
    folder = google()
    write_vocabulary(folder, [*PIECES[:-1], "Q"])
    assert not convert.read_checkpoint(folder).lower_case


def test_a_googles_checkpoint_that_lacks_weights_is_refused_by_their_names(google):
    gone = "bert/encoder/layer_0/output/dense/kernel"
    with pytest.raises(ValueError, match=r"one without encoder/layer_0/output/dense/kernel\."):
        convert.read_checkpoint(google(drop=[gone]))


@pytest.mark.parametrize("under", ["encoder", "model"])
def test_a_checkpoint_of_objects_has_its_values(tmp_path, under):
    source = random_encoders.build_random_encoder("tiny", tmp_path)
    tf.train.Checkpoint(**{under: source.encoder}).save(str(tmp_path / "ckpt"))
    config = SIZES | dict(vocab_size=1024, hidden_size=64, num_attention_heads=2, intermediate_size=256)
    (tmp_path / "bert_config.json").write_text(json.dumps(config | dict(max_position_embeddings=512)))
    read = convert.read_checkpoint(tmp_path).encoder
    assert all((a == b).all() for a, b in zip(read.get_weights(), source.encoder.get_weights(), strict=True))


def test_a_checkpoint_of_other_objects_is_refused(tmp_path):
    tf.train.Checkpoint(classifier=tf.Variable(1.0)).save(str(tmp_path / "ckpt"))
    (tmp_path / "bert_config.json").write_text(json.dumps(SIZES))
    write_vocabulary(tmp_path)
    with pytest.raises(ValueError, match=r"ckpt-1 must hold a BertEncoder under 'encoder' or 'model'. Received: "):
        convert.read_checkpoint(tmp_path)


@pytest.mark.parametrize("link", [False, True])
def test_a_file_or_a_link_in_the_place_of_the_output_stays(tmp_path, link):
    output = tmp_path / "notes.txt"
    output.symlink_to(tmp_path) if link else output.write_text("notes")
    with pytest.raises(ValueError, match=r"--output must name a new folder.*notes\.txt, which is none"):
        convert.write_encoder(None, str(output))
    assert output.is_symlink() if link else output.read_text() == "notes"


def test_a_folder_must_hold_one_checkpoint(tmp_path):
    with pytest.raises(ValueError, match=r"--source must name a folder with bert_config.json. Received: "):
        convert.read_checkpoint(tmp_path)
    (tmp_path / "bert_config.json").write_text(json.dumps(SIZES))
    for count in (0, 2):
        message = rf"--source=checkpoint:DIR needs one checkpoint \(\*.index\) in DIR. Received: .* with {count}"
        with pytest.raises(ValueError, match=message):
            convert.read_checkpoint(tmp_path)
        for name in ("a.index", "b.index"):
            (tmp_path / name).write_text("")


# --- Out ------------------------------------------------------------------------------------------


def test_an_export_that_fails_leaves_what_was_there_and_nothing_else(hugging_face, tmp_path):
    source = convert.read_hugging_face(hugging_face())
    output = tmp_path / "made" / "out"
    (output / "encoder").mkdir(parents=True)
    (output / "encoder" / "saved_model.pb").write_text("before")
    with pytest.raises(Exception, match=r"no-vocab\.txt"):
        convert.write_encoder(dataclasses.replace(source, vocabulary_file=tmp_path / "no-vocab.txt"), str(output))
    assert [p.relative_to(output).as_posix() for p in sorted(output.rglob("*"))] == [
        "encoder",
        "encoder/saved_model.pb",
    ]
    assert [p.name for p in output.parent.iterdir()] == ["out"]


def test_an_encoder_is_imported_from_a_bucket_into_a_bucket(hugging_face, simulator):
    simulator.python(f'from trainer.storage import fs; fs.copy_folder("{hugging_face()}", "gs://bucket/hf")')
    arguments = ["--source=hf:gs://bucket/hf", "--output=gs://bucket/made/out"]
    done = python("scripts/import_encoder.py", *arguments, env=simulator.environment())
    assert done.stdout == f"gs://bucket/made/out: encoder/ and preprocess/ written from {arguments[0][9:]}\n", (
        done.stderr
    )
    code = """
from trainer.encoders import registry
folders = registry.resolve_encoder("gs://bucket/made/out")
encoder = registry.load_saved_model(folders.encoder)
print(len(encoder.trainable_variables), registry.is_saved_model(folders.preprocess))
"""
    assert simulator.python(code) == "39 True"
    made = [line["wrote"] for line in simulator.log() if line.get("wrote", "").startswith("made/")]
    assert made[-2:] == ["made/out/encoder/saved_model.pb", "made/out/preprocess/saved_model.pb"]


def test_an_export_takes_nothing_away_that_is_no_encoder(hugging_face, tmp_path):
    source = convert.read_hugging_face(hugging_face())
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "thesis.txt").write_text("three years")
    with contextlib.suppress(ValueError):
        convert.write_encoder(source, f"{tmp_path}/documents")
    assert (tmp_path / "documents" / "thesis.txt").read_text() == "three years"

import dataclasses
import json
import math

import numpy as np
import pytest
import safetensors.numpy
import tensorflow as tf
import tensorflow_hub as hub
from helpers import python, random_encoder_inputs

from trainer.data import tokenization
from trainer.encoders import convert, random_encoders
from trainer.errors import UserError

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


def random_weights() -> dict[str, np.ndarray]:
    """A BERT's weights by Hugging Face's names, so large that every part of the encoder changes the outputs."""
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
        prefix = f"encoder.layer.{layer}"
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            shapes |= dense(f"{prefix}.attention.{part}", hidden, hidden)
        shapes |= dense(f"{prefix}.intermediate.dense", inner, hidden) | dense(f"{prefix}.output.dense", hidden, inner)
        shapes |= norm(f"{prefix}.attention.output.LayerNorm") | norm(f"{prefix}.output.LayerNorm")
    return {name: rng.normal(0, 0.5, shape).astype(np.float32) for name, shape in shapes.items()}


def compute_outputs(weights, inputs, gelu) -> tuple[np.ndarray, np.ndarray]:
    """(sequence output [B, S, H], pooled output [B, H]) of a BERT, computed with NumPy as in its paper."""

    def dense(x, name):
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(x, name):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-12)
        return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    words, types = inputs["input_word_ids"], inputs["input_type_ids"]
    x = weights["embeddings.word_embeddings.weight"][words] + weights["embeddings.token_type_embeddings.weight"][types]
    x = norm(x + weights["embeddings.position_embeddings.weight"][: words.shape[1]], "embeddings.LayerNorm")
    heads = SIZES["num_attention_heads"]
    for layer in range(SIZES["num_hidden_layers"]):
        prefix = f"encoder.layer.{layer}"
        q, k, v = (
            dense(x, f"{prefix}.attention.self.{part}").reshape(*words.shape, heads, -1).transpose(0, 2, 1, 3)
            for part in ("query", "key", "value")
        )
        scores = q @ k.transpose(0, 1, 3, 2) / math.sqrt(q.shape[-1]) - 1e9 * (1 - inputs["input_mask"][:, None, None])
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (scores / scores.sum(-1, keepdims=True) @ v).transpose(0, 2, 1, 3).reshape(x.shape)
        x = norm(x + dense(mixed, f"{prefix}.attention.output.dense"), f"{prefix}.attention.output.LayerNorm")
        inner = gelu(dense(x, f"{prefix}.intermediate.dense"))
        x = norm(x + dense(inner, f"{prefix}.output.dense"), f"{prefix}.output.LayerNorm")
    return x, np.tanh(dense(x[:, 0], "pooler.dense"))


def exact_gelu(x):
    return x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2


def tanh_gelu(x):
    return x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2


INPUTS = random_encoder_inputs(rows=3, seq_length=12, vocab_size=SIZES["vocab_size"])


def assert_outputs(encoder, gelu) -> None:
    """The encoder has the outputs of random_weights with this form of GELU, and not with the other."""
    received = encoder({name: tf.constant(value) for name, value in INPUTS.items()})
    for form in (exact_gelu, tanh_gelu):
        sequence, pooled = compute_outputs(random_weights(), INPUTS, form)
        difference = max(
            np.abs(received["sequence_output"] - sequence).max(), np.abs(received["pooled_output"] - pooled).max()
        )
        assert bool(difference < 2e-5) is (form is gelu), difference


def write_vocabulary(folder, pieces=PIECES):
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n")


@pytest.fixture
def hugging_face(tmp_path):
    """A function that writes a Hugging Face folder with random_weights and these changes, and returns it."""

    def write(rename=lambda name: name, drop=(), dtype=np.float32, **config):
        folder = tmp_path / "hf"
        folder.mkdir()
        values = {rename(name): value.astype(dtype) for name, value in random_weights().items() if name not in drop}
        safetensors.numpy.save_file(values, folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps({"model_type": "bert", **SIZES, **config}))
        write_vocabulary(folder)
        return folder

    return write


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
    assert convert.google_name(canonical) == google
    assert convert.hugging_face_name(canonical) == hugging_face


# --- Hugging Face ---------------------------------------------------------------------------------


def old_names(name: str) -> str:
    name = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
    return f"bert.{name}"


@pytest.mark.parametrize(("kind", "gelu"), [("gelu", exact_gelu), ("gelu_new", tanh_gelu)])
@pytest.mark.parametrize("rename", [str, old_names])
def test_a_hugging_face_bert_keeps_its_outputs(hugging_face, kind, gelu, rename):
    assert_outputs(convert.read_hugging_face(hugging_face(rename, hidden_act=kind)).encoder, gelu)


def test_weights_in_half_precision_become_float32(hugging_face):
    source = convert.read_hugging_face(hugging_face(dtype=np.float16))
    table = next(v for v in source.encoder.trainable_variables if "word_embeddings" in v.name)
    assert table.dtype == tf.float32
    assert np.array_equal(
        table, random_weights()["embeddings.word_embeddings.weight"].astype(np.float16).astype(np.float32)
    )


def test_an_export_keeps_outputs_and_casing(hugging_face, tmp_path):
    folder = hugging_face()
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    words = "The the Movie movie Was was GREAT great".split()  # noqa: SIM905
    write_vocabulary(folder, [*PIECES[:5], *words, *"ABCDEFGHabcdefgh", "."])
    convert.write_encoder(convert.read_hugging_face(folder), f"{tmp_path}/made/out")
    assert sorted(p.name for p in (tmp_path / "made").iterdir()) == ["out"]
    assert sorted(p.name for p in (tmp_path / "made" / "out").iterdir()) == ["encoder", "preprocess"]
    assert_outputs(hub.load(str(tmp_path / "made" / "out" / "encoder")), exact_gelu)
    tokenizer = tokenization.load_tokenizer(str(tmp_path / "made" / "out" / "preprocess"))
    assert not tokenizer.lower_case
    assert tokenizer.tokenize(["A a ."]).to_list() == [[13, 21, 29]]


@pytest.mark.parametrize("missing", [["config.json"], ["model.safetensors"], ["model.safetensors", "vocab.txt"]])
def test_every_missing_file_of_hugging_face_is_named(hugging_face, missing):
    folder = hugging_face()
    for name in missing:
        (folder / name).unlink()
    with pytest.raises(UserError) as caught:
        convert.read_hugging_face(folder)
    assert [problem.required.split()[-1] for problem in caught.value.problems] == missing
    assert all(str(folder) in problem.received for problem in caught.value.problems)


def test_pickled_weights_and_shards_in_other_folders_are_not_read(hugging_face, tmp_path):
    folder = hugging_face()
    (folder / "model.safetensors").rename(tmp_path / "weights")
    index = {"weight_map": {"bert.pooler.dense.bias": str(tmp_path / "weights"), "x": "../weights"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "pytorch_model.bin").write_bytes(b"cos\nmkdir\n(S'" + bytes(tmp_path / "made") + b"'\ntR.")
    with pytest.raises(UserError, match=r"model\.safetensors"):
        convert.read_hugging_face(folder)
    assert not (tmp_path / "made").exists()


def test_missing_weights_are_named(hugging_face):
    missing = ["encoder.layer.1.output.dense.bias", "pooler.dense.weight"]
    with pytest.raises(UserError) as caught:
        convert.read_hugging_face(hugging_face(drop=missing))
    (problem,) = caught.value.problems
    assert problem.setting.endswith("model.safetensors")
    assert all(name in problem.received for name in missing)


@pytest.mark.parametrize(
    ("config", "setting", "received"),
    [
        (dict(model_type="roberta"), "model_type", "roberta"),
        (dict(hidden_act="relu"), "hidden_act", "relu"),
        (dict(intermediate_size=32), "encoder.layer.0.intermediate.dense", "24"),
    ],
)
def test_another_architecture_is_rejected(hugging_face, config, setting, received):
    with pytest.raises(UserError) as caught:
        convert.read_hugging_face(hugging_face(**config))
    (problem,) = caught.value.problems
    assert problem.setting.startswith(setting)
    assert received in problem.received


@pytest.mark.parametrize("content", ['{"model_type": "bert", "hidden_act": "gelu"}', "{"])
def test_an_invalid_configuration_file_is_named(hugging_face, content):
    folder = hugging_face()
    (folder / "config.json").write_text(content)
    with pytest.raises(UserError, match=r"config\.json"):
        convert.read_hugging_face(folder)


# --- Checkpoints ----------------------------------------------------------------------------------


@pytest.fixture
def google(tmp_path):
    """A function that writes random_weights as a checkpoint like Google's of 2018, and returns the folder."""

    def write(drop=()):
        folder = tmp_path / "google"
        folder.mkdir()
        with tf.Graph().as_default(), tf.compat.v1.Session() as session:
            for name, value in random_weights().items():
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


def test_googles_checkpoint_keeps_its_outputs(google):
    source = convert.read_checkpoint(google())
    assert_outputs(source.encoder, tanh_gelu)
    assert source.lower_case


def test_a_vocabulary_with_capitals_is_cased(google):
    folder = google()
    write_vocabulary(folder, [*PIECES[:-1], "Q"])
    assert not convert.read_checkpoint(folder).lower_case


def test_missing_weights_of_googles_checkpoint_are_named(google):
    name = "encoder/layer_0/output/dense/kernel"
    with pytest.raises(UserError, match=name):
        convert.read_checkpoint(google(drop=[f"bert/{name}"]))


@pytest.mark.parametrize("name", ["encoder", "model"])
def test_an_object_checkpoint_keeps_its_values(tmp_path, name):
    source = random_encoders.build_random_encoder("tiny", tmp_path)
    tf.train.Checkpoint(**{name: source.encoder}).save(str(tmp_path / "ckpt"))
    config = SIZES | dict(vocab_size=1024, hidden_size=64, num_attention_heads=2, intermediate_size=256)
    (tmp_path / "bert_config.json").write_text(json.dumps(config | dict(max_position_embeddings=512)))
    read = convert.read_checkpoint(tmp_path).encoder
    assert all((a == b).all() for a, b in zip(read.get_weights(), source.encoder.get_weights(), strict=True))


def test_a_checkpoint_of_other_objects_is_rejected(tmp_path):
    tf.train.Checkpoint(classifier=tf.Variable(1.0)).save(str(tmp_path / "ckpt"))
    (tmp_path / "bert_config.json").write_text(json.dumps(SIZES))
    write_vocabulary(tmp_path)
    with pytest.raises(UserError, match=r"ckpt-1 must hold a BertEncoder"):
        convert.read_checkpoint(tmp_path)


def test_every_missing_file_of_a_checkpoint_is_named(tmp_path):
    with pytest.raises(UserError) as caught:
        convert.read_checkpoint(tmp_path)
    assert [problem.required.split()[-1] for problem in caught.value.problems] == ["bert_config.json", "vocab.txt"]


@pytest.mark.parametrize("names", [[], ["a.index", "b.index"]])
def test_a_folder_must_hold_exactly_one_checkpoint(tmp_path, names):
    (tmp_path / "bert_config.json").write_text(json.dumps(SIZES))
    write_vocabulary(tmp_path)
    for name in names:
        (tmp_path / name).write_text("")
    with pytest.raises(UserError, match=rf"\*\.index .*Received: {tmp_path} with {len(names)}\."):
        convert.read_checkpoint(tmp_path)


# --- The exporter ---------------------------------------------------------------------------------


@pytest.mark.parametrize("link", [False, True])
def test_a_file_or_link_at_the_output_is_kept(tmp_path, link):
    output = tmp_path / "notes.txt"
    output.symlink_to(tmp_path) if link else output.write_text("notes")
    with pytest.raises(UserError, match=r"--output .*notes\.txt"):
        convert.write_encoder(None, str(output))
    assert output.is_symlink() if link else output.read_text() == "notes"


def test_a_folder_with_other_files_is_not_replaced(tmp_path):
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "thesis.txt").write_text("three years")
    with pytest.raises(UserError, match=r"--output .*thesis\.txt"):
        convert.write_encoder(None, f"{tmp_path}/documents")
    assert (tmp_path / "documents" / "thesis.txt").read_text() == "three years"


def test_a_failed_export_changes_nothing(hugging_face, tmp_path):
    imported = convert.read_hugging_face(hugging_face())
    output = tmp_path / "made" / "out"
    (output / "encoder").mkdir(parents=True)
    (output / "encoder" / "saved_model.pb").write_text("before")
    with pytest.raises(Exception, match=r"no-vocab\.txt"):
        convert.write_encoder(dataclasses.replace(imported, vocabulary_file=tmp_path / "no-vocab.txt"), str(output))
    assert [path.relative_to(output).as_posix() for path in sorted(output.rglob("*"))] == [
        "encoder",
        "encoder/saved_model.pb",
    ]
    assert [path.name for path in output.parent.iterdir()] == ["out"]


def test_an_encoder_is_imported_from_a_bucket_into_a_bucket(hugging_face, simulator):
    simulator.python(f'from trainer.storage import fs; fs.copy_folder("{hugging_face()}", "gs://bucket/hf")')
    arguments = ["--source=hf:gs://bucket/hf", "--output=gs://bucket/made/out"]
    python("scripts/import_encoder.py", *arguments, env=simulator.environment(), check=True)
    code = """
from trainer.encoders import registry
folders = registry.resolve_encoder("gs://bucket/made/out")
encoder = registry.load_saved_model(folders.encoder)
print(len(encoder.trainable_variables), registry.is_saved_model(folders.preprocess))
"""
    assert simulator.python(code) == "39 True"
    written = [line["wrote"] for line in simulator.log() if line.get("wrote", "").startswith("made/")]
    assert written[-2:] == ["made/out/encoder/saved_model.pb", "made/out/preprocess/saved_model.pb"]

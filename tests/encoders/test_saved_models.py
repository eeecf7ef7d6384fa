import shutil

import pytest
import tensorflow as tf
from fakes.encoders import save_callable

from trainer.encoders import native, saved_models
from trainer.encoders.registry import EncoderFolders
from trainer.errors import UserError

IDS = {name: tf.TensorSpec([None, None], tf.int32) for name in native.INPUT_NAMES}


def pool(table, inputs):
    """float32 [B, 4] of a dictionary of int32 [B, S]."""
    return tf.reduce_mean(tf.gather(table, inputs["input_word_ids"]), 1)


def find_problem(folder):
    """The one problem with the SavedModel in a folder as an encoder."""
    with pytest.raises(UserError) as caught:
        saved_models.load_encoder(EncoderFolders(str(folder), str(folder), ""))
    (problem,) = caught.value.problems
    assert problem.setting == "--encoder"
    assert str(folder) in problem.received
    return problem


def test_a_loaded_encoder_is_trainable_and_outputs_all_layers(tiny):
    saved = saved_models.load_saved_model(str(tiny / "encoder"))
    inputs = {name: tf.ones([2, 7], tf.int32) for name in native.INPUT_NAMES}
    outputs = saved(inputs, training=True)
    assert outputs["pooled_output"].shape == (2, 64)
    assert [x.shape for x in outputs["encoder_outputs"]] == [(2, 7, 64)] * 2
    assert len(saved.trainable_variables) == 39


# --- What is no encoder ---------------------------------------------------------------------------


def test_an_encoder_of_any_kind_is_accepted(tiny, tmp_path):
    save_callable(tmp_path, IDS, lambda table, inputs: {"pooled_output": pool(table, inputs)})
    for folder in (tmp_path, tiny / "encoder"):
        assert saved_models.load_encoder(EncoderFolders(str(folder), str(folder), ""))


@pytest.mark.parametrize(
    ("specification", "taken"),
    [
        (tf.TensorSpec([None], tf.string), "text [?]"),
        ({name: IDS[name] for name in ("input_word_ids", "input_mask")}, "input_word_ids int32 [?, ?]"),
        (list(IDS.values()), "int32 [?, ?]"),
        ({name: tf.TensorSpec([None, 5], tf.int32) for name in IDS}, "input_type_ids int32 [?, 5]"),
        (IDS | {"input_mask": tf.TensorSpec([None, None], tf.float32)}, "input_mask float32 [?, ?]"),
        (IDS | {"positions": IDS["input_mask"]}, "positions int32 [?, ?]"),
    ],
)
def test_a_model_with_other_inputs_is_refused_with_what_it_takes(tmp_path, specification, taken):
    save_callable(tmp_path, specification, lambda table, _: {"pooled_output": table})
    received = find_problem(tmp_path).received
    assert "which takes " in received
    assert taken in received


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda table, ids: {"sequence_output": tf.gather(table, ids["input_mask"])}, "returns sequence_output"),
        (pool, "returns a tensor float32 [2, 4] instead of"),
        (lambda table, ids: [pool(table, ids)] * 2, "returns a tensor float32 [2, 4], a tensor float32 [2, 4] instead"),
        (lambda table, ids: {"pooled_output": tf.gather(table, ids["input_mask"])}, "float32 [2, 8, 4]"),
        (lambda table, ids: {"pooled_output": table}, "float32 [16, 4]"),
        (lambda table, ids: {"pooled_output": tf.cast(pool(table, ids), tf.int32)}, "int32 [2, 4]"),
        (lambda table, ids: {"pooled_output": pool(table, ids) / 0.0}, "not finite"),
        (lambda table, ids: {"pooled_output": pool(table[:1], ids)}, "fails for two texts of 8 tokens"),
    ],
)
def test_a_model_with_other_outputs_is_refused_with_what_it_returns(tmp_path, call, words):
    save_callable(tmp_path, IDS, call)
    assert words in find_problem(tmp_path).received


def test_a_model_without_trainable_variables_is_refused(tmp_path):
    save_callable(tmp_path, IDS, lambda table, ids: {"pooled_output": pool(table, ids)}, trainable=False)
    assert "no trainable variables" in find_problem(tmp_path).received


def test_a_plain_module_is_refused(tmp_path):
    module = tf.Module()
    module.table = tf.Variable(1.0)
    tf.saved_model.save(module, str(tmp_path))
    assert "cannot be called. It has no signatures" in find_problem(tmp_path).received


def test_a_model_with_signatures_alone_is_refused_with_their_inputs(tmp_path):
    module = tf.Module()
    module.score = tf.function(
        lambda text: {"scores": text}, input_signature=[tf.TensorSpec([None], tf.string, "text")]
    )
    tf.saved_model.save(module, str(tmp_path), signatures=module.score)
    problem = find_problem(tmp_path)
    assert "serving_default of text text [?]" in problem.received
    assert not problem.advice


def test_an_export_is_refused_with_where_its_encoder_is(finished_run):
    problem = find_problem(finished_run / "export")
    assert "serving_default of text text [?]" in problem.received
    assert "config.yaml" in problem.advice


@pytest.mark.parametrize("of_the_hub", [False, True])
def test_a_model_of_tensorflow_1_is_refused(tmp_path, of_the_hub):
    folder = tmp_path / "model"
    builder = tf.compat.v1.saved_model.Builder(str(folder))
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        text = tf.compat.v1.placeholder(tf.string, [None], "text")
        tf.compat.v1.get_variable("size", initializer=1.0)
        session.run(tf.compat.v1.global_variables_initializer())
        signature = tf.compat.v1.saved_model.predict_signature_def({"text": text}, {"default": tf.identity(text)})
        builder.add_meta_graph_and_variables(session, [] if of_the_hub else ["serve"], {"default": signature})
    builder.save()
    if of_the_hub:
        (folder / "tfhub_module.pb").touch()
    assert ("format of TensorFlow 1" if of_the_hub else "default of text") in find_problem(folder).received


# --- Damaged files --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("saved_model.pb", lambda data: data[: len(data) // 2]),
        ("saved_model.pb", lambda data: b""),
        ("saved_model.pb", lambda data: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
        ("variables/variables.index", None),
        ("variables/variables.index", lambda data: b""),
        ("variables/variables.index", lambda data: data[: len(data) // 2]),
        ("variables/variables.data-", None),
        ("variables/variables.data-", lambda data: b""),
        ("variables/variables.data-", lambda data: data[: len(data) // 2]),
        ("variables/variables.data-", lambda data: data[:1000] + bytes([data[1000] ^ 1]) + data[1001:]),
    ],
)
def test_a_damaged_file_is_named(tiny, tmp_path, file, change):
    folder = shutil.copytree(tiny / "encoder", tmp_path / "encoder")
    (path,) = folder.glob(file + "*" * file.endswith("-"))
    content = path.read_bytes()
    path.unlink()
    if change:
        path.write_bytes(change(content))
    received = find_problem(folder).received
    assert received.startswith(f"{folder}, ")
    assert file in received

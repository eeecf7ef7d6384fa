"""A classifier in other formats. It is random, and so large that another input would show."""

import dataclasses
import json

import numpy as np
import onnxruntime
import pytest
import tensorflow as tf
from helpers import random_encoder_inputs

from trainer.data.label_scale import LabelScale
from trainer.encoders import architectures, classifier, native, window_pooling
from trainer.errors import UsageError, UserError
from trainer.export import classifier_export, token_classifier
from trainer.export.classifier_export import FORMATS, ParityTexts

ARCHITECTURE = architectures.Architecture(1024, 32, 32, 2, 2, 64, 64, 2, "gelu", 0.1, 0.1)


def build_model(activation="gelu", windows=False, family="bert", pooling="pooled"):
    architecture = dataclasses.replace(ARCHITECTURE, activation=activation, family=family)
    encoder = native.build_encoder(architecture, output_range=None if pooling == "mean" else 1)
    model = classifier.build_classifier(encoder, 3, 0.1, seed=0, pooling=pooling)
    rng = np.random.default_rng(0)
    for variable in model.variables:
        variable.assign(rng.normal(0, 0.3, variable.shape))
    return window_pooling.build_window_classifier(model, "max") if windows else model


def make_inputs(rows, tokens, windows=0):
    if not windows:
        return random_encoder_inputs(rows, tokens, 1024)
    inputs = {
        name: v.reshape(rows, windows, tokens)
        for name, v in random_encoder_inputs(rows * windows, tokens, 1024).items()
    }
    inputs["input_mask"][1:, 1:] = 0  # Texts of one window.
    return inputs


def compute(model, inputs):
    return model({name: tf.constant(value) for name, value in inputs.items()}, training=False).numpy()


def write(tmp_path, format_name, model, parity, scale=None, rank=2, name="out"):
    return classifier_export.write_classifier(
        classifier_export.build_token_module(model, scale, rank),
        str(tmp_path / name),
        format_name,
        {"labels": ["a", "b", "c"]},
        b"[PAD]\n[UNK]\n",
        parity,
        lambda classify: {"rows": len(token_classifier.classify_rows(classify, parity.inputs))},
    )


def make_parity(model, inputs, **changes):
    logits = compute(model, inputs)
    return ParityTexts(
        **{"inputs": inputs, "logits": logits, "decide": lambda values: values.argmax(axis=1), **changes}
    )


@pytest.mark.parametrize(("format_name", "tolerance"), [("litert", 1e-5), ("litert_int8", 0.5), ("onnx", 1e-5)])
def test_an_export_takes_any_number_of_rows_and_tokens(tmp_path, format_name, tolerance):
    model = build_model()
    described = write(tmp_path, format_name, model, make_parity(model, make_inputs(20, 12)))
    assert described["check"]["texts"] == described["metrics"]["rows"] == 20
    assert described["check"]["largest_difference"] <= tolerance
    assert json.loads((tmp_path / "out/classifier.json").read_text()) == described
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "classifier.json",
        FORMATS[format_name].file,
        "vocab.txt",
    ]
    classify = token_classifier.load_classifier(str(tmp_path / "out"))
    for rows, tokens in [(3, 16), (1, 5), (7, 64)]:
        inputs = make_inputs(rows, tokens)
        assert np.abs(classify(inputs) - compute(model, inputs)).max() <= tolerance


def test_int8_weights_take_a_third_of_the_space_or_less(tmp_path):
    model = build_model()
    parity = make_parity(model, make_inputs(20, 12))
    for name in ("litert", "litert_int8"):
        write(tmp_path, name, model, parity, name=name)
    whole, small = ((tmp_path / name / "model.tflite").stat().st_size for name in ("litert", "litert_int8"))
    assert small < whole / 2


@pytest.mark.parametrize("format_name", ["litert", "onnx"])
@pytest.mark.parametrize("activation", ["gelu_tanh", "relu"])
def test_every_activation_is_converted(tmp_path, activation, format_name):
    model = build_model(activation)
    assert write(tmp_path, format_name, model, make_parity(model, make_inputs(4, 12)))["check"]["same_labels"] == 4


@pytest.mark.parametrize("format_name", ["litert", "onnx"])
@pytest.mark.parametrize(("family", "pooling"), [("bert", "mean"), ("albert", "first"), ("talking_heads", "pooled")])
def test_families_and_poolings_are_converted(tmp_path, family, pooling, format_name):
    model = build_model(family=family, pooling=pooling)
    assert write(tmp_path, format_name, model, make_parity(model, make_inputs(4, 12)))["check"]["same_labels"] == 4


@pytest.mark.parametrize("format_name", ["litert", "onnx"])
def test_windows_are_pooled_in_the_export(tmp_path, format_name):
    model = build_model(windows=True)
    write(tmp_path, format_name, model, make_parity(model, make_inputs(4, 12, windows=3)), rank=3)
    classify = token_classifier.load_classifier(str(tmp_path / "out"))
    for rows, tokens, windows in [(3, 16, 2), (2, 8, 4)]:
        inputs = make_inputs(rows, tokens, windows)
        assert np.abs(classify(inputs) - compute(model, inputs)).max() < 1e-5


def test_numbers_are_in_their_own_units(tmp_path):
    model, inputs = build_model(), make_inputs(4, 12)
    scale = LabelScale(90.0, 5.0)
    parity = make_parity(model, inputs, logits=compute(model, inputs) * 5 + 90, unit=5.0, has_labels=False)
    assert "same_labels" not in write(tmp_path, "litert", model, parity, scale)["check"]


# --- The parity check -----------------------------------------------------------------------------


def check(logits, expected, format_name="litert", **changes):
    parity = ParityTexts({}, np.array(expected, np.float32), lambda values: values.argmax(axis=1), **changes)
    return classifier_export.check_parity(np.array(logits, np.float32), parity, FORMATS[format_name])


def test_the_check_has_the_difference_and_the_equal_labels():
    found = check([[0, 1], [1, 0]], [[0, 1.0005], [1, 0]])
    assert found == {"texts": 2, "largest_difference": pytest.approx(5e-4, rel=1e-3), "same_labels": 2}


@pytest.mark.parametrize(("difference", "unit", "accepted"), [(2e-3, 1, False), (2e-3, 10, True), (np.nan, 1, False)])
def test_a_difference_of_logits_is_refused(difference, unit, accepted):
    if accepted:
        check([[0, 1 + difference]], [[0, 1]], unit=unit)
    else:
        with pytest.raises(UserError, match=r"The export's logits must be within 0\.001 .*Nothing was exported"):
            check([[0, 1 + difference]], [[0, 1]], unit=unit)


@pytest.mark.parametrize(
    ("format_name", "wrong", "accepted"), [("litert", 1, False), ("litert_int8", 5, True), ("litert_int8", 6, False)]
)
def test_other_labels_are_refused(format_name, wrong, accepted):
    logits = np.tile([[0.0, 1e-5]], (100, 1))
    other = logits.copy()
    other[:wrong] = [1e-5, 0]
    if accepted:
        assert check(other, logits, format_name)["same_labels"] == 95
    else:
        with pytest.raises(UserError, match=f"The export's labels must be .*{100 - wrong} of 100"):
            check(other, logits, format_name)


def test_of_several_labels_all_have_to_be_the_same():
    parity = ParityTexts({}, np.zeros([2, 2], np.float32), lambda values: values > 5e-4)
    with pytest.raises(UserError, match="those of 1 of 2"):
        classifier_export.check_parity(np.array([[0, 9e-4], [0, 0]], np.float32), parity, FORMATS["litert"])


def test_an_export_that_fails_the_check_leaves_nothing(tmp_path):
    model, inputs = build_model(), make_inputs(4, 12)
    with pytest.raises(UserError, match="The export's logits"):
        write(tmp_path, "litert", model, make_parity(model, inputs, logits=compute(model, inputs) + 0.01))
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_fails_is_reported_with_its_cause(tmp_path):
    (tmp_path / "classifier.json").write_text('{"model": "model.tflite"}')
    with pytest.raises(UserError, match=r"must load in a fresh process[\s\S]*model\.tflite"):
        classifier_export.classify_in_fresh_process(str(tmp_path), make_inputs(2, 5))


def test_an_onnx_file_names_its_dimensions(tmp_path):
    model = build_model()
    write(tmp_path, "onnx", model, make_parity(model, make_inputs(4, 12)))
    session = onnxruntime.InferenceSession(str(tmp_path / "out/model.onnx"), providers=["CPUExecutionProvider"])
    assert {each.name: (each.type, each.shape) for each in session.get_inputs()} == {
        name: ("tensor(int32)", ["batch", "tokens"]) for name in native.INPUT_NAMES
    }
    assert [(each.name, each.shape) for each in session.get_outputs()] == [("logits", ["batch", 3])]


def test_a_format_without_its_packages_is_refused(monkeypatch):
    without = dataclasses.replace(FORMATS["onnx"], packages=("json", "no_such_package"))
    monkeypatch.setitem(FORMATS, "onnx", without)
    with pytest.raises(UsageError, match=r"--format must .*onnx, without no_such_package.*pip install"):
        classifier_export.check_packages("onnx")
    classifier_export.check_packages("litert")

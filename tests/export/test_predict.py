"""scripts/predict.py as a user calls it, and the functions that it calls."""

import json

import numpy as np
import pytest
import tensorflow as tf
from helpers import python

from trainer.encoders import classifier, native, saved_models
from trainer.errors import UserError
from trainer.export import predict, saved_model
from trainer.train import builder

TEXTS = ["a wonderful film, superb!", "awful and dull: ça ne va pas"]


def run_predict(*arguments, **options):
    return python("scripts/predict.py", *arguments, **options)


@pytest.fixture(scope="module")
def folder(finished_run):
    return finished_run / "export"


@pytest.fixture(scope="module")
def loaded(folder):
    return predict.load_export(str(folder))


@pytest.fixture(scope="module")
def scores(loaded):
    return np.array(list(predict.score_texts(loaded[1], [[text] for text in TEXTS])))


@pytest.fixture(scope="module")
def pairs(job, tiny, tmp_path_factory):
    """The folder of an export that computes a number for two texts."""
    folder = str(tmp_path_factory.mktemp("pairs"))
    encoder = classifier.build_native_encoder(
        *native.rebuild_encoder(saved_models.load_saved_model(str(tiny / "encoder"))), "float32"
    )
    model = classifier.build_classifier(encoder, 1, 0.1, seed=0)
    module, signature = saved_model.build_serving_module(
        model, builder.load_data_tokenizer(job.config), texts=2, labels=(), seq_length=32, truncation="head"
    )
    tf.saved_model.save(module, folder, signatures={"serving_default": signature})
    return folder


def test_arguments_are_printed_as_a_table(folder, scores):
    done = run_predict(f"--model={folder}", *TEXTS)
    assert done.returncode == 0
    names = ["negative", "positive"]
    expected = [f"{names[s.argmax()]}  {s.max():.4f}  {text}" for text, s in zip(TEXTS, scores, strict=True)]
    assert done.stdout.splitlines() == expected


def test_lines_of_a_file_are_printed_as_json(folder, scores, tmp_path):
    file = tmp_path / "texts.txt"
    file.write_text("\n\n".join(TEXTS) + "\n", encoding="utf-8")  # The blank line is no text.
    done = run_predict(f"--model={folder}", f"--input={file}", "--format=jsonl")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["text"] for row in rows] == TEXTS
    for row, expected in zip(rows, scores, strict=True):
        assert set(row) == {"text", "label", "scores"}
        assert row["label"] == ["negative", "positive"][expected.argmax()]
        assert row["scores"] == pytest.approx(dict(negative=expected[0], positive=expected[1]), abs=1e-5)


def test_pairs_are_read_from_standard_input(pairs):
    lines = ["one text\tanother", "another\tone text"]
    done = run_predict(f"--model={pairs}", "--format=jsonl", input="\n".join(lines))
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    expected = [
        float(s[0]) for s in predict.score_texts(predict.load_export(pairs)[1], [line.split("\t") for line in lines])
    ]
    assert [set(row) for row in rows] == [{"text", "score"}] * 2
    assert [row["text"] for row in rows] == lines
    assert [row["score"] for row in rows] == pytest.approx(expected, abs=1e-6)
    assert rows[0]["score"] != pytest.approx(rows[1]["score"], abs=1e-6)  # The order of the two texts matters.


def test_a_model_of_pairs_rejects_a_single_text(pairs):
    done = run_predict(f"--model={pairs}", "one\ttwo", "one alone")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.strip() == (
        "error: Every line or argument must be two texts separated by a tab for this model of pairs. "
        "Received: 'one alone'."
    )


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "At least one text must be given as an argument, in --input or on standard input. Received: none."),
        (["a text", "--input=file"], "--input must be left out when texts are given as arguments. Received: "),
        (["--format=xml", "a text"], "flag --format=xml: value should be one of <table|jsonl>"),
    ],
)
def test_wrong_flags_are_bad_usage(arguments, expected):
    done = run_predict("--model=folder", *arguments, input="")
    assert done.returncode == 2
    assert expected in done.stderr
    assert "Traceback" not in done.stderr


def test_all_wrong_flags_are_named_at_once():
    done = run_predict("--model=gs://", "--input=file", "a text")
    assert done.returncode == 2
    assert "--input" in done.stderr
    assert "--model" in done.stderr


def test_a_missing_input_file_is_named():
    done = run_predict("--model=folder", "--input=nowhere.txt")
    assert done.returncode == 1
    assert "nowhere.txt" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_without_a_saved_model_is_rejected(tmp_path):
    with pytest.raises(UserError, match=r"--model must name an exported SavedModel.*no saved_model\.pb"):
        predict.load_export(str(tmp_path))


def test_more_texts_than_a_batch_keep_their_order(loaded, scores):
    rows = [[TEXTS[number % 2]] for number in range(2 * predict.BATCH_SIZE + 3)]
    actual = np.array(list(predict.score_texts(loaded[1], rows)))
    assert actual == pytest.approx(np.array([scores[number % 2] for number in range(len(rows))]), abs=1e-5)


def test_inputs_and_class_names_are_read_off_the_export(loaded, pairs):
    saved, signature = predict.load_export(pairs)
    assert predict.input_names(signature) == ["text", "text_pair"]
    assert predict.class_names(saved) == []
    assert predict.input_names(loaded[1]) == ["text"]
    assert predict.class_names(loaded[0]) == ["negative", "positive"]

"""scripts/predict.py as a user calls it, and the functions that it calls."""

import csv
import json
import shutil

import numpy as np
import pyarrow.parquet
import pytest
import tensorflow as tf
from helpers import python, score_texts, start, write_reviews

from trainer.encoders import classifier, native, saved_models
from trainer.errors import UserError
from trainer.export import predict, prediction_inputs, saved_model

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
    return score_texts(loaded[1], TEXTS)


@pytest.fixture(scope="module")
def pairs(job, tiny, tmp_path_factory):
    """The folder of an export that computes a number for two texts."""
    folder = str(tmp_path_factory.mktemp("pairs"))
    encoder = classifier.build_native_encoder(
        *native.rebuild_encoder(saved_models.load_saved_model(str(tiny / "encoder"))), "float32"
    )
    model = classifier.build_classifier(encoder, 1, 0.1, seed=0)
    module, signature = saved_model.build_serving_module(
        model, job.tokenizer, texts=2, labels=(), seq_length=32, truncation="head"
    )
    tf.saved_model.save(module, folder, signatures={"serving_default": signature})
    return folder


def test_arguments_are_printed_as_a_table(folder, scores):
    done = run_predict(f"--model={folder}", *TEXTS)
    assert done.returncode == 0
    names = ["negative", "positive"]
    expected = [f"{names[s.argmax()]}  {s.max():.4f}  {text}" for text, s in zip(TEXTS, scores, strict=True)]
    assert done.stdout.splitlines() == expected


def test_every_line_has_an_output(folder, scores, tmp_path):
    file = tmp_path / "texts.txt"
    file.write_text(f"{TEXTS[0]}\n\n{TEXTS[1]}\n\u2028\x0c two\x85 ends\n", encoding="utf-8")
    done = run_predict(f"--model={folder}", f"--input={file}", "--format=jsonl", "--line_numbers")
    assert done.returncode == 0
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["text"] for row in rows] == [TEXTS[0], "", TEXTS[1], "\u2028\x0c two\x85 ends"]
    assert [row["line"] for row in rows] == [1, 2, 3, 4]
    for row, expected in zip((rows[0], rows[2]), scores, strict=True):
        assert set(row) == {"line", "text", "label", "scores"}
        assert row["label"] == ["negative", "positive"][expected.argmax()]
        assert row["scores"] == pytest.approx(dict(negative=expected[0], positive=expected[1]), abs=1e-5)
    assert (rows[1]["label"], rows[1]["scores"]) == (None, None)
    assert done.stderr == "warning: 1 of 4 texts are blank and have no prediction: line 2.\n"


def test_a_table_is_read_as_one_and_written_back(folder, tmp_path):
    source = write_reviews(tmp_path / "reviews.csv", 70)  # More than two batches.
    printed = run_predict(f"--model={folder}", f"--input={source}", "--format=jsonl")
    assert (printed.returncode, printed.stderr) == (0, "")
    rows = [json.loads(line) for line in printed.stdout.splitlines()]
    with source.open(newline="") as file:
        original = list(csv.DictReader(file))
    assert [row["text"] for row in rows] == [row["text"] for row in original]
    done = run_predict(f"--model={folder}", f"--input={source}", f"--output={tmp_path}/scored.csv")
    assert (done.returncode, done.stdout) == (0, "")
    with open(tmp_path / "scored.csv", newline="") as file:
        scored = list(csv.DictReader(file))
    for before, row, after in zip(original, rows, scored, strict=True):
        added = {f"predicted_score_{name}": pytest.approx(score, abs=1e-6) for name, score in row["scores"].items()}
        numbers = {name: float(value) if "score" in name else value for name, value in after.items()}
        assert numbers == before | {"predicted_label": row["label"]} | added


def test_a_table_of_pairs_is_scored(pairs, tmp_path):
    rows = [{"title": "one", "body": "two"}, {"title": "two", "body": "one"}, {"title": "two", "body": None}]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, rows)))
    columns = ["--text_column=title", "--text_pair_column=body"]
    output = tmp_path / "out.parquet"
    done = run_predict(f"--model={pairs}", f"--input={tmp_path}/in.jsonl", f"--output={output}", *columns)
    assert done.returncode == 0
    written = pyarrow.parquet.read_table(output).to_pylist()
    _, signature = predict.load_export(pairs)
    expected = score_texts(signature, [("one", "two"), ("two", "one"), ("two", "")])
    assert [row.pop("score") for row in written] == pytest.approx(expected[:, 0], abs=1e-6)
    assert written == rows


@pytest.mark.parametrize(
    ("text", "arguments", "code", "words"),
    [
        ("id,title\n1,a\n", [], 1, ["'text'", "--text_column"]),
        ("text\na\n", ["--text_pair_column=text"], 2, ["--text_pair_column", "one text"]),
        ("text\na\n", ["--delimiter=ab", "--encoding=klingon"], 2, ["--delimiter", "--encoding", "klingon"]),
        ("text\n", [], 1, ["at least one text"]),
    ],
)
def test_a_table_that_does_not_suit_is_refused(folder, tmp_path, text, arguments, code, words):
    (tmp_path / "in.csv").write_text(text)
    output = tmp_path / "out.csv"
    done = run_predict(f"--model={folder}", f"--input={tmp_path}/in.csv", f"--output={output}", *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert [word for word in words if word not in done.stderr] == []
    assert "Traceback" not in done.stderr
    assert not output.exists()


def test_flags_that_do_not_suit_the_model_are_refused_at_once(pairs, tmp_path):
    (tmp_path / "in.csv").write_text("text\na\n")
    done = run_predict(f"--model={pairs}", f"--input={tmp_path}/in.csv", "--top_k=2")
    assert done.returncode == 2
    assert "--text_pair_column" in done.stderr
    assert "--top_k" in done.stderr


def test_the_likeliest_classes_are_shown(folder, scores):
    done = run_predict("--top_k=9", "--format=jsonl", f"--model={folder}", TEXTS[0])
    (row,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert list(row["scores"].values()) == pytest.approx(sorted(map(float, scores[0]), reverse=True), abs=1e-5)
    assert next(iter(row["scores"])) == row["label"]


def test_a_text_may_begin_with_a_dash(folder):
    done = run_predict(f"--model={folder}", "--", "- dull, -5 stars", "--format=jsonl")
    assert [line.split("  ", 2)[2] for line in done.stdout.splitlines()] == ["- dull, -5 stars", "--format=jsonl"]
    refused = run_predict(f"--model={folder}", "- dull, -5 stars")
    assert refused.returncode == 2
    assert "write -- before it" in refused.stderr


def test_head_ends_it_quietly(folder, tmp_path):
    (tmp_path / "in.txt").write_text("some text\n" * 3000)
    code = "import os, sys; sys.argv[:] = sys.argv[1:]; import runpy; runpy.run_path(sys.argv[0], run_name='__main__')"
    process = start(code, "scripts/predict.py", f"--model={folder}", f"--input={tmp_path / 'in.txt'}")
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(timeout=100) == 0


def test_lines_of_standard_input_may_have_any_encoding(folder, tmp_path):
    (tmp_path / "in").write_bytes("één café\n".encode("latin-1"))
    with open(tmp_path / "in") as file:
        refused = run_predict(f"--model={folder}", "--format=jsonl", stdin=file)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "line 1" in refused.stderr
    assert "--encoding" in refused.stderr
    with open(tmp_path / "in") as file:
        done = run_predict(f"--model={folder}", "--format=jsonl", "--encoding=latin-1", stdin=file)
    assert json.loads(done.stdout)["text"] == "één café"


def test_pairs_are_read_from_standard_input(pairs):
    lines = ["one text\tanother", "another\tone text"]
    done = run_predict(f"--model={pairs}", "--format=jsonl", input="\n".join(lines))
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    expected = score_texts(predict.load_export(pairs)[1], [line.split("\t") for line in lines])
    assert [set(row) for row in rows] == [{"text", "score"}] * 2
    assert [row["text"] for row in rows] == lines
    assert [row["score"] for row in rows] == pytest.approx(expected[:, 0], abs=1e-6)
    assert rows[0]["score"] != pytest.approx(rows[1]["score"], abs=1e-6)  # The order of the two texts matters.


def test_a_model_of_pairs_rejects_a_single_text(pairs):
    done = run_predict(f"--model={pairs}", "one\ttwo", "one alone")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "argument 2: 'one alone', which is not two texts separated by a tab" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["a text", "--input=file"], "--input must be left out when texts are given as arguments. Received: "),
        (["--text_column=a", "a text"], "--text_column must come with a table as --input, .csv, .tsv"),
        (["--output=a.xml", "a text"], "--output must end in .csv, .tsv, .jsonl, .parquet. Received: a.xml."),
        (["--format=xml", "a text"], "--format must be one of table, jsonl. Received: xml."),
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


@pytest.mark.parametrize("name", ["nowhere.txt", "nowhere.csv", "docs"])
def test_an_input_that_is_no_file_is_named(name):
    done = run_predict("--model=folder", f"--input={name}")
    assert done.returncode == 1
    assert f"--input must name a file. Received: {name}, which " in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_without_a_saved_model_is_rejected(tmp_path):
    with pytest.raises(UserError, match=r"--model must name an exported SavedModel.*no saved_model\.pb"):
        predict.load_export(str(tmp_path))


def test_no_text_at_all_is_refused(folder):
    done = run_predict(f"--model={folder}", input="")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: standard input must hold at least one text. Received: none.\n"


def test_a_saved_model_that_takes_no_text_is_rejected(tiny):
    with pytest.raises(UserError, match=r"--model must name an exported SavedModel.*takes no text"):
        predict.load_export(str(tiny / "encoder"))


def test_operators_that_are_not_registered_are_named(folder, tmp_path):
    """As those of TensorFlow Text are for whoever does not import it."""
    shutil.copytree(folder, tmp_path / "export")
    content = (folder / "saved_model.pb").read_bytes()
    assert b"CaseFoldUTF8" in content
    (tmp_path / "export/saved_model.pb").write_bytes(content.replace(b"CaseFoldUTF8", b"CaseFoldUTF9"))
    with pytest.raises(
        UserError, match=r"operators of TensorFlow and TensorFlow Text\. Received: one with CaseFoldUTF9"
    ):
        predict.load_export(str(tmp_path / "export"))


def test_more_texts_than_a_batch_keep_their_order(loaded, scores):
    numbers = np.arange(2 * predict.BATCH_SIZE + 3) % 2
    actual = score_texts(loaded[1], [TEXTS[number] for number in numbers])
    assert actual == pytest.approx(scores[numbers], abs=1e-5)


class RecordedSignature:
    """An export's signature, with the texts of each batch that it was called with."""

    def __init__(self, signature):
        self.signature, self.batches = signature, []
        self.structured_input_signature = signature.structured_input_signature
        self.structured_outputs = signature.structured_outputs

    def __call__(self, text):
        self.batches.append([row.decode() for row in text.numpy()])
        return self.signature(text=text)


def read_source(texts, read):
    """A source of lines, None for one that cannot be read; `read` gets the number of each line that was read."""

    def lines():
        for number, text in enumerate(texts, 1):
            read.append(number)
            yield number, "damaged" if text is None else {"text": text}

    return prediction_inputs.InputSource("lines", "line", ("text",), lines, rereadable=False)


def test_a_batch_has_texts_of_similar_length_and_short_ones_are_more(loaded):
    rng = np.random.default_rng(0)
    texts = ["dull " * int(words) for words in rng.permutation([1, 600] * 150)]
    recorded = RecordedSignature(loaded[1])
    found = score_texts(recorded, texts)
    assert [len(batch) for batch in recorded.batches] == [32, 32, 32, 32, 32, 140]
    lengths = [len(text) for batch in recorded.batches for text in batch]
    assert lengths == sorted(lengths, reverse=True)
    one_by_one = {text: score_texts(loaded[1], [text])[0] for text in texts}
    assert found == pytest.approx(np.array([one_by_one[text] for text in texts]), abs=1e-5)


def test_texts_are_read_ahead_as_far_as_a_window(loaded, monkeypatch):
    monkeypatch.setattr(predict, "MAX_WINDOW_TEXTS", 64)
    read = []
    predictions = predict.predict_source(loaded[1], read_source(["a text"] * 300, read))
    ahead = [len(read) for _ in predictions]
    assert ahead == [32] * 32 + [96] * 64 + [160] * 64 + [224] * 64 + [288] * 64 + [300] * 12
    monkeypatch.setattr(predict, "MAX_WINDOW_CHARACTERS", 55)  # Of texts of 6 characters, 10.
    read.clear()
    assert [len(read) for _ in predict.predict_source(loaded[1], read_source(["a text"] * 25, read))] == (
        [10] * 10 + [20] * 10 + [25] * 5
    )


def test_what_was_read_before_a_damaged_input_is_predicted(loaded):
    predictions = predict.predict_source(loaded[1], read_source(["a text", "", "a text", None, "a text"], []))
    first = [next(predictions) for _ in range(3)]
    assert [(p.number, p.scores is None) for p in first] == [(1, False), (2, True), (3, False)]
    with pytest.raises(UserError, match="line 4: damaged"):
        next(predictions)


def test_inputs_and_class_names_are_read_off_the_export(loaded, pairs):
    saved, signature = predict.load_export(pairs)
    assert predict.input_names(signature) == ["text", "text_pair"]
    assert predict.class_names(saved) == []
    assert predict.input_names(loaded[1]) == ["text"]
    assert predict.class_names(loaded[0]) == ["negative", "positive"]

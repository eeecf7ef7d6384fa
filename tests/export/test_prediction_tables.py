"""The tables that predictions are written to: the input's columns as they were, and the predictions' next to them."""

import json

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from trainer.data import label_sets, tables
from trainer.data.tables import TableFormat
from trainer.errors import UserError
from trainer.export import prediction_inputs, prediction_tables
from trainer.export.predict import ScoredInput
from trainer.export.prediction_outputs import Shown

SHOWN = Shown(["bad", "good"], None, False)
SUFFIXES = prediction_tables.SUFFIXES


def predictions(source):
    """Scores that count up; none for a blank text."""
    for place, (number, record) in enumerate(source.read()):
        texts = prediction_inputs.texts_of(record, source)
        scores = np.array([0.75 - place / 4, 0.25 + place / 4], np.float32)
        yield ScoredInput(number, record, texts, scores if texts[0] else None)


def write(source, output, shown=SHOWN):
    summary = prediction_inputs.inspect_source(source)
    prediction_tables.write_predictions(str(output), source, summary, predictions(source), shown)


def table(path):
    return prediction_inputs.table_source(str(path), ("text",), TableFormat())


@pytest.fixture
def reviews(tmp_path):
    path = tmp_path / "in.csv"
    path.write_text('id,text\n007,"said ""no"", twice"\n8,\n9,ünïcode \u2028 too\n', encoding="utf-8")
    return table(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_written_table_is_read_back_by_the_reader_of_preparation(reviews, tmp_path, suffix):
    write(reviews, tmp_path / f"out{suffix}")
    records = [record for _, record in tables.read_records(str(tmp_path / f"out{suffix}"), TableFormat(), ("text",))]
    assert [record["id"] for record in records] == ["007", "8", "9"]
    assert [record["text"] or "" for record in records] == ['said "no", twice', "", "ünïcode \u2028 too"]
    assert [record["label"] or None for record in records] == ["bad", None, "good"]
    assert [float(record["score_good"]) if record["score_good"] else None for record in records] == [0.25, None, 0.75]
    assert list(records[0]) == ["id", "text", "label", "score_bad", "score_good"]
    assert not list(tmp_path.glob("*.partial"))


def test_a_csv_file_holds_any_text(tmp_path):
    texts = ["a\rb", "a\nb", "a\r\nb", ' "', ",", "\t", "\u2028", " a ", "ü"]
    (tmp_path / "in.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    write(table(tmp_path / "in.jsonl"), tmp_path / "out.csv", Shown([], None, False))
    records = tables.read_records(str(tmp_path / "out.csv"), TableFormat(), ("text",))
    assert [record["text"] for _, record in records] == texts
    assert (tmp_path / "out.csv").read_bytes().startswith(b"text,score\n")


def test_numbers_and_lists_of_json_keep_their_types(tmp_path):
    rows = [{"text": "a", "n": 5, "tags": ["x"], "ok": True}, {"text": "b", "x": 1.5, "n": None}]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, rows)))
    write(table(tmp_path / "in.jsonl"), tmp_path / "out.jsonl")
    written = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    added = [
        {"label": "bad", "score_bad": 0.75, "score_good": 0.25},
        {"label": "bad", "score_bad": 0.5, "score_good": 0.5},
    ]
    assert written == [row | new for row, new in zip(rows, added, strict=True)]
    write(table(tmp_path / "in.jsonl"), tmp_path / "out.parquet")
    typed = pyarrow.parquet.read_table(tmp_path / "out.parquet").drop_columns(["label", "score_bad", "score_good"])
    assert typed.to_pylist() == [
        {"text": "a", "n": 5, "tags": '["x"]', "ok": True, "x": None},
        {"text": "b", "n": None, "tags": None, "ok": None, "x": 1.5},
    ]
    write(table(tmp_path / "in.jsonl"), tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text().splitlines() == [
        "text,n,tags,ok,x,label,score_bad,score_good",
        'a,5,"[""x""]",true,,bad,0.75,0.25',
        "b,,,,1.5,bad,0.5,0.5",
    ]


def test_a_parquet_file_keeps_its_schema(tmp_path):
    values = {
        "text": ["a", None, "c"],
        "day": pyarrow.array([1, 2, None], pyarrow.date32()),
        "kind": pyarrow.array(["x", "y", "x"]).dictionary_encode(),
        "small": pyarrow.array([1, 2, 3], pyarrow.uint8()),
        "list": [[1], [], None],
    }
    original = pyarrow.table(values).replace_schema_metadata({"pandas": "{}"})
    pyarrow.parquet.write_table(original, tmp_path / "in.parquet", row_group_size=2)
    write(table(tmp_path / "in.parquet"), tmp_path / "out.parquet")
    written = pyarrow.parquet.read_table(tmp_path / "out.parquet")
    assert written.select(list(values)).equals(original)
    assert written.schema.metadata == original.schema.metadata
    assert written["label"].to_pylist() == ["bad", None, "good"]
    assert written["score_good"].type == pyarrow.float32()


def test_more_rows_than_a_row_group_are_all_written(tmp_path, monkeypatch):
    monkeypatch.setattr(prediction_tables, "ROW_GROUP_ROWS", 3)
    (tmp_path / "in.csv").write_text("text\n" + "".join(f"{i}\n" for i in range(10)))
    write(table(tmp_path / "in.csv"), tmp_path / "one.parquet")
    write(table(tmp_path / "one.parquet"), tmp_path / "two.parquet", Shown([], None, True))
    written = pyarrow.parquet.read_table(tmp_path / "two.parquet")
    assert written["text"].to_pylist() == [str(i) for i in range(10)]
    assert written["line"].to_pylist() == list(range(1, 11))


def test_lines_and_arguments_become_a_table(tmp_path):
    (tmp_path / "in.txt").write_text("one\ttwo\n\n")
    source = prediction_inputs.line_source(str(tmp_path / "in.txt"), ("text", "text_pair"), None)
    write(source, tmp_path / "out.csv", Shown([], None, False))
    assert (tmp_path / "out.csv").read_text() == "text,text_pair,score\none,two,0.75\n,,\n"


@pytest.mark.parametrize("value", ["a\ttab", "a\nline"])
def test_a_tsv_file_is_refused_what_it_cannot_hold_before_it_is_scored(tmp_path, value):
    (tmp_path / "in.jsonl").write_text('{"text": "fine"}\n' + json.dumps({"text": value}))
    source = table(tmp_path / "in.jsonl")
    with pytest.raises(UserError, match=r"tab or line end.*\.csv"):
        prediction_tables.write_predictions(
            str(tmp_path / "out.tsv"), source, prediction_inputs.inspect_source(source), iter(()), SHOWN
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl"]


def test_a_failure_leaves_the_old_table_and_no_part_of_a_new_one(reviews, tmp_path):
    def failing():
        yield from list(predictions(reviews))[:2]
        raise KeyboardInterrupt

    (tmp_path / "out.csv").write_text("old")
    with pytest.raises(KeyboardInterrupt):
        prediction_tables.write_predictions(
            str(tmp_path / "out.csv"), reviews, prediction_inputs.inspect_source(reviews), failing(), SHOWN
        )
    assert (tmp_path / "out.csv").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv", "out.csv"]


def test_a_table_may_be_replaced_by_itself_with_predictions(reviews, tmp_path):
    write(reviews, tmp_path / "in.csv")
    assert (tmp_path / "in.csv").read_text(encoding="utf-8").startswith("id,text,label,score_bad,score_good\n007,")


@pytest.mark.parametrize(
    ("path", "line_format", "flags"),
    [
        ("out.xls", None, ["--output"]),
        ("out.csv", "jsonl", ["--format"]),
        ("out.CSV", None, []),
        ("out.jsonl", "jsonl", []),
    ],
)
def test_an_output_that_cannot_be_written_is_refused(path, line_format, flags):
    assert [p.setting for p in prediction_tables.find_output_problems(path, line_format)] == flags


def test_a_class_that_a_tsv_file_cannot_hold_is_refused_first(reviews, tmp_path):
    with pytest.raises(UserError, match="tab or line end"):
        write(reviews, tmp_path / "out.tsv", Shown(["bad", "go\tod"], 1, False))
    assert not (tmp_path / "out.tsv").exists()


def test_columns_that_cannot_be_written_back_are_refused(reviews):
    prediction_inputs.check_columns(reviews, ["id", "text"])
    with pytest.raises(UserError) as caught:
        prediction_inputs.check_columns(reviews, ["note", "text", "note", "Gr\udcf6\udcdfe"])
    assert [problem.required.partition(",")[0] for problem in caught.value.problems] == [
        "have every column once",
        "have column names that can be read",
    ]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("names", [["bad", "good"], ["bad, very", "good"]])
def test_several_labels_are_written_as_preparation_reads_them(reviews, tmp_path, suffix, names):
    summary, output = prediction_inputs.inspect_source(reviews), tmp_path / f"out{suffix}"
    sets = [(0, 1), None, ()]
    found = (
        ScoredInput(
            number, record, [record["text"]], None if own is None else np.array([0.75, 0.5], np.float32), None, own
        )
        for (number, record), own in zip(reviews.read(), sets, strict=True)
    )
    shown = Shown(names, None, False, several_labels=True)
    prediction_tables.write_predictions(str(output), reviews, summary, found, shown)
    cells = [
        label_sets.read_labels(record, "labels", (), ())
        for _, record in tables.read_records(str(output), TableFormat(), ("labels",))
    ]
    read_again, _ = label_sets.divide_cells(cells, [0, 0, 0], None, "labels", ())
    assert read_again == [tuple(names), (), ()]

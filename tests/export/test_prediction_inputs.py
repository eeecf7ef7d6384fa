"""Inputs are numbered as their files count them, and none is left out or made of another one's end."""

import gzip
import json
import os
import subprocess
import sys

import pytest

from trainer.data.tables import TableFormat
from trainer.errors import UserError
from trainer.export import prediction_inputs

ONE, TWO = ("text",), ("text", "text_pair")


def write(path, data):
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return str(path)


def read_lines(path, columns=ONE, encoding=None):
    return list(prediction_inputs.line_source(path, columns, encoding).read())


def read_texts(path, encoding=None):
    return [record["text"] for _, record in read_lines(path, encoding=encoding)]


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\r"])
def test_only_a_newline_ends_a_line(tmp_path, mark):
    path = write(tmp_path / "a.txt", f"one{mark}line\nanother\r\n{mark}third")
    assert read_lines(path) == [
        (1, {"text": f"one{mark}line"}),
        (2, {"text": "another"}),
        (3, {"text": f"{mark}third"}),
    ]


def test_a_blank_line_is_an_input(tmp_path):
    assert read_texts(write(tmp_path / "a.txt", "one\n\n  \nfour\n")) == ["one", "", "  ", "four"]
    assert read_lines(write(tmp_path / "b.txt", "\na\tb\n"), TWO)[0] == (1, {"text": "", "text_pair": ""})


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_mark_tells_the_encoding_whatever_the_flag(tmp_path, encoding):
    path = write(tmp_path / "a.txt", "één\n電影\n".encode(encoding))
    assert read_texts(path) == read_texts(path, "utf-8") == ["één", "電影"]


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16-le"])
def test_an_encoding_without_a_mark_is_given(tmp_path, encoding):
    assert read_texts(write(tmp_path / "a.txt", "één\nzwölf".encode(encoding)), encoding) == ["één", "zwölf"]


def test_packed_lines_are_unpacked(tmp_path):
    packed = gzip.compress("één\ntwee\n".encode())
    assert read_texts(write(tmp_path / "a.txt.gz", packed)) == ["één", "twee"]
    source = prediction_inputs.line_source(write(tmp_path / "b.txt.gz", packed[:-9]), ONE, None)
    with pytest.raises(UserError, match=r"b\.txt\.gz must be complete"):
        prediction_inputs.inspect_source(source)


def test_lines_of_other_bytes_are_named_with_the_flag(tmp_path):
    path = write(tmp_path / "a.txt", "één\nplain\nzwölf\n".encode("latin-1"))
    with pytest.raises(UserError) as caught:
        prediction_inputs.inspect_source(prediction_inputs.line_source(path, ONE, None))
    assert str(caught.value) == (
        f"Every line of {path} must be one that can be read. Received: 2 that cannot: "
        "line 1: bytes that are not of the encoding (--encoding=cp1252?); "
        "line 3: bytes that are not of the encoding (--encoding=cp1252?). "
        "Correct them: output n is of input n, so that none is left out."
    )


def test_utf_16_without_a_mark_is_not_taken_for_utf_8(tmp_path):
    path = write(tmp_path / "a.txt", "one\ntwo".encode("utf-16-le"))
    with pytest.raises(UserError, match=r"a\.txt .*--encoding=utf-16-le"):
        read_lines(path)


def test_half_a_character_of_utf_16_is_named(tmp_path):
    path = write(tmp_path / "a.txt", b"\xff\xfe" + "one\ntwo".encode("utf-16-le") + b"\n")
    with pytest.raises(UserError, match=r"utf-16.*--encoding"):
        read_lines(path)


def test_a_line_that_is_no_pair_is_named(tmp_path):
    path = write(tmp_path / "a.txt", "one\ttwo\nalone\n\na\tb\tc\n")
    with pytest.raises(UserError, match="line 2: 'alone', which is not two texts") as caught:
        prediction_inputs.inspect_source(prediction_inputs.line_source(path, TWO, None))
    assert "line 4" in str(caught.value)


def test_the_first_inputs_that_cannot_be_read_are_named_and_all_counted(tmp_path):
    path = write(tmp_path / "a.txt", "alone\n" * 1234)
    with pytest.raises(UserError, match=r"1,234 that cannot: line 1: .*; line 5: [^;]*; \.\.\."):
        prediction_inputs.inspect_source(prediction_inputs.line_source(path, TWO, None))


def test_arguments_are_inputs():
    source = prediction_inputs.argument_source(["a\tb", "\udce9"], ONE)
    (_, first), (number, second) = source.read()
    assert first == {"text": "a\tb"}
    assert (number, type(second)) == (2, str)


def test_a_file_of_no_lines_is_refused(tmp_path):
    with pytest.raises(UserError, match="must hold at least one text"):
        prediction_inputs.inspect_source(prediction_inputs.line_source(write(tmp_path / "a.txt", ""), ONE, None))


def test_what_is_no_plain_file_is_read_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    source = prediction_inputs.line_source(str(tmp_path / "pipe"), ONE, None)
    assert prediction_inputs.inspect_source(source).rows is None  # It would wait for a writer if it read.
    with subprocess.Popen([sys.executable, "-c", f"open({str(tmp_path / 'pipe')!r}, 'w').write('a\\nb')"]):
        assert [record["text"] for _, record in source.read()] == ["a", "b"]


def test_records_of_a_table_have_the_numbers_of_their_lines(tmp_path):
    path = write(tmp_path / "a.csv", 'id,text\n1,"two\nlines"\n2,\n')
    source = prediction_inputs.table_source(path, ONE, TableFormat())
    assert list(source.read()) == [(2, {"id": "1", "text": "two\nlines"}), (4, {"id": "2", "text": ""})]
    assert prediction_inputs.inspect_source(source).rows == 2


def test_a_table_without_the_text_column_is_refused(tmp_path):
    source = prediction_inputs.table_source(write(tmp_path / "a.csv", "id,title\n1,a\n"), ONE, TableFormat())
    with pytest.raises(UserError, match=r"'text'.*'title'.*--text_column"):
        prediction_inputs.inspect_source(source)


def test_records_that_cannot_be_scored_or_written_are_named(tmp_path):
    lines = ['{"text": ["a"]}', '{"text": "b"}', '{"other": 1}', '{"text": "c", "other": "\\ud800"}', "{"]
    source = prediction_inputs.table_source(write(tmp_path / "a.jsonl", "\n".join(lines)), ONE, TableFormat())
    with pytest.raises(UserError, match=r"4 that cannot: line 1: .*list.*; line 3: .*'text'.*; line 4: .*'other'.*5"):
        prediction_inputs.inspect_source(source)


def test_the_types_of_a_tables_columns_are_found(tmp_path):
    lines = ['{"text": "a", "n": 1, "x": 1}', '{"text": null, "x": 2.5, "big": 9223372036854775808, "b": true}']
    source = prediction_inputs.table_source(write(tmp_path / "a.jsonl", "\n".join(lines)), ONE, TableFormat())
    types = prediction_inputs.inspect_source(source).types
    assert types == {"text": {str}, "n": {int}, "x": {int, float}, "big": {str}, "b": {bool}}
    assert list(types) == ["text", "n", "x", "big", "b"]


def test_a_missing_value_of_a_table_is_an_empty_text(tmp_path):
    values = [None, float("nan"), "nan", 5, True, 1.5, " x "]
    path = write(tmp_path / "a.jsonl", "\n".join(json.dumps({"text": value}) for value in values))
    source = prediction_inputs.table_source(path, ONE, TableFormat())
    texts = [prediction_inputs.texts_of(record, source)[0] for _, record in source.read()]
    assert texts == ["", "", "", "5", "true", "1.5", " x "]
    lines = prediction_inputs.argument_source(["nan"], ONE)
    assert [prediction_inputs.texts_of(record, lines) for _, record in lines.read()] == [["nan"]]

import io
import json

import pytest

from trainer.data import json_tables
from trainer.errors import UserError

ROWS = [{"text": "one, [two]\n{three}", "label": 1}, {"text": '"quoted" ] \\', "label": [1, 2]}, {"text": "好"}]


def read(text):
    columns, records = json_tables.read_json(io.StringIO(text, newline="\n"), "a.json")
    return columns, list(records)


@pytest.mark.parametrize("characters", [1, 7, 1 << 16])
@pytest.mark.parametrize("indent", [None, 2])
def test_an_array_is_read_in_parts_of_any_size(monkeypatch, characters, indent):
    monkeypatch.setattr(json_tables, "READ_CHARACTERS", characters)
    columns, records = read("\n" + json.dumps(ROWS, indent=indent, ensure_ascii=False) + "\n")
    assert columns == ["text", "label"]
    assert [record for _, record in records] == ROWS
    assert [line for line, _ in records] == ([2, 2, 2] if indent is None else [3, 7, 14])


def test_an_object_a_line_is_read_by_line():
    columns, records = read("\n" + "\r\n\n".join(map(json.dumps, ROWS)))
    assert (columns, records) == (["text", "label"], [(2, ROWS[0]), (4, ROWS[1]), (6, ROWS[2])])


def test_what_is_no_object_is_named_by_line():
    columns, records = read('7\n{\n["a", 1]\n"text"\n' + "[" * 100_000 + '\n{"text": "a"}\n')
    assert columns == ["text"]
    assert [line for line, _ in records] == [1, 2, 3, 4, 5, 6]
    assert [record for _, record in records][2:4] == ["not a JSON object"] * 2
    assert all(record.startswith("not ") for _, record in records[:5])
    assert [record for _, record in read('["text", 1, null, {"a": 2}]')[1]] == ["not a JSON object"] * 3 + [{"a": 2}]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('[{"a": 1},\n {"a": 2}', "line 2: it does not close"),
        ('[{"a": 1},\n\n {"a": 2', "line 3: Expecting"),
        ('[{"a": 1},\n {"a" 2}]', "line 2: Expecting"),
        ('[{"a": 1}]\n[{"a": 2}]', "line 1: text after its end"),
    ],
)
def test_a_cut_or_damaged_array_is_refused_by_line(text, why):
    with pytest.raises(UserError, match=why):
        read(text)


def test_an_object_over_several_lines_is_refused():
    with pytest.raises(UserError, match=r"one JSON object a line, or an array.*from line 2"):
        read('\n{\n "text": "a"\n}\n')


def test_an_empty_file_has_no_records():
    assert read("") == read("\n\n") == read("[]") == ([], [])

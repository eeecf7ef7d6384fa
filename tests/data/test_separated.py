import io

import pytest

from trainer.data import separated
from trainer.errors import UserError


def read(text, *, tsv=False, delimiter=None, escape=None, quotes=None, required=("text", "label")):
    """(columns, records as (line, values or reason))."""
    columns, records = separated.read_separated(
        io.StringIO(text, newline=""),
        "a.csv",
        default_delimiter="\t" if tsv else ",",
        delimiter=delimiter,
        escape=escape,
        quotes=quotes,
        default_quotes=not tsv,
        required=required,
    )
    return columns, [(n, tuple(r.values()) if isinstance(r, dict) else r) for n, r in records]


def usable(records):
    return [record for record in records if isinstance(record[1], tuple)]


def reasons(records):
    return {number: reason for number, reason in records if isinstance(reason, str)}


def test_line_ends_and_blank_lines_make_no_record():
    text = "text,label\r\ngood,1\r\n\r\nbad,0\r\nlast,1"
    assert read(text)[1] == [(2, ("good", "1")), (4, ("bad", "0")), (5, ("last", "1"))]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_a_delimiter_is_found_in_the_header(delimiter):
    text = 'text,label\ngood,1\n"a, b; c|d\te",0\n'.replace(",label", f"{delimiter}label").replace(
        ",1", f"{delimiter}1"
    )
    text = text.replace('",0', f'"{delimiter}0')
    for tsv in (False, True):
        columns, records = read(text, tsv=tsv, quotes=True)
        assert columns == ["text", "label"]
        assert records == [(2, ("good", "1")), (3, ("a, b; c|d\te", "0"))]
    assert read(text, required=())[0] == ["text", "label"]


def test_a_delimiter_is_not_searched_where_the_columns_are_there():
    assert read("a;b,label\nx;y,1\n", required=["a;b"]) == (["a;b", "label"], [(2, ("x;y", "1"))])
    assert read("a;b\nx;y\n", required=["a;b"]) == (["a;b"], [(2, ("x;y",))])


def test_a_delimiter_that_is_given_is_used():
    assert read("text,a:label\nx:1\n", delimiter=":", required=["label"])[1] == [(2, ("x", "1"))]


def test_a_first_line_of_excel_names_the_delimiter():
    assert read("sep=:\r\ntext:label\r\ngood:1\r\n")[1] == [(3, ("good", "1"))]
    assert read("sep=:\r\ntext:label\r\ngood:1\r\n", delimiter=":")[1] == [(3, ("good", "1"))]


def test_rows_of_another_width_are_named_by_line():
    _, records = read('text,label\ngood,1\nbad\n"two\nlines",0\na,b,c\nfine,1\n')
    assert reasons(records) == {3: "1 columns, not 2", 6: "3 columns, not 2"}
    assert usable(records) == [(2, ("good", "1")), (4, ("two\nlines", "0")), (7, ("fine", "1"))]


def test_in_a_tsv_a_quote_is_a_character_unless_asked_for():
    text = 'label\ttext\n1\t"Good" it said\n0\t"never closed\n1\tends"\n0\t"all of it"\n'
    _, records = read(text, tsv=True)
    assert [values[1] for _, values in records] == ['"Good" it said', '"never closed', 'ends"', '"all of it"']
    _, records = read('label\ttext\n1\t"two\nlines"\n', tsv=True, quotes=True)
    assert records == [(2, ("1", "two\nlines"))]
    _, records = read('label\ttext\n1\t"a\tb"\n', tsv=True)
    assert "--quotes" in reasons(records)[2]


STRAY = [
    # A quote that opens in one row and closes at the end of another one.
    ["a,1", '"b,0', "c,1", "d,0", 'e",1', "f,0"],
    ["a,1", '"b,0', 'c",1', "f,0"],
    # Rows of more columns, of which the last may be empty.
    ["a,1,", '"b,0,', "c,1,", 'd",0,x', "f,0,"],
    # One that closes in the middle of a text, and one that never closes.
    ["a,1", '"b,0', "c,1", 'd "e" f,0', "g,1"],
    ["a,1", '"b,0', "c,1", "d,1"],
    # Other rows inside are in quotes that are right.
    ["a,1", '"b,0', '"c, d",1', '"e, f",0', 'g",1', "h,0"],
    # All rows of the file.
    ['"a,1', "b,0", 'c",1'],
]


@pytest.mark.parametrize("lines", STRAY, ids=range(len(STRAY)))
def test_a_stray_quote_in_a_csv_never_swallows_rows_unsaid(lines):
    header = "text,label" + (",note" if lines[0].count(",") > 1 else "")
    _, records = read("\n".join([header, *lines, ""]))
    refused, kept = reasons(records), usable(records)
    assert len(refused) + len(kept) == len(lines)
    assert all("\n" not in values[0] for _, values in kept)
    assert refused
    assert all("--noquotes" in reason for reason in refused.values())
    opened = next(number for number, line in enumerate(lines, 2) if line.startswith('"'))
    assert min(refused) == opened
    assert f"in lines {opened} to " in refused[opened]


def test_rows_with_white_space_behind_their_commas_are_not_swallowed():
    rows = [f"{i},said {i},a, x" for i in range(10)]
    rows[5], rows[8] = '5,"he began,a, x', '8,said 8 the end",a, x'
    _, records = read("\n".join(["id,text,label,note", *rows, ""]))
    assert len(usable(records)) == 6
    assert list(reasons(records)) == [7, 8, 9, 10]


def test_one_text_that_begins_with_white_space_says_nothing_of_the_others():
    _, records = read('label,text\npos," I love it"\npos,fine\nneg,"Dear all\nYes, I did\nbye"\n')
    assert len(usable(records)) == 3


def test_a_tsv_whose_fields_csv_has_quoted_is_named(caplog):
    text = 'text\tlabel\n"he said ""hi"""\t0\n"a "" b"\t1\n'
    assert [values[0] for _, values in read(text, tsv=True)[1]] == ['"he said ""hi"""', '"a "" b"']
    assert caplog.text.count("line 2 of a.csv has a field in quotes. --quotes removes them.") == 1
    assert [values[0] for _, values in read(text, tsv=True, quotes=True)[1]] == ['he said "hi"', 'a " b']
    assert "line 3" not in caplog.text


@pytest.mark.parametrize("first", ["\n", " \r\n\n", "\nsep=,\n"])
def test_blank_lines_before_the_header_are_passed_over(first):
    columns, records = read(f"{first}text,label\ngood,1\n")
    assert columns == ["text", "label"]
    assert records == [(first.count("\n") + 2, ("good", "1"))]


PROSE = [
    '"one\ntwo",1',
    '"Dear John,\nthank you, it works,\nbye",1',
    '"Great, really.\nBut long.",1',
    '"Dear John,\nbye",1',
    '"one, two\n\nthree",0',
    '"a list:\n- one, two\n- three, four\n",0',
]


@pytest.mark.parametrize("record", PROSE)
def test_a_text_over_several_lines_is_read(record):
    _, records = read(f"text,label\n{record}\nnext,1\n")
    assert [len(values) for _, values in records] == [2, 2]
    assert records[0][1][0] == record[1:-3]
    assert records[1] == (record.count("\n") + 3, ("next", "1"))


def test_with_quotes_asked_for_texts_may_look_like_rows():
    _, records = read('text,label\n"a,1\nb,0\nc,1",1\n', quotes=True)
    assert records == [(2, ("a,1\nb,0\nc,1", "1"))]


def test_without_quotes_every_line_is_a_row():
    _, records = read('text,label\n"a,1\nb",0\n', quotes=False)
    assert records == [(2, ('"a', "1")), (3, ('b"', "0"))]


def test_escaped_quotes_are_named_and_read_if_asked_for():
    text = 'text,label\n"she said \\"no\\", and left",1\n"fine, thanks",0\n"it ends \\"so\\"",1\n'
    _, records = read(text)
    assert usable(records) == [(3, ("fine, thanks", "0"))]
    assert sorted(reasons(records)) == [2, 4]
    assert all("--escape=\\" in reason for reason in reasons(records).values())
    _, records = read(text, escape="\\")
    assert [values[0] for _, values in records] == ['she said "no", and left', "fine, thanks", 'it ends "so"']


def test_a_header_that_does_not_parse_is_refused():
    with pytest.raises(UserError, match="must begin with a header"):
        read('"text,label\ngood,1\n', quotes=True)


def test_a_long_text_is_read_completely():
    ((_, values),) = read(f"text,label\n{'good ' * 100_000},1\n")[1]
    assert len(values[0]) == 500_000

import codecs
import csv
import gzip
import io
import json
import tracemalloc
import zipfile

import openpyxl
import pyarrow
import pyarrow.parquet
import pytest

from trainer.data import tables
from trainer.data.tables import TableFormat
from trainer.errors import UsageError, UserError

DEFAULT = TableFormat()
TEXTS = ["plain", 'a "quoted" word, and a comma', "two\nlines", "tab\there", "größe 好", '"', "it's", "\\n", "1"]
ROWS = [{"label": i % 3, "text": text} for i, text in enumerate(TEXTS)]


def read(path, table_format=DEFAULT, required=("text", "label")):
    return list(tables.read_records(str(path), table_format, required))


def separated(delimiter: str) -> str:
    opened = io.StringIO(newline="")
    writer = csv.writer(opened, delimiter=delimiter)
    writer.writerow(ROWS[0])
    writer.writerows(row.values() for row in ROWS)
    return opened.getvalue()


def write_workbook(path, rows) -> None:
    workbook = openpyxl.Workbook()
    for row in rows:
        workbook.active.append(row)
    workbook.save(path)


@pytest.fixture
def every_format(tmp_path, file):
    """The paths of ROWS in every format; those of one character between columns quote the others."""
    file("a.csv", separated(","))
    file("a.TSV", separated("\t"))
    file("lines.jsonl", "".join(json.dumps(row) + "\n" for row in ROWS))
    file("array.json", json.dumps(ROWS, indent=1))
    file("one-line.jsonl", json.dumps(ROWS))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    write_workbook(tmp_path / "a.xlsx", [list(ROWS[0]), *(list(row.values()) for row in ROWS)])
    return sorted(tmp_path.iterdir())


def test_the_same_records_come_from_every_format_packed_or_not(every_format, tmp_path):
    for path in every_format:
        packed, archive = tmp_path / f"{path.name}.GZ", tmp_path / f"{path.stem}-{path.suffix[1:]}.zip"
        packed.write_bytes(gzip.compress(path.read_bytes()))
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as opened:
            opened.writestr(f"folder/{path.name}", path.read_bytes())
            opened.writestr(f"__MACOSX/{path.name}", "")
        quoted = TableFormat(quotes=True if path.suffix == ".TSV" else None)
        for one in (path, packed, archive):
            assert tables.is_table(str(one))
            assert tables.column_names(str(one), quoted) == ["label", "text"]
            records = [record for _, record in read(one, quoted)]
            assert [{**record, "label": int(record["label"])} for record in records] == ROWS


def test_a_name_says_what_is_a_table():
    assert not any(map(tables.is_table, ("a.txt", "a.gz", "a.txt.gz", "csv", "a.tar.gz", "data")))
    assert [tables.record_unit(name) for name in ("a.csv", "a.xlsx", "A.PARQUET")] == ["line", "row", "row"]


@pytest.mark.parametrize(
    "mark", [codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE]
)
def test_a_mark_decides_the_encoding(file, mark):
    encodings = {3: "utf-8", 2: "utf-16", 4: "utf-32"}
    encoding = encodings[len(mark)] + ("" if len(mark) == 3 else "-le" if mark[0] in (0xFF,) else "-be")
    expected = [(2, {"text": "größe", "label": "1"})]
    for name, content in (("a.csv", "text,label\r\ngröße,1\r\n"), ("a.jsonl", '\n{"text": "größe", "label": "1"}')):
        path = file(name, mark + content.encode(encoding))
        assert read(path) == expected
        assert read(path, TableFormat(encoding="cp1252")) == expected


def test_other_encodings_are_read_by_name(file):
    path = file("a.csv", "text,label\ncafé,1\n".encode("cp1252"))
    assert read(path, TableFormat(encoding="cp1252")) == [(2, {"text": "café", "label": "1"})]
    path = file("wide.csv", "text,label\ncafé,1\n".encode("utf-16-le"))
    assert read(path, TableFormat(encoding="utf-16-le")) == [(2, {"text": "café", "label": "1"})]
    for encoding in ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"):
        path = file("wide.csv", "text,label\ncafé,1\n".encode(encoding))
        with pytest.raises(UserError, match=f"NUL bytes between the letters. Set --encoding={encoding}."):
            read(path)
    chinese = "text,label\n" + "这部电影很好看我喜欢它,1\n" * 100
    with pytest.raises(UserError, match=r"Set --encoding=utf-16-le\."):
        read(file("chinese.csv", chinese.encode("utf-16-le")))
    assert read(file("nul.csv", "text,label\na\0 long text,1\n")) == [(2, {"text": "a\0 long text", "label": "1"})]


def test_a_header_in_another_encoding_or_in_quotes_is_named(file):
    path = file("a.csv", "téxt,label\na,1\n".encode("cp1252"))
    with pytest.raises(UserError, match="Set --encoding, such as cp1252"):
        read(path, required=["téxt", "label"])
    with pytest.raises(UserError, match="Set --quotes"):
        read(file("a.tsv", '"text"\t"label"\n"a"\t1\n'))


@pytest.mark.parametrize("kind", ["xlsx", "parquet", "gzip"])
def test_a_file_that_is_no_text_is_named_whatever_its_ending(every_format, file, tmp_path, kind):
    content = gzip.compress(b"text,label") if kind == "gzip" else (tmp_path / f"a.{kind}").read_bytes()
    with pytest.raises(UserError, match=rf"must be text\. Received: a .*{kind}"):
        read(file("packed.csv", content))


def test_a_message_about_a_long_header_is_short(file):
    header = ",".join(f"{'x' * 500}{i}" for i in range(2000))
    with pytest.raises(UserError) as caught:
        read(file("a.csv", f"{header}\n"))
    assert len(str(caught.value)) < 10_000


def test_bytes_that_do_not_decode_are_named_by_line(file):
    content = b"id,text,label\n\xe9,good,1\n2,caf\xe9,1\n3,fine,\xff\n4,fine,0\n"
    records = read(file("a.csv", content))
    assert [(number, record[:15]) for number, record in records if isinstance(record, str)] == [
        (3, "bytes in 'text'"),
        (4, "bytes in 'label"),
    ]
    assert records[0][1]["id"].encode(errors="surrogateescape") == b"\xe9"  # It is not required.
    with pytest.raises(UserError, match="--encoding"):
        read(file("odd.csv", codecs.BOM_UTF16_LE + "text,label\na,1\n".encode("utf-16-le")[:-1]))


def test_half_a_character_in_json_is_named_by_line(file):
    lines = '{"text": "good \\ud83d\\ude00", "label": 1}\n{"text": "cut \\ud83d", "label": 1}\n'
    (_, good), (number, reason) = read(file("a.jsonl", lines))
    assert good == {"text": "good 😀", "label": 1}
    assert (number, reason[:16]) == (2, "half a character")


@pytest.mark.parametrize(
    ("required", "missing"), [(["review"], ["review"]), (["stars", "review"], ["stars", "review"])]
)
def test_missing_columns_are_refused_with_the_existing_ones(file, tmp_path, required, missing):
    write_workbook(tmp_path / "a.xlsx", [["text", "label", "id"], ["a", 1, 0]])
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a"], "label": [1], "id": [0]}), tmp_path / "a.parquet")
    for path in (file("a.csv", "text,label,id\na,1,0\n"), tmp_path / "a.xlsx", tmp_path / "a.parquet"):
        with pytest.raises(UserError, match="--text_column") as caught:
            read(path, required=required)
        assert [problem.required for problem in caught.value.problems] == [f"have the column {n!r}" for n in missing]
        assert {problem.received for problem in caught.value.problems} == {"a table with 'text', 'label', 'id'"}


def test_a_column_that_occurs_twice_is_refused_if_it_is_read(file):
    path = file("a.csv", "text,label,text\na,1,b\n")
    with pytest.raises(UserError, match=r"must have the column 'text' once\. Received: 2"):
        read(path)
    assert read(path, required=["label"])


def test_rows_of_a_workbook_keep_their_numbers_and_kinds(tmp_path):
    write_workbook(
        tmp_path / "a.xlsx", [["text", "label"], ["good", 1], [], ["half", 0.5], [None, True], ["wide", 1, 2]]
    )
    assert read(tmp_path / "a.xlsx") == [
        (2, {"text": "good", "label": 1}),
        (4, {"text": "half", "label": 0.5}),
        (5, {"text": None, "label": True}),
        (6, "3 columns, not 2"),
    ]


def test_a_workbook_may_begin_with_an_empty_row_and_has_its_characters(tmp_path):
    write_workbook(tmp_path / "a.xlsx", [[None], ["text", "label"], ["a_x000D_b", 1]])
    assert read(tmp_path / "a.xlsx") == [(3, {"text": "a\rb", "label": 1})]


def test_of_several_sheets_the_first_is_read_and_named(tmp_path, caplog):
    workbook = openpyxl.Workbook()
    workbook.active.title = "reviews"
    workbook.active.append(["text", "label"])
    workbook.create_sheet("notes")
    workbook.save(tmp_path / "a.xlsx")
    assert tables.column_names(str(tmp_path / "a.xlsx"), DEFAULT) == ["text", "label"]
    assert "'reviews'" in caplog.text


def test_values_of_parquet_keep_their_kinds(tmp_path):
    rows = [{"text": None, "label": [1, 2]}, {"text": "a", "label": []}] * 2000
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") == list(enumerate(rows, 1))


def test_files_that_are_no_table_are_refused(file, tmp_path):
    for path, received in (
        (file("a.txt", "text"), "a.txt"),
        (file("a.gz", gzip.compress(b"text,label\n")), "a.gz"),
        (tmp_path / "no.csv", "which does not exist"),
        (tmp_path, "which is a folder"),
    ):
        with pytest.raises(UserError, match=r"The source must") as caught:
            read(path)
        assert caught.value.problems[0].received.endswith(received)


def test_damaged_files_are_refused(every_format, file):
    long = "text,label\n" + "good,1\n" * 5000
    for path in (file("cut.csv.gz", gzip.compress(long.encode())[:-20]), file("no.csv.gz", "text"), file("no.zip", "")):
        with pytest.raises(UserError, match=r"must be complete\. Received: .*damaged or truncated"):
            read(path)
    for path in every_format:
        if path.suffix in (".xlsx", ".parquet"):
            data = path.read_bytes()
            for content in (data[: len(data) // 2], b"", b"text,label\n"):
                with pytest.raises(UserError, match="damaged or truncated"):
                    read(file(path.name, content))


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_damaged_archive_of_any_compression_is_refused(tmp_path, compression):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("a.csv", "text,label\n" + "".join(f"good {i},1\n" for i in range(5000)))
    data = bytearray(path.read_bytes())
    data[60:160] = bytes(100)
    path.write_bytes(data)
    with pytest.raises(UserError, match="damaged or truncated"):
        read(path)


def test_a_damaged_sheet_is_refused(every_format, tmp_path):
    (path,) = (path for path in every_format if path.suffix == ".xlsx")
    damaged = tmp_path / "damaged.xlsx"
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(damaged, "w") as copy:
        for name in archive.namelist():
            data = archive.read(name)
            copy.writestr(name, data[: len(data) // 2] if name.startswith("xl/worksheets/") else data)
    with pytest.raises(UserError, match="damaged or truncated"):
        read(damaged)


def test_a_date_that_python_lacks_is_refused(tmp_path):
    far = pyarrow.array([400_000_000_000], pyarrow.timestamp("s"))
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a"], "label": ["b"], "when": far}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match="damaged or truncated"):
        read(tmp_path / "a.parquet")


def test_a_unit_is_that_of_the_file_not_of_its_folder():
    assert tables.record_unit("x.parquet/a.csv") == "line"
    assert [tables.record_unit(path) for path in ("a.PARQUET", "a.xlsx.gz")] == ["row", "row"]


def test_an_archive_of_two_files_is_refused_by_their_names(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("train.csv", "text,label\n")
        archive.writestr("test.csv", "text,label\n")
    with pytest.raises(UserError, match=r"must hold one file\. Received: train\.csv, test\.csv"):
        read(tmp_path / "a.zip")


def test_every_wrong_format_is_refused(file):
    wrong = TableFormat(encoding="windows", delimiter="||", escape='"')
    assert [p.setting for p in tables.find_format_problems(wrong)] == ["--delimiter", "--escape", "--encoding"]
    assert [p.setting for p in tables.find_format_problems(TableFormat("a\0"))] == ["--encoding"]
    assert tables.find_format_problems(TableFormat("cp1252", "\t", "\\", False)) == []
    with pytest.raises(UsageError, match="--encoding"):
        read(file("a.csv", "text,label\n"), wrong)


def test_a_long_file_is_not_read_into_memory(tmp_path):
    rows = [{"text": f"{i} " + "good " * 40, "label": "1"} for i in range(20_000)]
    with (tmp_path / "a.csv").open("w") as opened:
        opened.write("text,label\n" + "".join(f"{row['text']},1\n" for row in rows))
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "array.json").write_text(json.dumps(rows))
    del rows
    for name in ("a.csv", "a.jsonl", "array.json"):
        tracemalloc.start()
        assert sum(1 for _ in tables.read_records(str(tmp_path / name), DEFAULT, ["text"])) == 20_000
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < (tmp_path / name).stat().st_size / 3

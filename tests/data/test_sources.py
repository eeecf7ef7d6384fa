import contextlib
import csv
import hashlib
import io
import json
import random
import tarfile

import pytest

from trainer.data import downloads, sources
from trainer.data.downloads import Package
from trainer.data.sources import ColumnNames, Row
from trainer.errors import UserError

COLUMNS = ColumnNames("text", None, "label")
PAIRS = ColumnNames("question", "answer", "same")


def read(path, columns=COLUMNS, **options) -> tuple[list[Row], list[str]]:
    """(rows, bad rows)."""
    bad_rows = []
    return list(sources.read_table(str(path), columns, "", bad_rows, **options)), bad_rows


@pytest.fixture
def file(tmp_path):
    """A function (name, content) -> the path of a file with it."""

    def write(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
        return path

    return write


def add(archive: tarfile.TarFile, name: str, data: bytes, **kind) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    for key, value in kind.items():
        setattr(member, key, value)
    archive.addfile(member, io.BytesIO(data))


# --- Movie snippets -------------------------------------------------------------------------------


def test_snippets_are_read_out_of_the_archive_in_the_package(tmp_path, monkeypatch):
    inner, sdist = io.BytesIO(), tmp_path / "snippets-1.0.tar.gz"
    with tarfile.open(fileobj=inner, mode="w:gz") as archive:
        lines = "1\t2.5\tA joy.\n2\t-0.1\tDull, \tand long.\n3\t0.0\tIt is a film.\n"
        add(archive, "hutto/movieReviewSnippets_GroundTruth.txt", lines.encode())
    with tarfile.open(sdist, "w:gz") as archive:
        add(archive, "snippets-1.0/setup.py", b"import setuptools\nsetuptools.setup(name='snippets', version='1.0')\n")
        add(archive, "snippets-1.0/additional/hutto_ICWSM_2014.tar.gz", inner.getvalue())
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    package = Package("snippets", "1.0", hashlib.sha256(sdist.read_bytes()).hexdigest(), wheel=False)
    monkeypatch.setattr(downloads, "VADER", package)

    texts = ["A joy.", "Dull, \tand long.", "It is a film."]
    rows = list(sources.read_movie_snippets(ratings=False))
    assert rows == [
        Row(i, t, None, label, "")
        for i, (t, label) in enumerate(zip(texts, ["positive", "negative", "negative"], strict=True))
    ]
    assert [float(row.label) for row in sources.read_movie_snippets(ratings=True)] == [2.5, -0.1, 0.0]


# --- IMDB -----------------------------------------------------------------------------------------

REVIEWS = {
    "aclImdb/README": b"50,000 reviews",
    "aclImdb/train/urls_pos.txt": b"http://...",
    "aclImdb/train/unsup/0_0.txt": b"unlabelled",
    "aclImdb/train/pos/0_9.txt": "Très bien.<br />".encode(),
    "aclImdb/train/neg/0_1.txt": b"Dull.",
    "aclImdb/train/neg/1_2.txt": b"Long.",
    "aclImdb/test/pos/0_10.txt": b"A joy.",
    "aclImdb/test/neg/0_3.txt": b"No.",
}


@pytest.fixture
def archive(tmp_path):
    """A function members -> the path of a .tar.gz with them."""

    def write(members, name="acl.tar.gz", mode="w:gz"):
        with tarfile.open(tmp_path / name, mode) as archive:
            for member, data in members.items():
                add(archive, member, data)
        return tmp_path / name

    return write


def imdb(path) -> list[Row]:
    bad_rows = []
    rows = list(sources.read_imdb(str(path), bad_rows))
    assert not bad_rows
    return rows


def test_the_imdb_folder_is_the_archive(archive, tmp_path):
    packed, plain = archive(REVIEWS), archive(REVIEWS, "acl.tar", "w")
    with tarfile.open(packed) as opened:
        opened.extractall(tmp_path / "complete", filter="data")
    rows = imdb(packed)
    assert Row("train/pos/0_9.txt", "Très bien.<br />", None, "positive", "train") in rows
    assert Row("test/neg/0_3.txt", "No.", None, "negative", "test") in rows
    assert len(rows) == len({row.id for row in rows}) == 5

    def ordered(rows):
        return sorted(rows, key=lambda row: row.id)

    for source in (plain, tmp_path / "complete", tmp_path / "complete" / "aclImdb"):
        assert ordered(imdb(source)) == ordered(rows)


@pytest.mark.parametrize("name", ["../train/pos/0_9.txt", "aclImdb/../../train/pos/0_9.txt", "/train/pos/0_9.txt"])
def test_a_member_that_leaves_its_folder_is_refused(archive, name):
    path = archive({**REVIEWS, name: b"out"})
    with pytest.raises(UserError, match=r"must hold plain files inside its folder. Received: the member") as caught:
        imdb(path)
    assert f"{name!r}. It was not read." in str(caught.value)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_a_link_and_a_device_are_refused(tmp_path, kind):
    with tarfile.open(tmp_path / "acl.tar.gz", "w:gz") as archive:
        add(archive, "aclImdb/train/pos/0_9.txt", b"", type=kind, linkname="secret.txt")
    with pytest.raises(UserError, match=r"must hold plain files inside its folder"):
        imdb(tmp_path / "acl.tar.gz")


def test_a_member_that_is_too_large_is_refused(tmp_path):
    bomb = tmp_path / "acl.tar.gz"
    with tarfile.open(bomb, "w:gz") as archive:
        add(archive, "aclImdb/train/pos/0_9.txt", bytes(sources.MAX_MEMBER_BYTES + 1))
    assert bomb.stat().st_size < sources.MAX_MEMBER_BYTES / 900
    with pytest.raises(UserError, match=r"at most 67,108,864 bytes. Received: the member 'aclImdb/train/pos/0_9.txt'"):
        imdb(bomb)


NOISE = "".join(random.Random(0).choices("abcdefghijklmnopqrstuvwxyz .,", k=5000)).encode()


@pytest.mark.parametrize("mode", ["w:gz", "w"])
def test_an_archive_truncated_anywhere_is_refused(archive, mode):
    path = archive({**REVIEWS, "aclImdb/train/pos/1_9.txt": NOISE, "aclImdb/z": b"z"}, mode=mode)
    complete = path.read_bytes()
    with tarfile.open(path) as opened:
        last = opened.getmembers()[-1]
    end = len(complete) if mode == "w:gz" else last.offset_data + last.size
    accepted = {}
    for size in range(0, end, end // 60):
        path.write_bytes(complete[:size])
        with contextlib.suppress(UserError):
            accepted[size] = imdb(path)
    assert list(accepted) == []
    path.write_bytes(complete[: end - 300])
    with pytest.raises(UserError, match=r"--source must be a complete tar archive\. Received: .*Download it again"):
        imdb(path)


def test_a_damaged_archive_is_refused(archive):
    path = archive({f"aclImdb/train/pos/{i}_9.txt": hashlib.sha256(bytes([i])).digest() for i in range(99)})
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"damaged or truncated"):
        list(sources.read_imdb(str(path), []))


def test_a_source_without_reviews_is_refused(archive, file, tmp_path):
    (tmp_path / "empty").mkdir()
    for path in (archive({"other/readme.txt": b"x"}), tmp_path / "empty"):
        with pytest.raises(UserError, match=r"--source must hold reviews as {train,test}/{pos,neg}/\*.txt") as caught:
            imdb(path)
        assert str(path) in caught.value.problems[0].received
    with pytest.raises(UserError, match=r"page\.html, which is damaged"):
        imdb(file("page.html", "<html>not an archive</html>"))
    with pytest.raises(UserError, match=r"--source must name the IMDB archive or its folder\. Received: .*/no,"):
        imdb(tmp_path / "no")


def test_a_review_that_is_not_utf_8_is_named_with_its_byte(archive):
    bad_rows = []
    rows = list(sources.read_imdb(str(archive({**REVIEWS, "aclImdb/train/pos/1_9.txt": b"caf\xe9"})), bad_rows))
    assert len(rows) == 5
    assert bad_rows == ["aclImdb/train/pos/1_9.txt: not UTF-8 at byte 3"]


# --- Tables ---------------------------------------------------------------------------------------

TEXTS = [
    "plain",
    'a "quoted" word, and a comma',
    "two\nlines",
    "tab\there",
    " spaces ",
    "größe 好",
    '"',
    "it's",
    "\\n",
    "1",
]


@pytest.mark.parametrize("pair", [False, True])
def test_the_same_rows_come_from_every_format(tmp_path, pair):
    header = ["label", "text", *(["other"] if pair else [])]
    rows = [[str(i % 3), text, *([TEXTS[-i]] if pair else [])] for i, text in enumerate(TEXTS)]
    for name, delimiter in (("a.csv", ","), ("a.tsv", "\t")):
        with (tmp_path / name).open("w", encoding="utf-8", newline="") as opened:
            csv.writer(opened, delimiter=delimiter).writerows([header, *rows])
    lines = [json.dumps({"label": int(row[0]), **dict(zip(header[1:], row[1:], strict=True))}) for row in rows]
    (tmp_path / "a.jsonl").write_text("\n".join(lines) + "\n")
    columns = ColumnNames("text", "other" if pair else None, "label")
    expected = [Row(i, row[1], row[2] if pair else None, row[0], "") for i, row in enumerate(rows)]
    for name in ("a.csv", "a.tsv", "a.jsonl"):
        assert read(tmp_path / name, columns) == (expected, [])


def test_a_byte_order_mark_line_ends_and_blank_lines_are_ignored(file):
    path = file("a.csv", b"\xef\xbb\xbftext,label\r\ngood,1\r\n\r\nbad,0\r\n")
    assert read(path) == ([Row(0, "good", None, "1", ""), Row(1, "bad", None, "0", "")], [])


def test_a_last_line_without_line_end_counts(file):
    assert [row.text for row in read(file("a.csv", "text,label\ngood,1\nbad,0"))[0]] == ["good", "bad"]


def test_the_split_is_that_of_the_file(file):
    (row,) = sources.read_table(str(file("a.csv", "text,label\na,1\n")), COLUMNS, "test", [])
    assert row.split == "test"


def test_without_quotes_a_quote_is_a_character(file):
    path = file("a.tsv", 'label\ttext\n1\t"Good" it said\n0\t"never closed\n1\tfine\n')
    rows, bad = read(path, quotes=False)
    assert [row.text for row in rows] == ['"Good" it said', '"never closed', "fine"]
    assert not bad


def test_a_quote_that_is_never_closed_is_a_bad_row(file):
    rows, bad = read(file("a.tsv", 'label\ttext\n1\tgood\n0\t"never closed\n1\tfine\n0\tdull\n'))
    assert [row.text for row in rows][:1] == ["good"]
    assert bad
    assert bad[0].startswith("line 3: ")


def test_rows_of_another_width_are_named_by_line(file):
    rows, bad = read(file("a.csv", 'text,label\ngood,1\nbad\n"two\nlines",0\na,b,c\nfine,1\n'))
    assert bad == ["line 3: 1 columns, not 2", "line 6: 3 columns, not 2"]
    assert [(row.id, row.text) for row in rows] == [(0, "good"), (2, "two\nlines"), (4, "fine")]


def test_bytes_that_are_not_utf_8_are_named_by_line(file):
    rows, bad = read(file("a.csv", b"text,label\ngood,1\ncaf\xe9,1\nfine,\xff\nfine,0\n"))
    assert bad == ["line 3: bytes that are not UTF-8", "line 4: bytes that are not UTF-8"]
    assert [row.id for row in rows] == [0, 3]


def test_half_a_character_in_json_is_named_by_line(file):
    rows, bad = read(
        file("a.jsonl", '{"text": "good \\ud83d\\ude00", "label": 1}\n{"text": "cut \\ud83d", "label": 1}\n')
    )
    assert [row.text for row in rows] == ["good 😀"]
    assert [row.split(":")[0] for row in bad] == ["line 2"]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("text,label\n ,1\n", "line 2: an empty text"),
        ('text,label\n"",1\n', "line 2: an empty text"),
        ("text,label\ngood,\n", "line 2: an empty label"),
        ("text,label\ngood,  \n", "line 2: an empty label"),
    ],
)
def test_empty_texts_and_labels_are_named_by_line(file, content, why):
    assert read(file("a.csv", content)) == ([], [why])


def test_an_empty_second_text_is_named_by_line(file):
    path = file("a.csv", "question,answer,same\na,b,1\na,,0\n")
    assert read(path, PAIRS) == ([Row(0, "a", "b", "1", "")], ["line 3: an empty text"])


def test_json_lines_that_cannot_be_used_are_named_by_line(file):
    lines = [
        '{"text": "a", "label": 1}',
        "{",
        '["a", 1]',
        '{"text": "a"}',
        '{"text": null, "label": 1}',
        "",
        '{"text": "b", "label": true}',
    ]
    rows, bad = read(file("a.jsonl", "\n".join(lines)))
    assert rows == [Row(0, "a", None, "1", ""), Row(5, "b", None, "true", "")]
    assert bad[0].startswith("line 2: not JSON (")
    assert bad[1:] == [
        "line 3: not a JSON object",
        "line 4: no 'label' (it has text)",
        "line 5: no 'text' (it has label)",
    ]


def test_bad_rows_are_counted_and_the_first_are_shown():
    assert sources.find_bad_row_problems("a.csv", []) == []
    (problem,) = sources.find_bad_row_problems("a.csv", [f"line {line}: an empty text" for line in range(2, 9)])
    assert problem.setting == "Every row of a.csv"
    assert problem.received.startswith("7 rows that do not: line 2: an empty text; line 3: ")
    assert "line 6" in problem.received
    assert "line 7" not in problem.received
    assert "--bad_rows=skip" in problem.advice


@pytest.mark.parametrize(
    ("columns", "missing"),
    [
        (ColumnNames("review", None, "label"), ["review"]),
        (ColumnNames("text", None, "stars"), ["stars"]),
        (PAIRS, ["question", "answer", "same"]),
    ],
)
def test_missing_columns_are_refused_with_the_existing_ones(file, columns, missing):
    with pytest.raises(UserError, match="--text_column") as caught:
        read(file("a.csv", "text,label,id\na,1,0\n"), columns)
    assert [problem.required for problem in caught.value.problems] == [f"have the column {n!r}" for n in missing]
    assert {problem.received for problem in caught.value.problems} == {"a table with 'text', 'label', 'id'"}


def test_a_column_that_occurs_twice_is_refused(file):
    with pytest.raises(UserError, match=r"must have the column 'text' once\. Received: 2"):
        read(file("a.csv", "text,label,text\na,1,b\n"))


def test_files_without_a_table_are_refused(file, tmp_path):
    for name, content in (("a.csv", "text,label\n"), ("a.jsonl", "\n\n")):
        with pytest.raises(UserError, match=rf"{name} must hold rows\. Received: none"):
            read(file(name, content))
    with pytest.raises(UserError, match=r"must have the column 'text'\. Received: a table with no columns"):
        read(file("empty.csv", ""))
    for path, received in (
        (file("a.xlsx", "PK"), "a.xlsx"),
        (tmp_path / "no.csv", "which does not exist"),
        (tmp_path, "which is a folder"),
    ):
        with pytest.raises(UserError, match=r"The source must") as caught:
            read(path)
        assert caught.value.problems[0].received.endswith(received)


def test_a_long_text_is_read_completely(file):
    (row,), _ = read(file("a.csv", f"text,label\n{'good ' * 100_000},1\n"))
    assert len(row.text) == 500_000

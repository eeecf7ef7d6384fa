import contextlib
import csv
import hashlib
import io
import itertools
import json
import random
import tarfile

import pytest

from trainer.data import downloads, sources
from trainer.data.downloads import Package
from trainer.data.sources import BadRows, ColumnNames, Row

COLUMNS = ColumnNames("text", None, "label")
PAIRS = ColumnNames("question", "answer", "same")


def read(path, columns=COLUMNS, **options) -> tuple[list[Row], list[str]]:
    """(rows, what was found bad)."""
    bad = BadRows()
    return list(sources.read_table(str(path), columns, "", bad, **options)), bad.found


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
    bad = BadRows()
    rows = list(sources.read_imdb(str(path), bad))
    assert not bad.found
    return rows


def test_the_imdb_folder_is_the_archive(archive, tmp_path):
    packed, plain = archive(REVIEWS), archive(REVIEWS, "acl.tar", "w")
    with tarfile.open(packed) as opened:
        opened.extractall(tmp_path / "whole", filter="data")
    rows = imdb(packed)
    assert Row("train/pos/0_9.txt", "Très bien.<br />", None, "positive", "train") in rows
    assert Row("test/neg/0_3.txt", "No.", None, "negative", "test") in rows
    assert len(rows) == len({row.id for row in rows}) == 5

    def ordered(rows):
        return sorted(rows, key=lambda row: row.id)

    for source in (plain, tmp_path / "whole", tmp_path / "whole" / "aclImdb"):
        assert ordered(imdb(source)) == ordered(rows)


@pytest.mark.parametrize("name", ["../train/pos/0_9.txt", "aclImdb/../../train/pos/0_9.txt", "/train/pos/0_9.txt"])
def test_a_member_that_leaves_its_folder_is_refused(archive, name):
    path = archive({**REVIEWS, name: b"out"})
    with pytest.raises(ValueError, match=r"must hold plain files inside its folder. Received: the member") as caught:
        imdb(path)
    assert f"{name!r}. It was not read." in str(caught.value)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_a_link_and_a_device_are_refused(tmp_path, kind):
    with tarfile.open(tmp_path / "acl.tar.gz", "w:gz") as archive:
        add(archive, "aclImdb/train/pos/0_9.txt", b"", type=kind, linkname="secret.txt")
    with pytest.raises(ValueError, match=r"must hold plain files inside its folder"):
        imdb(tmp_path / "acl.tar.gz")


def test_a_member_that_would_fill_the_memory_is_refused(tmp_path):
    bomb = tmp_path / "acl.tar.gz"
    with tarfile.open(bomb, "w:gz") as archive:
        add(archive, "aclImdb/train/pos/0_9.txt", bytes(sources.MEMBER_BYTES + 1))
    assert bomb.stat().st_size < sources.MEMBER_BYTES / 900
    with pytest.raises(ValueError, match=r"at most 67,108,864 bytes. Received: the member 'aclImdb/train/pos/0_9.txt'"):
        imdb(bomb)


NOISE = "".join(random.Random(0).choices("abcdefghijklmnopqrstuvwxyz .,", k=5000)).encode()


@pytest.mark.parametrize("mode", ["w:gz", "w"])
def test_a_truncated_archive_is_refused_wherever_it_was_cut(archive, mode):
    path = archive({**REVIEWS, "aclImdb/train/pos/1_9.txt": NOISE, "aclImdb/z": b"z"}, mode=mode)
    whole = path.read_bytes()
    with tarfile.open(path) as opened:
        last = opened.getmembers()[-1]
    end = len(whole) if mode == "w:gz" else last.offset_data + last.size
    taken = {}
    for size in range(0, end, end // 60):
        path.write_bytes(whole[:size])
        with contextlib.suppress(ValueError):
            taken[size] = imdb(path)
    assert list(taken) == []
    path.write_bytes(whole[: end - 300])
    with pytest.raises(
        ValueError, match=r"--source must be a whole tar archive. Received: .*damaged or cut short"
    ) as caught:
        imdb(path)
    assert "Download it again." in str(caught.value)


def test_a_damaged_archive_is_refused(archive):
    path = archive({f"aclImdb/train/pos/{i}_9.txt": hashlib.sha256(bytes([i])).digest() for i in range(99)})
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"damaged or cut short"):
        list(sources.read_imdb(str(path), BadRows()))


def test_what_holds_no_reviews_is_refused(archive, file, tmp_path):
    required = r"--source must hold reviews as \{train,test\}/\{pos,neg\}/\*.txt. Received: .*, which has none"
    with pytest.raises(ValueError, match=required):
        imdb(archive({"other/readme.txt": b"x"}))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=required):
        imdb(tmp_path / "empty")
    with pytest.raises(ValueError, match=r"--source must be a whole tar archive"):
        imdb(file("page.html", "<html>not an archive</html>"))
    with pytest.raises(
        ValueError, match=r"--source must name the IMDB archive or its folder. Received: .*is not there"
    ):
        imdb(tmp_path / "no")


def test_a_review_that_is_not_utf_8_is_named_with_its_byte(archive):
    bad = BadRows()
    rows = list(sources.read_imdb(str(archive({**REVIEWS, "aclImdb/train/pos/1_9.txt": b"caf\xe9"})), bad))
    assert len(rows) == 5
    assert bad.found == ["aclImdb/train/pos/1_9.txt: not UTF-8 at byte 3"]


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


def test_a_byte_order_mark_windows_line_ends_and_blank_lines_are_no_content(file):
    path = file("a.csv", b"\xef\xbb\xbftext,label\r\ngood,1\r\n\r\nbad,0\r\n")
    assert read(path) == ([Row(0, "good", None, "1", ""), Row(1, "bad", None, "0", "")], [])


def test_a_last_line_without_line_end_counts(file):
    assert [row.text for row in read(file("a.csv", "text,label\ngood,1\nbad,0"))[0]] == ["good", "bad"]


def test_the_split_is_that_of_the_file(file):
    (row,) = sources.read_table(str(file("a.csv", "text,label\na,1\n")), COLUMNS, "test", BadRows())
    assert row.split == "test"


def test_quotes_can_be_taken_as_they_stand(file):
    path = file("a.tsv", 'label\ttext\n1\t"Good" it said\n0\t"never closed\n1\tfine\n')
    rows, bad = read(path, quotes=False)
    assert [row.text for row in rows] == ['"Good" it said', '"never closed', "fine"]
    assert not bad


def test_a_quote_that_is_never_closed_swallows_no_rows_in_silence(file):
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
    assert [found.split(":")[0] for found in bad] == ["line 2"]


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


def test_bad_rows_are_counted_and_the_first_of_them_shown():
    bad = BadRows()
    bad.refuse("a.csv")
    for line in range(2, 9):
        bad.add(f"line {line}", "an empty text")
    with pytest.raises(
        ValueError, match=r"Every row of a.csv must have the columns of its header, a text and a label"
    ) as caught:
        bad.refuse("a.csv")
    message = str(caught.value)
    assert "Received: 7 that do not: line 2: an empty text; line 3: " in message
    assert "line 6" in message
    assert "line 7" not in message
    assert message.endswith("; .... Mend them, or leave them out with --bad_rows=skip.")


@pytest.mark.parametrize("columns", [ColumnNames("review", None, "label"), ColumnNames("text", None, "stars"), PAIRS])
def test_a_missing_column_is_answered_with_those_that_are_there(file, columns):
    absent = next(n for n in (columns.text, columns.text_pair, columns.label) if n not in (None, "text", "label"))
    with pytest.raises(ValueError, match=r"must have the column") as caught:
        read(file("a.csv", "text,label,id\na,1,0\n"), columns)
    assert f"must have the column {absent!r}. Received: one with 'text', 'label', 'id'." in str(caught.value)
    assert "Set --text_column, --text_pair_column and --label_column." in str(caught.value)


def test_files_that_hold_no_table_are_refused(file, tmp_path):
    for name, content in (("a.csv", "text,label\n"), ("a.jsonl", "\n\n")):
        with pytest.raises(ValueError, match=f"{name} must hold rows. Received: none"):
            read(file(name, content))
    with pytest.raises(ValueError, match=r"must have the column 'text'. Received: one with no columns"):
        read(file("empty.csv", ""))
    with pytest.raises(ValueError, match=r"The source must end in .csv, .tsv or .jsonl. Received: .*a.xlsx"):
        read(file("a.xlsx", "PK"))
    with pytest.raises(ValueError, match=r"The source must be a file. Received: .*, which is not there"):
        read(tmp_path / "no.csv")
    with pytest.raises(ValueError, match=r"The source must be a file. Received: .*, which is a folder"):
        read(tmp_path)


def test_a_long_text_is_read_whole(file):
    (row,), _ = read(file("a.csv", f"text,label\n{'good ' * 100_000},1\n"))
    assert len(row.text) == 500_000


# --- Labels ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "label_type", "kind"),
    [
        (["0", "1"], "auto", "classification"),
        (["1.0", "2.0", "-3"], "auto", "classification"),
        ([str(i) for i in range(20)], "auto", "classification"),
        ([str(i) for i in range(21)], "auto", "regression"),
        ([str(i) for i in range(20)] * 50, "auto", "classification"),
        (["0", "0.5"], "auto", "regression"),
        (["1e-3", "2"], "auto", "regression"),
        (["0.5", "good"], "auto", "classification"),
        ([f"{i}a" for i in range(50)], "auto", "classification"),
        (["0.5", "nan"], "auto", "classification"),
        (["0.5", "0.7"], "class", "classification"),
        (["0", "1"], "number", "regression"),
    ],
)
def test_the_kind_of_label_is_as_asked_or_as_the_values_tell(labels, label_type, kind):
    assert sources.label_kind(labels, label_type) == kind


def test_numbers_asked_for_must_be_finite_numbers():
    required = "--label_type=number needs labels that are finite numbers. Received: "
    with pytest.raises(ValueError, match=f"{required}'good', 'inf', 'nan'"):
        sources.label_kind(["1", "inf", "nan", "good"], "number")


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["10", "9", "-1", "10"], ("-1", "9", "10")),
        (["positive", "negative"], ("negative", "positive")),
        (["b", "10", "9"], ("10", "9", "b")),
    ],
)
def test_class_names_are_in_the_order_of_numbers_or_of_the_alphabet(labels, names):
    for order in itertools.permutations(labels):
        assert sources.class_names(order) == names

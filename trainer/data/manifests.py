"""The manifest of a prepared data set, dataset.json: what its shards hold and how they were made."""

import dataclasses
import hashlib
import json
import re

from trainer.storage import fs

MANIFEST_FILE = "dataset.json"

PREPROCESS_FOLDER = "preprocess"  # the encoder's preprocessor, copied in, so that a data set is whole in itself

FORMAT_VERSION = 1

# A longer document keeps as many tokens at each end: whatever is cut from it later, by any
# truncation to at most half of this, is what would have been cut from the whole.
MAX_TOKENS = 8192


@dataclasses.dataclass(frozen=True)
class Shard:
    name: str
    examples: int
    bytes: int
    crc32c: int  # of the whole file


@dataclasses.dataclass(frozen=True)
class Split:
    examples: int
    shards: tuple[Shard, ...]
    label_counts: dict[str, int]  # class name -> examples; empty for regression
    length_percentiles: dict[str, int]  # "50" -> tokens of the text or pair, without special tokens
    length_histogram: dict[str, int]  # "64" -> examples of 32 < tokens <= 64; the bounds are powers of 2


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    sha256: str
    size: int
    lower_case: bool
    start: int
    end: int
    padding: int


@dataclasses.dataclass(frozen=True)
class Manifest:
    task: str  # the name that prepare_data was given: imdb, movie_snippets, csv
    kind: str  # "classification" or "regression"
    texts: int  # 1, or 2 for pairs
    labels: tuple[str, ...]  # class names by index; empty for regression
    encoder: str  # the name or path of the encoder whose tokenizer was used
    vocabulary: Vocabulary
    seed: int  # of the split
    splits: dict[str, Split]
    removed: dict[str, int]  # rows that were left out, by reason
    max_tokens: int = MAX_TOKENS
    format: int = FORMAT_VERSION

    @property
    def classes(self) -> int:
        return len(self.labels)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything that training depends on: not of the encoder's name."""
        content = dataclasses.asdict(self) | {"encoder": None}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def shard_name(split: str, index: int, count: int) -> str:
    return f"{split}-{index:05d}-of-{count:05d}.tfrecord"


def write_manifest(folder: str, manifest: Manifest) -> None:
    content = {**dataclasses.asdict(manifest), "fingerprint": manifest.fingerprint}
    fs.write_text(fs.join(folder, MANIFEST_FILE), json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def read_manifest(folder: str) -> Manifest:
    """Raises ValueError if the folder holds no prepared data set, or one of another format."""
    path = fs.join(folder, MANIFEST_FILE)
    if not fs.exists(path):
        what = "has no dataset.json: its preparation did not end" if fs.is_folder(folder) else "is not there"
        raise ValueError(
            f"--data_dir must name a folder that scripts/prepare_data.py has written. Received: {folder}, which {what}."
        )
    try:
        content = json.loads(fs.read_text(path))
        fingerprint, version = content.pop("fingerprint"), content["format"]
        if version != FORMAT_VERSION:
            raise ValueError(f"{path} must have format {FORMAT_VERSION}. Received: {version}. Prepare the data again.")
        content["vocabulary"] = Vocabulary(**content["vocabulary"])
        content["labels"] = tuple(content["labels"])
        names = [shard["name"] for split in content["splits"].values() for shard in split["shards"]]
        out = [name for name in names if not re.fullmatch(r"\w[\w.-]*", name)]
        if out:
            raise ValueError(
                f"{path} must name its shards by plain file names. Received: {', '.join(map(repr, out[:5]))}. They "
                "were not read."
            )
        content["splits"] = {
            name: Split(**{**split, "shards": tuple(Shard(**shard) for shard in split["shards"])})
            for name, split in content["splits"].items()
        }
        manifest = Manifest(**content)
    except (AttributeError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{path} must be a manifest as scripts/prepare_data.py writes it. Received: one that does not parse: "
            f"{error!r}."
        ) from None
    if fingerprint != manifest.fingerprint:
        raise ValueError(
            f"{path} was changed after it was written: its fingerprint is {manifest.fingerprint[:12]}, not "
            f"{fingerprint[:12]}. Prepare the data again."
        )
    return manifest


def check_shard_sizes(folder: str, manifest: Manifest) -> None:
    """Raises ValueError, naming every shard that is missing or not of the manifest's size. Reads no shard."""
    wrong = []
    for shard in (shard for split in manifest.splits.values() for shard in split.shards):
        path = fs.join_inside(folder, shard.name)
        if not fs.exists(path):
            wrong.append(f"{shard.name} is missing")
        elif (size := fs.size(path)) != shard.bytes:
            wrong.append(f"{shard.name} has {size} bytes, not {shard.bytes}")
    if wrong:
        raise ValueError(
            f"--data_dir must hold the shards its manifest lists. Received: {folder}, where {'; '.join(wrong[:5])}. "
            "Prepare the data again."
        )

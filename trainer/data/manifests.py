"""The manifest of a prepared data set, dataset.json: what its shards hold and how they were made."""

import dataclasses
import hashlib
import json
import re
from typing import Any

from trainer.errors import Problem, UserError
from trainer.storage import fs

MANIFEST_FILE = "dataset.json"
# The encoder's preprocessor, copied into the data set: the export needs the tokenizer that made the tokens.
PREPROCESS_FOLDER = "preprocess"
FORMAT_VERSION = 1
# A longer document keeps half of this many tokens at each end. Any truncation to at most half of it
# then selects the tokens that it would select from the complete document.
MAX_TOKENS = 8192
MAX_REPORTED_SHARDS = 5


@dataclasses.dataclass(frozen=True)
class Shard:
    """A TFRecord file."""

    name: str
    examples: int
    bytes: int
    crc32c: int


@dataclasses.dataclass(frozen=True)
class Split:
    """Train, validation or test. Lengths count the tokens of a text or pair, without special tokens."""

    examples: int
    shards: tuple[Shard, ...]
    label_counts: dict[str, int]  # Class name -> examples, which may have several. Empty for regression.
    length_percentiles: dict[str, int]  # "50" -> the median length.
    length_histogram: dict[str, int]  # "64" -> examples of 33 to 64 tokens. The bounds are powers of 2.


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """The tokenizer that made the tokens: its vocabulary's hash, and the ids of its special tokens."""

    sha256: str
    size: int
    lower_case: bool
    start: int
    end: int
    padding: int


@dataclasses.dataclass(frozen=True)
class Findings:
    """What preparation decided and found, for people. Nothing that is trained depends on it."""

    label_decision: str = ""  # What the labels were taken for, and why.
    copies: int = 0  # Rows whose text an earlier row has. All copies of a text are in one split.
    contradicting_texts: int = 0  # Texts whose copies have different labels.
    contradicting_examples: tuple[str, ...] = ()
    train_only_classes: tuple[str, ...] = ()  # Those that validation or test lacks.
    without_label: dict[str, int] = dataclasses.field(default_factory=dict)  # Of several labels: split -> examples.


@dataclasses.dataclass(frozen=True)
class Manifest:
    """The contents of dataset.json. Its field names are the file's keys."""

    task: str  # A key of tasks.TASKS, the --task of scripts/prepare_data.py.
    kind: str  # One of tasks.KINDS.
    texts: int  # 1, or 2 for pairs.
    labels: tuple[str, ...]  # Class names by index. Empty for regression.
    encoder: str  # The name or path of the encoder whose tokenizer was used.
    vocabulary: Vocabulary
    seed: int  # The splits and their order depend on it.
    splits: dict[str, Split]
    removed: dict[str, int]  # Reason -> rows that were left out.
    findings: Findings = dataclasses.field(default_factory=Findings)  # Empty in data sets of earlier versions.
    weighted: bool = False  # Whether each example has a weight of its own.
    kept_columns: tuple[str, ...] = ()  # Those of the source that each example has kept, for a report.
    max_tokens: int = MAX_TOKENS
    format: int = FORMAT_VERSION

    @property
    def classes(self) -> int:
        """The number of classes, 0 for regression."""
        return len(self.labels)

    @property
    def largest_class(self) -> int:
        """The index of the class that train has the most examples of, the first of equals. Not for regression."""
        counts = self.splits["train"].label_counts
        return max(range(self.classes), key=lambda index: counts[self.labels[index]])

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything that training depends on. The encoder's name and the findings are left out.

        So are weights and kept columns where there are none: a data set from before they existed keeps its fingerprint.
        """
        content = dataclasses.asdict(self) | {"encoder": None}
        del content["findings"]
        for name in ("weighted", "kept_columns"):
            if not content[name]:
                del content[name]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def shard_name(split: str, index: int, count: int) -> str:
    """For example train-00000-of-00016.tfrecord."""
    return f"{split}-{index:05d}-of-{count:05d}.tfrecord"


def write_manifest(folder: str, manifest: Manifest) -> None:
    """Write dataset.json. Write it after all shards: a folder that has it is a complete data set."""
    content = {**dataclasses.asdict(manifest), "fingerprint": manifest.fingerprint}
    fs.write_json(fs.join(folder, MANIFEST_FILE), content, ensure_ascii=False)


def read_manifest(folder: str, flag: str = "--data_dir") -> Manifest:
    """Read dataset.json in the folder that `flag` names.

    Raises UserError if the folder has none, or one that is of another format, was changed, or names shards elsewhere.
    """
    path = fs.join(folder, MANIFEST_FILE)
    if not fs.exists(path):
        what = "no dataset.json in it: its preparation did not end" if fs.is_folder(folder) else "which does not exist"
        raise UserError(Problem(flag, "name a folder that scripts/prepare_data.py has written", f"{folder}, {what}"))
    again = "Prepare the data again."
    try:
        content = fs.read_json(path)
        fingerprint, version = content.pop("fingerprint"), content["format"]
        if version != FORMAT_VERSION:
            raise UserError(Problem(path, f"have format {FORMAT_VERSION}", str(version), again))
        content["vocabulary"] = Vocabulary(**content["vocabulary"])
        content["labels"] = tuple(content["labels"])
        content["kept_columns"] = tuple(content.get("kept_columns", ()))
        findings = content.pop("findings", {}).items()
        fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in findings}
        content["findings"] = Findings(**fields)
        names = [shard["name"] for split in content["splits"].values() for shard in split["shards"]]
        unsafe = [name for name in names if not re.fullmatch(r"\w[\w.-]*", name)]
        if unsafe:
            received = ", ".join(map(repr, unsafe[:5]))
            raise UserError(Problem(path, "name its shards by plain file names", received, "They were not read."))
        content["splits"] = {
            name: Split(**{**split, "shards": tuple(Shard(**shard) for shard in split["shards"])})
            for name, split in content["splits"].items()
        }
        manifest = Manifest(**content)
    except (AttributeError, KeyError, TypeError, json.JSONDecodeError) as error:
        required = "be a manifest as scripts/prepare_data.py writes it"
        raise UserError(Problem(path, required, f"one that does not parse, {error!r}", again)) from None
    if fingerprint != manifest.fingerprint:
        required = f"stay as it was written, with the fingerprint {fingerprint[:12]}"
        raise UserError(Problem(path, required, manifest.fingerprint[:12], again))
    return manifest


def check_shard_sizes(folder: str, manifest: Manifest) -> None:
    """Compare every shard's size with the manifest, without reading it.

    Raises UserError, naming the first shards that are missing or of another size.
    """
    problems = []
    for shard in (shard for split in manifest.splits.values() for shard in split.shards):
        path = fs.join_inside(folder, shard.name)
        size = fs.size(path) if fs.exists(path) else None
        if size != shard.bytes:
            received = "no such file" if size is None else f"{size:,} bytes"
            required = f"have the {shard.bytes:,} bytes of its manifest"
            problems.append(Problem(path, required, received, "Prepare the data again."))
    if problems:
        raise UserError(*problems[:MAX_REPORTED_SHARDS])

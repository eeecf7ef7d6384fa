"""The data of an evaluation or an export, compared with the data that the run was trained on."""

import dataclasses
import logging
from collections.abc import Iterator

from trainer.data import manifests, records, splits, tasks
from trainer.errors import Problem, UserError
from trainer.train import label_use, run_files

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class OwnData:
    """The data set that a run was trained on."""

    folder: str  # Where the run's config.yaml says that it is. Empty if there is none.
    manifest: manifests.Manifest | None  # None if the folder cannot be read, or has other data by now.


def compare_data(files: run_files.RunFiles, folder: str, manifest: manifests.Manifest) -> OwnData | None:
    """Compare the data set in `folder` with the run's. Returns the run's own data if this is other data, else None.

    Warns of other data. Raises UserError if its kind, its class names, or the number of texts of an example, are
    others.
    """
    kept = run_files.read_identity(files)
    if kept.get("data_fingerprint") == manifest.fingerprint:
        return None
    config, own_manifest = run_files.find_own_data(files)
    own = OwnData(config.data_dir if config else "", own_manifest)
    # A run from before these were kept has them in its own data set alone.
    labels = kept.get("labels", own_manifest and own_manifest.labels)
    texts = kept.get("texts", own_manifest and own_manifest.texts)
    kind = kept.get("kind", own_manifest and own_manifest.kind)
    problems = []
    if kind is not None and kind != manifest.kind:
        required = f"have {tasks.KIND_NAMES[kind]}, as the run in --model_dir {files.root}"
        problems.append(Problem("--data_dir", required, f"{folder}, with {tasks.KIND_NAMES[manifest.kind]}"))
    if labels is not None and tuple(labels) != manifest.labels:
        required = f"have the class names of the run in --model_dir {files.root}: {label_use.format_names(labels)}"
        received = f"{folder}, with {label_use.format_names(manifest.labels)}"
        problems.append(Problem("--data_dir", required, received, "Prepare the data with the run's class names."))
    if texts is not None and texts != manifest.texts:
        required = f"have examples of {texts} text{'s' * (texts > 1)}, as the run in --model_dir {files.root}"
        problems.append(Problem("--data_dir", required, f"{folder}, with {manifest.texts}"))
    if problems:
        raise UserError(*problems)
    fingerprint = kept.get("data_fingerprint", "unknown")
    _LOG.warning(
        "--data_dir %s (fingerprint %s) is other data than the run was trained on, %s (fingerprint %s).%s",
        *(folder, manifest.fingerprint[:12], own.folder, fingerprint[:12]),
        "" if labels is not None else " The run's class names are not known, and were not compared.",
    )
    return own


def read_train(own: OwnData) -> records.Columns:
    """The run's own train, with texts. Raises UserError if it cannot be read any more."""
    if own.manifest is None:
        required = "be left out where the run's own data, which it learns from, cannot be read"
        raise UserError(Problem("--baseline", required, f"data of {own.folder or 'an unknown folder'}"))
    return records.read_split(own.folder, own.manifest, "train", with_text=True)


def describe_overlap(own: OwnData, columns: records.Columns, split: str) -> str:
    """How many texts of `columns` the run was trained on, as a sentence. `columns` were read with their texts.

    White space and case aside, as when a data set is split.
    """
    unknown = f"Whether texts of {split} are in the run's train is not known: "
    if own.manifest is None:
        return f"{unknown}{own.folder or 'its data set'} does not hold the data that it was trained on any more."
    trained: set[int] = set()
    try:
        for shard in own.manifest.splits["train"].shards:
            trained.update(_hash_texts(records.read_shards(own.folder, [shard], own.manifest, with_text=True)))
    except (OSError, UserError) as error:
        return f"{unknown}{error}"
    count = sum(text in trained for text in _hash_texts(columns))
    return f"{count:,} of the {len(columns):,} examples of {split} have a text that the run was trained on (its train)."


def _hash_texts(columns: records.Columns) -> Iterator[int]:
    """splits.hash_text of each row: the texts themselves may be more than fits in memory."""
    assert columns.texts is not None
    return map(splits.hash_text, columns.texts, columns.texts_b or [""] * len(columns))

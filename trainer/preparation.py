"""A data set, from what a command or a call of trainer.api asks for to its folder. TensorFlow is imported last."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack

import pydantic

from trainer.config import loading
from trainer.config.schema import URL_KEYS
from trainer.errors import Problem, advise_nearest
from trainer.runtime import logs, versions
from trainer.storage import paths, preflight
from trainer.storage.paths import AnyPath
from trainer.storage.preflight import PathUse

if TYPE_CHECKING:
    from trainer.data.task_rows import SourceOptions

# The options that are paths.
_PATHS = ("source", "validation_source", "test_source", "downloads")


class PrepareOptions(TypedDict, total=False):
    """What else `prepare` may be told. These are flags of `scripts/prepare_data.py`, with the same defaults."""

    validation_source: AnyPath  # The file of validation. Without it, validation is drawn from the source.
    test_source: AnyPath  # The file of test. Without it, a tenth of the source becomes test.
    text_column: str  # The column with the text: text.
    text_pair_column: str  # The column with the second text of pairs.
    label_column: str  # The column with the label: label.
    weight_column: str  # The column with an example's weight in the loss.
    keep_columns: Sequence[str]  # Columns that a run's report groups its results by.
    label_type: Literal["auto", "class", "number"]  # Whether labels are classes, or numbers to predict.
    multi_label: bool  # Whether a text may have several labels, or none.
    label_delimiter: str  # What separates the labels of a cell.
    label_columns: Sequence[str]  # Columns of 0 and 1, one for each of several labels.
    missing_labels: Sequence[str]  # What counts as no label, such as NA.
    bad_rows: Literal["fail", "skip"]  # What to do with rows that have no text or no label.
    encoding: str  # Of files that are not UTF-8, such as cp1252.
    delimiter: str  # The character between columns.
    escape: str  # The character before a quote of the text.
    quotes: bool  # Whether fields may be in quotes.
    allow_empty_pairs: bool  # Whether the second text of a pair may be empty.
    sha256: str  # Of the source, a file.
    downloads: AnyPath  # The folder that a source which is a URL is downloaded to.


@dataclasses.dataclass(frozen=True)
class DataSet:
    """A prepared data set. `print` shows it with its lengths and with what was left out."""

    folder: str  # For `train`.
    kind: str  # classification, multi_label or regression
    labels: tuple[str, ...]  # The classes in the order of their scores. Empty for regression.
    examples: dict[str, int]  # Of train, validation and test.
    label_counts: dict[str, dict[str, int]]  # Of each split, by class.
    removed: dict[str, int]  # Rows that were left out, by the reason.

    def __str__(self) -> str:
        from trainer.data import inspection

        return inspection.summarize_data_set(self.folder)


@logs.shown_for_a_call()
def prepare(
    source: AnyPath | None,
    output: AnyPath,
    *,
    encoder: AnyPath = "minilm",
    task: str = "csv",
    preprocess: AnyPath = "",
    mirror: AnyPath = "",
    seed: int = 0,
    progress: bool = True,
    problems: Sequence[Problem] = (),
    **options: Unpack[PrepareOptions],
) -> DataSet:
    """Read texts and labels, and write a data set to the folder `output`, in the place of an earlier one there.

    `source` is a table, a pattern of several, a folder with a folder for each class, or a URL; None for a `task` that
    has its own, such as imdb. `encoder` is the one whose tokenizer is used: a name, a handle or a folder, with
    `preprocess` if it has no preprocessor and no vocabulary, and looked up in the folder `mirror` before it is
    downloaded. The splits depend on `seed`. `progress` shows a bar on standard error. `problems` are those of a
    command's flags, to be reported with the others.

    Raises UsageError, with every problem, for arguments that are wrong or do not fit together; UserError for a source
    that cannot be read or split, and for an encoder that is not found. Then nothing is written.
    """
    versions.check_installation()
    found = list(problems)
    given = {"encoder": encoder, "preprocess": preprocess, "encoders.mirror": mirror, "output": output}
    folders = {name: _normalize(name, path, found) for name, path in given.items()}
    read = _read_options({"task": task, "source": source, **options}, found)

    from trainer.data import task_rows

    found += task_rows.find_argument_problems(read, folders["output"])
    sources = {name: getattr(read, name) for name in ("source", "test_source", "validation_source")}
    uses = [PathUse(f"--{name}", path, writes=name == "output") for name, path in {**folders, **sources}.items()]
    preflight.check_paths(uses, problems=found)
    return _write_data_set(
        read,
        encoder=folders["encoder"],
        preprocess=folders["preprocess"],
        mirror=folders["encoders.mirror"],
        output=folders["output"],
        seed=seed,
        progress=progress,
    )


def _normalize(name: str, path: AnyPath, problems: list[Problem]) -> str:
    return paths.normalize_path(f"--{name}", os.fspath(path or ""), problems, url=name in ("source", *URL_KEYS))


def _read_options(given: Mapping[str, Any], problems: list[Problem]) -> "SourceOptions":
    """The options, with their defaults for those that have a problem, which is added to `problems`."""
    from trainer.data.task_rows import SourceOptions

    values: dict[str, Any] = {
        name: _normalize(name, value, problems) if name in _PATHS and isinstance(value, str | os.PathLike) else value
        for name, value in given.items()
    }
    names = [field.name for field in dataclasses.fields(SourceOptions)]
    for name in [name for name in values if name not in names]:
        advice = advise_nearest(name, names) or f"They are {', '.join(names)}."
        problems.append(Problem(name, "be an option of prepare", name, advice))
        del values[name]
    try:
        return pydantic.TypeAdapter(SourceOptions).validate_python(values)
    except pydantic.ValidationError as invalid:
        for error in invalid.errors():
            name = str(error["loc"][0])
            problems.append(Problem(f"--{name}", loading.describe_requirement(error), repr(error["input"])))
            values.pop(name, None)
        return SourceOptions(**{"task": "csv", **values})


def _write_data_set(
    options: "SourceOptions",
    *,
    encoder: str,
    preprocess: str,
    mirror: str,
    output: str,
    seed: int,
    progress: bool,
) -> DataSet:
    from trainer.data import prepare
    from trainer.encoders import rebuild_cache, registry, saved_models

    folders = registry.resolve_encoder(encoder, need_preprocess=False, mirror=mirror)
    # Before the preprocessor is looked for: what is no encoder has none. Loading takes seconds.
    if not rebuild_cache.find_rebuilt(folders.encoder, registry.saved_model_sha256(folders.encoder)):
        saved_models.load_encoder(folders)
    preprocess = registry.resolve_preprocess(encoder, preprocess, mirror)
    manifest = prepare.prepare_task(
        options, encoder=encoder, preprocess=preprocess, output=output, seed=seed, progress=progress
    )
    return DataSet(
        output,
        manifest.kind,
        manifest.labels,
        {name: split.examples for name, split in manifest.splits.items()},
        {name: split.label_counts for name, split in manifest.splits.items()},
        manifest.removed,
    )

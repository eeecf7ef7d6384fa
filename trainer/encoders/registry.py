"""The encoders that are known by name, and how a name, a URL or a folder becomes local folders of SavedModels.

41 of the names are those of TensorFlow's tutorials "Classify text with BERT" and "Solve GLUE tasks using BERT on TPU".
bert_zh, electra_large and six experts are from the collections' pages on the Hub.
"""

import dataclasses
import hashlib
import os

from trainer.encoders import fetching, handles, mirrors
from trainer.encoders.embedded import EMBEDDED, make_command
from trainer.encoders.handles import Handle
from trainer.encoders.saved_model_files import is_saved_model
from trainer.errors import Problem, UserError
from trainer.storage import fs

HUB_URL = "https://tfhub.dev"


@dataclasses.dataclass(frozen=True)
class HubHandles:
    """The URLs of an encoder and of its preprocessor on TensorFlow Hub."""

    encoder: str
    preprocess: str


def _handles(encoder: str, preprocess: str) -> HubHandles:
    return HubHandles(f"{HUB_URL}/{encoder}", f"{HUB_URL}/tensorflow/{preprocess}_preprocess/3")


ENCODERS: dict[str, HubHandles] = {
    "bert_en_uncased_L-12_H-768_A-12": _handles("tensorflow/bert_en_uncased_L-12_H-768_A-12/3", "bert_en_uncased"),
    "bert_en_cased_L-12_H-768_A-12": _handles("tensorflow/bert_en_cased_L-12_H-768_A-12/3", "bert_en_cased"),
    "bert_multi_cased_L-12_H-768_A-12": _handles("tensorflow/bert_multi_cased_L-12_H-768_A-12/3", "bert_multi_cased"),
    "bert_en_uncased_L-24_H-1024_A-16": _handles("tensorflow/bert_en_uncased_L-24_H-1024_A-16/3", "bert_en_uncased"),
    "bert_en_wwm_uncased_L-24_H-1024_A-16": _handles(
        "tensorflow/bert_en_wwm_uncased_L-24_H-1024_A-16/3", "bert_en_uncased"
    ),
    "bert_en_cased_L-24_H-1024_A-16": _handles("tensorflow/bert_en_cased_L-24_H-1024_A-16/3", "bert_en_cased"),
    "bert_en_wwm_cased_L-24_H-1024_A-16": _handles("tensorflow/bert_en_wwm_cased_L-24_H-1024_A-16/3", "bert_en_cased"),
    "bert_zh_L-12_H-768_A-12": _handles("tensorflow/bert_zh_L-12_H-768_A-12/3", "bert_zh"),
    **{
        name: _handles(f"tensorflow/{name}/1", "bert_en_uncased")
        for name in (
            f"small_bert/bert_en_uncased_L-{layers}_H-{hidden}_A-{hidden // 64}"
            for layers in (2, 4, 6, 8, 10, 12)
            for hidden in (128, 256, 512, 768)
        )
    },
    **{
        f"albert_en_{size}": _handles(f"tensorflow/albert_en_{size}/2", "albert_en")
        for size in ("base", "large", "xlarge", "xxlarge")
    },
    **{
        f"electra_{size}": _handles(f"google/electra_{size}/2", "bert_en_uncased")
        for size in ("small", "base", "large")
    },
    **{
        "experts_" + path.replace("/", "_"): _handles(f"google/experts/bert/{path}/2", "bert_en_uncased")
        for path in (
            "pubmed",
            "wiki_books",
            *(f"wiki_books/{task}" for task in ("mnli", "qnli", "qqp", "sst2", "squad2")),
            "pubmed/squad2",
        )
    },
    **{
        f"talking-heads_{size}": _handles(f"tensorflow/talkheads_ggelu_bert_en_{size}/1", "bert_en_uncased")
        for size in ("base", "large")
    },
}


@dataclasses.dataclass(frozen=True)
class EncoderFolders:
    """The local folders of an encoder's SavedModels."""

    name: str  # As the user gave it.
    encoder: str
    preprocess: str  # "" if it was not needed.

    @property
    def place(self) -> str:
        """Where the encoder is, for messages. The folder may be a copy of one in a bucket."""
        return self.encoder if self.encoder.startswith(self.name) else f"{self.name} in {self.encoder}"


def _holds_saved_model(path: str) -> bool:
    """Whether a path, which may also be a URL, is the folder of a SavedModel."""
    return ("://" not in path or path.startswith("gs://")) and is_saved_model(path)


def _find_in_folders(encoder: str) -> tuple[str, str] | None:
    """(encoder folder, preprocessor folder or "") if `encoder` is a folder or the name of one in encoders/."""
    for folder in (encoder, fs.join("encoders", encoder)):
        if _holds_saved_model(fs.join(folder, "encoder")):
            found, preprocess = fs.join(folder, "encoder"), fs.join(folder, "preprocess")
        elif _holds_saved_model(folder):
            found, preprocess = folder, fs.join(os.path.dirname(folder.rstrip("/")), "preprocess")
        else:
            continue
        return found, preprocess if is_saved_model(preprocess) else ""
    return None


def _parse_encoder(encoder: str, flag: str) -> Handle:
    """The handle of a name of ENCODERS, or that `encoder` is. Raises UserError for anything else."""
    known = ENCODERS.get(encoder)
    handle = handles.parse_handle(known.encoder if known else encoder, flag)
    if handle:
        return handle
    raise UserError(
        Problem(
            flag,
            f"be a name ({', '.join([*EMBEDDED, *ENCODERS][:4])}, ...), a Hub or Kaggle handle, or a folder",
            f"{encoder!r}, which is none of the {len(ENCODERS)} names; no SavedModel is in {encoder} or "
            f"encoders/{encoder}",
            _advise(encoder),
        )
    )


def _known_preprocessor(handle: Handle) -> str:
    """The handle of the preprocessor of a model of ENCODERS, in any version; "" for others."""
    for known in ENCODERS.values():
        model = handles.parse_handle(known.encoder, "--encoder")
        if model and (model.site, model.model) == (handle.site, handle.model):
            return known.preprocess
    return ""


def _fetch(text: str, flag: str, mirror: str) -> str | None:
    """The local folder of the SavedModel that a handle names; None if `text` is no handle."""
    handle = handles.parse_handle(text, flag)
    return fetching.fetch_model(handle, text, flag, mirror) if handle else None


def _find_encoder(encoder: str, mirror: str) -> tuple[str, str]:
    """(encoder folder, folder or handle of its preprocessor or "") of what --encoder may be."""
    if found := _find_in_folders(encoder):
        return found
    handle = _parse_encoder(encoder, "--encoder")
    return fetching.fetch_model(handle, encoder, "--encoder", mirror), _known_preprocessor(handle)


def _advise(encoder: str) -> str:
    """What to do about an encoder that was not found."""
    if encoder in EMBEDDED:
        return f"Make it: {make_command(encoder)}."
    for kind, file in (("hf", "config.json"), ("checkpoint", "bert_config.json")):
        if "://" not in encoder.removeprefix("gs://") and fs.exists(fs.join(encoder, file)):
            return f"Import it: python scripts/import_encoder.py --source={kind}:{encoder} --output=encoders/NAME."
    return ""


def resolve_preprocess(encoder: str, preprocess: str = "", mirror: str = "") -> str:
    """The local folder of the preprocessor of `encoder`; `preprocess`, a handle or a folder, replaces its own.

    Where none is known, it is made from the encoder's own vocabulary. `mirror` is that of resolve_encoder.

    Raises UserError if there is none.
    """
    encoder_folder, known = ("", preprocess) if preprocess else _find_encoder(encoder, mirror)
    if not known:
        return _build_preprocessor(fs.tensorflow_path(encoder_folder), encoder)
    folder = known if _holds_saved_model(known) else _fetch(known, "--preprocess", mirror)
    if folder is None:
        raise UserError(Problem("--preprocess", "name a folder that holds saved_model.pb, or a handle", known))
    return fs.tensorflow_path(folder)


def _build_preprocessor(folder: str, encoder: str) -> str:
    from trainer.encoders import own_preprocessors  # imports TensorFlow

    if built := own_preprocessors.build_preprocessor(folder, encoder):
        return built
    received = f"none; there is none next to {encoder}, and its folder has no vocabulary to make one from"
    raise UserError(Problem("--preprocess", "name the preprocessor that belongs to the encoder", received))


def resolve_encoder(
    encoder: str, *, preprocess: str = "", need_preprocess: bool = True, mirror: str = ""
) -> EncoderFolders:
    """Find the SavedModels of an encoder and, if needed, of its preprocessor; download them if they are elsewhere.

    `encoder` is a name of ENCODERS or EMBEDDED, a Hub or Kaggle handle, the folder of a SavedModel, or a folder that
    holds encoder/ and preprocess/. Folders may be in a bucket. `preprocess`, a handle or a folder, replaces the
    preprocessor that belongs to the encoder. `mirror` is the folder in which handles are looked up first, or "".

    Raises UserError, within seconds, if either is not found.
    """
    encoder_folder, _ = _find_encoder(encoder, mirror)
    preprocess_folder = resolve_preprocess(encoder, preprocess, mirror) if need_preprocess else ""
    # TensorFlow loads verified local copies: reading from a bucket, it does not notice a corrupted byte.
    return EncoderFolders(encoder, fs.tensorflow_path(encoder_folder), preprocess_folder)


def fill_mirror(encoder: str, mirror: str) -> list[str]:
    """Copy an encoder of the Hub or Kaggle, and its preprocessor where one is known, to a mirror; returns the folders.

    `encoder` is a name of ENCODERS or a handle. Raises UserError if it is neither, or cannot be downloaded.
    """
    flag = "--source=hub:NAME"
    given = {encoder: _parse_encoder(encoder, flag)}
    if (known := _known_preprocessor(given[encoder])) and (preprocessor := handles.parse_handle(known, flag)):
        given[known] = preprocessor
    folders = {text: fetching.fetch_model(handle, text, flag) for text, handle in given.items()}
    return [mirrors.add_model(handle, folders[text], mirror) for text, handle in given.items()]


def saved_model_sha256(folder: str) -> str:
    """SHA-256 of a SavedModel's graph and variables. It identifies an encoder in whatever folder it is."""
    digest = hashlib.sha256()
    variables = fs.join(folder, "variables")
    names = fs.list_names(variables) if fs.is_folder(variables) else []  # Whatever loads it says what is missing.
    for path in ("saved_model.pb", *(f"variables/{name}" for name in names)):
        digest.update(fs.read_bytes(fs.join(folder, path)))
    return digest.hexdigest()

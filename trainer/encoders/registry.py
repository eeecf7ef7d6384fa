"""The encoders that are known by name, and how a name, a URL or a folder becomes local folders of SavedModels.

41 of the names are those of TensorFlow's tutorials "Classify text with BERT" and "Solve GLUE tasks using BERT on TPU".
bert_zh, electra_large and six experts are from the collections' pages on the Hub.
"""

import dataclasses
import hashlib
import os

from trainer.encoders import hub_cache
from trainer.encoders.embedded import EMBEDDED, make_command
from trainer.encoders.hub_cache import is_saved_model
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


def _find_in_folders(encoder: str) -> tuple[str, str] | None:
    """(encoder folder, preprocessor folder or "") if `encoder` is a folder or the name of one in encoders/."""
    for folder in (encoder, fs.join("encoders", encoder)):
        if "://" in folder and not folder.startswith("gs://"):
            continue
        if is_saved_model(fs.join(folder, "encoder")):
            return fs.join(folder, "encoder"), fs.join(folder, "preprocess")
        if is_saved_model(folder):
            sibling = fs.join(os.path.dirname(folder.rstrip("/")), "preprocess")
            return folder, sibling if is_saved_model(sibling) else ""
    return None


def _find_on_hub(encoder: str) -> tuple[str, str]:
    """(encoder folder, handle of its preprocessor or "") of a name of ENCODERS or a URL."""
    handles = ENCODERS.get(encoder) or next((known for known in ENCODERS.values() if known.encoder == encoder), None)
    if handles:
        return hub_cache.download(handles.encoder, "--encoder"), handles.preprocess
    if encoder.startswith(("https://", "http://")):
        return hub_cache.download(encoder, "--encoder"), ""
    raise UserError(
        Problem(
            "--encoder",
            f"be a name ({', '.join([*EMBEDDED, *ENCODERS][:4])}, ...), a Hub or Kaggle URL, or a SavedModel folder",
            f"{encoder!r}, which is none of the {len(ENCODERS)} names; no SavedModel is in {encoder} or "
            f"encoders/{encoder}",
            _advise(encoder),
        )
    )


def _advise(encoder: str) -> str:
    """What to do about an encoder that was not found."""
    if encoder in EMBEDDED:
        return f"Make it: {make_command(encoder)}."
    for kind, file in (("hf", "config.json"), ("checkpoint", "bert_config.json")):
        if "://" not in encoder.removeprefix("gs://") and fs.exists(fs.join(encoder, file)):
            return f"Import it: python scripts/import_encoder.py --source={kind}:{encoder} --output=encoders/NAME."
    return ""


def resolve_preprocess(encoder: str, preprocess: str = "") -> str:
    """The local folder of the preprocessor of `encoder`; `preprocess`, a URL or a folder, replaces its own.

    Raises UserError if there is none.
    """
    folder = preprocess or (_find_in_folders(encoder) or _find_on_hub(encoder))[1]
    if not folder:
        raise UserError(
            Problem(
                "--preprocess",
                "name the preprocessor that belongs to the encoder",
                f"none, and there is none next to {encoder}",
            )
        )
    if folder.startswith(("https://", "http://")):
        folder = hub_cache.download(folder, "--preprocess")
    elif not is_saved_model(folder):
        raise UserError(Problem("--preprocess", "name a folder that holds saved_model.pb", folder))
    return fs.tensorflow_path(folder)


def resolve_encoder(encoder: str, *, preprocess: str = "", need_preprocess: bool = True) -> EncoderFolders:
    """Find the SavedModels of an encoder and, if needed, of its preprocessor; download them if they are elsewhere.

    `encoder` is a name of ENCODERS or EMBEDDED, a Hub or Kaggle URL, the folder of a SavedModel, or a folder that holds
    encoder/ and preprocess/. Folders may be in a bucket. `preprocess`, a URL or a folder, replaces the preprocessor
    that belongs to the encoder.

    Raises UserError, within seconds, if either is not found.
    """
    encoder_folder, _ = _find_in_folders(encoder) or _find_on_hub(encoder)
    preprocess_folder = resolve_preprocess(encoder, preprocess) if need_preprocess else ""
    # TensorFlow loads verified local copies: reading from a bucket, it does not notice a corrupted byte.
    return EncoderFolders(encoder, fs.tensorflow_path(encoder_folder), preprocess_folder)


def saved_model_sha256(folder: str) -> str:
    """SHA-256 of a SavedModel's graph and variables. It identifies an encoder in whatever folder it is."""
    digest = hashlib.sha256()
    for path in ("saved_model.pb", *(f"variables/{name}" for name in fs.list_names(fs.join(folder, "variables")))):
        digest.update(fs.read_bytes(fs.join(folder, path)))
    return digest.hexdigest()

"""ENCODERS: the names of TensorFlow's tutorials and the Hub handles behind them; any of them to its folder.

The 41 that the two tutorials list ("Classify text with BERT", "Solve GLUE tasks using BERT on TPU")
are theirs; bert_zh, electra_large and six experts are from the collections' pages on the Hub.
"""

import contextlib
import dataclasses
import hashlib
import os
import socket
import tempfile
from collections.abc import Iterator
from typing import Any

from trainer.storage import fs

HUB_URL = "https://tfhub.dev"
# Seconds that the Hub's server may be silent: urllib sets no bound of its own, and dropped packets cost 143 s.
NETWORK_TIMEOUT_S = 15.0


@dataclasses.dataclass(frozen=True)
class Handles:
    encoder: str
    preprocess: str


def _handles(encoder: str, preprocess: str) -> Handles:
    return Handles(f"{HUB_URL}/{encoder}", f"{HUB_URL}/tensorflow/{preprocess}_preprocess/3")


ENCODERS: dict[str, Handles] = {
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
    """Where an encoder's SavedModels are. `preprocess` is "" where there is none beside the encoder."""

    name: str
    encoder: str
    preprocess: str


def is_saved_model(folder: str) -> bool:
    return fs.exists(fs.join(folder, "saved_model.pb"))


def cache_folder(handle: str) -> str:
    """Where tensorflow-hub keeps the SavedModel of a handle (its exact string: a trailing slash is another)."""
    root = os.environ.get("TFHUB_CACHE_DIR") or os.path.join(
        os.environ.get("TMPDIR") or tempfile.gettempdir(), "tfhub_modules"
    )
    return fs.join(root, hashlib.sha1(handle.encode()).hexdigest())


@contextlib.contextmanager
def _bounded_network() -> Iterator[None]:
    previous = socket.getdefaulttimeout()
    socket.setdefaulttimeout(NETWORK_TIMEOUT_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(previous)


def _fetch(handle: str) -> str:
    """The folder of a handle's SavedModel: the Hub's cache, or a download into it.

    Raises ValueError, with what was tried, if it is neither cached nor to be had.
    """
    cached = cache_folder(handle)
    if is_saved_model(cached):
        return cached
    import tensorflow_hub as hub

    try:
        with _bounded_network():
            return str(hub.resolve(handle))
    except Exception as error:  # whatever urllib, the archive or the cache's lock raise
        raise ValueError(
            f"The encoder must be in the Hub's cache or in reach. Received: {handle}. Tried: the cache folder {cached} "
            f"(TFHUB_CACHE_DIR={os.environ.get('TFHUB_CACHE_DIR', '')!r}), which has no saved_model.pb; a download, "
            "which ended with "
            f"{type(error).__name__}: {error}. Download it where the network allows and copy it to that folder, or "
            "give "
            "--encoder=DIR of a SavedModel, or make the embedded one: python scripts/import_encoder.py "
            "--source=minilm --output=encoders/minilm."
        ) from None


def resolve_encoder(encoder: str, *, preprocess: str = "", need_preprocess: bool = True) -> EncoderFolders:
    """The folders behind an encoder's name.

    `encoder` is a name of ENCODERS, `minilm`, a Hub or Kaggle URL, a SavedModel's folder, or a folder
    holding encoder/ and preprocess/; `preprocess` (a handle or a folder) overrides the one that goes
    with it. Raises ValueError, saying what was tried and what to do, within seconds.
    """
    preprocess_from = preprocess
    for folder in (encoder, fs.join("encoders", encoder)):
        if "://" in folder and not folder.startswith("gs://"):
            continue
        if is_saved_model(fs.join(folder, "encoder")):
            encoder_folder = fs.join(folder, "encoder")
            preprocess_from = preprocess_from or fs.join(folder, "preprocess")
            break
        if is_saved_model(folder):
            encoder_folder = folder
            beside = fs.join(os.path.dirname(folder.rstrip("/")), "preprocess")
            preprocess_from = preprocess_from or (beside if is_saved_model(beside) else "")
            break
    else:
        handles = ENCODERS.get(encoder) or next((h for h in ENCODERS.values() if h.encoder == encoder), None)
        if handles is None and not encoder.startswith(("https://", "http://")):
            hint = (
                " Make it: python scripts/import_encoder.py --source=minilm --output=encoders/minilm."
                if encoder == "minilm"
                else ""
            )
            raise ValueError(
                f"--encoder must be a name ({', '.join(list(ENCODERS)[:2])}, ... or minilm), a Hub or Kaggle URL, or "
                "a folder with a SavedModel. "
                f"Received: {encoder!r}. Tried: the folders {encoder} and encoders/{encoder}, and the {len(ENCODERS)} "
                f"names.{hint}"
            )
        encoder_folder = _fetch(handles.encoder if handles else encoder)
        if handles and need_preprocess:
            preprocess_from = preprocess_from or handles.preprocess
    if need_preprocess:
        if not preprocess_from:
            raise ValueError(
                "--preprocess must name the preprocessor that goes with the encoder. Received: none, and none lies "
                f"beside {encoder}."
            )
        if preprocess_from.startswith(("https://", "http://")):
            preprocess_from = _fetch(preprocess_from)
        elif not is_saved_model(preprocess_from):
            raise ValueError(f"A preprocessor's folder must hold saved_model.pb. Received: {preprocess_from}.")
    # What TensorFlow loads, it loads from a copy here: it would not see a byte flipped on the way.
    return EncoderFolders(encoder, fs.local_copy(encoder_folder), fs.local_copy(preprocess_from))


def saved_model_sha256(folder: str) -> str:
    """SHA-256 over a SavedModel's graph and variables: what an encoder is, wherever it lies."""
    digest = hashlib.sha256()
    for path in ("saved_model.pb", *(f"variables/{name}" for name in fs.list_names(fs.join(folder, "variables")))):
        digest.update(fs.read_bytes(fs.join(folder, path)))
    return digest.hexdigest()


def load_saved_model(folder: str) -> Any:
    """The encoder's SavedModel, trainable."""
    import tensorflow_hub as hub
    import tensorflow_text  # noqa: F401  registers operators that some encoders' graphs hold

    return hub.load(folder)

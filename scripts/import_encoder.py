"""Make an encoder in the Hub's format: DIR/encoder and DIR/preprocess.

Examples:
  python scripts/import_encoder.py --source=minilm --output=encoders/minilm
  python scripts/import_encoder.py --source=hf:downloads/bert --output=encoders/bert

The values of --source:
  minilm            the embedded encoder: a pretrained 6-layer BERT from the package registry
  minilm_l3         another one, with 3 layers: half the time, less accurate
  hf:DIR            a Hugging Face BERT, DistilBERT or ELECTRA folder (config.json;
                    model.safetensors or pytorch_model.bin, in shards too; vocab.txt or
                    tokenizer.json)
  checkpoint:DIR    a TensorFlow BERT checkpoint (bert_config.json, *.index, vocab.txt)
  hub:NAME          an encoder of the Hub or Kaggle, by its name or handle, with its
                    preprocessor: --output is a mirror then, a folder in which
                    --encoders.mirror finds it
  random:PRESET     random weights, for tests and benchmarks: tiny, tiny_bert_v2, tiny_electra,
                    tiny_albert, tiny_talking_heads, medium_bert, medium_electra, medium_albert,
                    medium_talking_heads, bert_base, bert_large

DIR, and --output, may be in a bucket: gs://BUCKET/FOLDER.
"""

import dataclasses
from pathlib import Path

from absl import flags

from trainer.encoders import importing, registry
from trainer.errors import UsageError
from trainer.runtime import app, versions
from trainer.storage import paths, preflight
from trainer.storage.preflight import PathUse

SOURCE = flags.DEFINE_string(
    "source",
    None,
    "The encoder to import: minilm, minilm_l3, hf:DIR, checkpoint:DIR, hub:NAME or random:PRESET.",
    required=True,
)
OUTPUT = flags.DEFINE_string(
    "output", None, "The folder to write encoder/ and preprocess/ to, or a mirror.", required=True
)


def main(argv: list[str]) -> None:
    app.reject_arguments(argv)
    versions.check_installation()
    source = importing.parse_source(SOURCE.value)
    problems = app.normalize_path_flags("output")
    if source.folder:
        folder = paths.normalize_path(f"--source={source.kind}:DIR", source.folder, problems)
        source = dataclasses.replace(source, location=folder)
    uses = [PathUse("--source", source.folder), PathUse("--output", OUTPUT.value, writes=True)]
    if problems := [*problems, *preflight.find_path_problems(uses)]:
        raise UsageError(*problems)
    if source.kind == "hub":
        print("\n".join(f"{folder} is complete" for folder in registry.fill_mirror(source.location, OUTPUT.value)))
        return
    from trainer.data import downloads

    def download(name: str, folder: Path) -> Path:
        return downloads.fetch_package(downloads.ENCODER_PACKAGES[name], folder)

    importing.import_encoder(source, OUTPUT.value, download)
    print(f"{OUTPUT.value}: encoder/ and preprocess/ written from {SOURCE.value}")


if __name__ == "__main__":
    app.run(main, __doc__)

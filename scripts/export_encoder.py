"""Write the fine-tuned encoder of a finished run, with its best weights, to a new folder.

Examples:
  python scripts/export_encoder.py --model_dir=runs/mine --output=encoders/mine
  python scripts/export_encoder.py --model_dir=runs/mine --output=mine_hf --format=hugging_face

The values of --format:
  hub             encoder/ and preprocess/, which --encoder and hub.KerasLayer take
  hugging_face    a BERT for transformers: config.json, model.safetensors, vocab.txt, tokenizer.json

Each has a model card, README.md. --model_dir and --output may be in a bucket: gs://BUCKET/FOLDER.
"""

import time

from absl import flags

from trainer.config import flags as config_flags
from trainer.config.schema import DESCRIPTIONS, URL_KEYS
from trainer.runtime import app, versions

STARTED = time.monotonic()
MODEL_DIR = flags.DEFINE_string("model_dir", None, "The folder of a finished run.", required=True)
OUTPUT = flags.DEFINE_string("output", None, "The new folder to write.", required=True)
FORMAT = flags.DEFINE_enum("format", "hub", ["hub", "hugging_face"], "The format of the folder.")
for path_key in ("data_dir", *URL_KEYS):  # Where the run's own are elsewhere by now.
    flags.declare_key_flag(path_key)
    flags.FLAGS[path_key].help = f"{DESCRIPTIONS[path_key]} Default: that of the run."


def main(argv: list[str]) -> None:
    app.reject_arguments(argv)
    versions.check_installation()
    problems = app.normalize_path_flags("model_dir", "output", "data_dir", urls=URL_KEYS)
    config = config_flags.load_run_to_export(MODEL_DIR.value, OUTPUT.value, problems)

    from trainer.train import modes, run_exports, sessions

    restored = modes.restore_best(sessions.open_on_cpu(config, MODEL_DIR.value, STARTED))
    difference = run_exports.export_encoder(restored.run, OUTPUT.value, FORMAT.value)
    print(f"{OUTPUT.value} written; its outputs are within {difference:.1e} of the run's")


if __name__ == "__main__":
    app.run(main, __doc__, {"data_dir": "Files of the run that have been moved"})

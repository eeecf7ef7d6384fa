"""Write the classifier of a run, with its best weights, as one file that takes token ids and needs no TensorFlow.

Example:
  python scripts/export_classifier.py --model_dir=runs/mine --output=classifiers/mine --format=onnx

The values of --format:
  litert         model.tflite for LiteRT, in float32
  litert_int8    the same with int8 weights: a quarter of the size, and slightly other scores
  onnx           model.onnx for ONNX Runtime, in float32; needs pip install --editable '.[onnx]'

classifier.json, next to it, says how texts become inputs and logits become labels, and how good the export is on
validation and test. --model_dir and --output may be in a bucket: gs://BUCKET/FOLDER.
"""

import time

from absl import flags

from trainer.config import flags as config_flags
from trainer.config.schema import DESCRIPTIONS, URL_KEYS
from trainer.runtime import app, signals, versions

STARTED = time.monotonic()
MODEL_DIR = flags.DEFINE_string("model_dir", None, "The folder of a run that has been evaluated.", required=True)
OUTPUT = flags.DEFINE_string("output", None, "The new folder to write.", required=True)
FORMAT = flags.DEFINE_enum("format", "litert", ["litert", "litert_int8", "onnx"], "The format of the file.")
for path_key in ("data_dir", *URL_KEYS):  # Where the run's own are elsewhere by now.
    flags.declare_key_flag(path_key)
    flags.FLAGS[path_key].help = f"{DESCRIPTIONS[path_key]} Default: that of the run."


def format_figure(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"


def main(argv: list[str]) -> None:
    app.reject_arguments(argv)
    versions.check_installation()
    problems = app.normalize_path_flags("model_dir", "output", "data_dir", urls=URL_KEYS)
    config = config_flags.load_run_to_export(MODEL_DIR.value, OUTPUT.value, problems)

    from trainer.export import classifier_export
    from trainer.train import modes, run_exports, sessions

    classifier_export.check_packages(FORMAT.value)
    with signals.watch_signals() as request:
        restored = modes.restore_best(sessions.open_on_cpu(config, MODEL_DIR.value, STARTED))
        decision = modes.find_decision(restored, request)
        described = run_exports.export_classifier(restored.run, decision, OUTPUT.value, FORMAT.value, request)
    check = described["check"]
    same = f", {check['same_labels']} labels are the same" if "same_labels" in check else ""
    print(
        f"{OUTPUT.value} written: on {check['texts']} validation texts its logits are within "
        f"{check['largest_difference']:.1e} of the run's{same}"
    )
    for split, measured in described["metrics"].items():
        figures = (f"{format_figure(measured[which])} of the {which}" for which in ("run", "export"))
        print(
            f"{measured['metric'].replace('_', ' ')} on {measured['examples']:,} texts of {split}: {', '.join(figures)}"
        )


if __name__ == "__main__":
    app.run(main, __doc__, {"data_dir": "Files of the run that have been moved"})

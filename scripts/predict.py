"""Score texts with an exported model.

  python scripts/predict.py --model=runs/quickstart/export "this is such an amazing movie!" "It was terrible..."
  python scripts/predict.py --model=DIR --input=FILE [--format=jsonl]     a text a line
  ... | python scripts/predict.py --model=DIR                             the same from standard input

For a model of pairs, the two texts of a line, or of an argument, are separated by a tab.
"""

import json
import sys

from absl import flags

from trainer.errors import UsageError
from trainer.runtime import app, versions
from trainer.storage import fs, preflight
from trainer.storage.preflight import PathUse

MODEL = flags.DEFINE_string("model", None, "the folder of the exported SavedModel, MODEL_DIR/export", required=True)
INPUT = flags.DEFINE_string(
    "input", None, "a UTF-8 file with a text a line; - or nothing, and no texts as arguments: standard input"
)
FORMAT = flags.DEFINE_enum("format", "table", ["table", "jsonl"], "for people, or a JSON object a line")


def read_texts(arguments: list[str]) -> list[str]:
    if arguments and INPUT.value:
        raise UsageError("Texts come as arguments or from --input, not both. Received: both.")
    if arguments:
        return arguments
    if INPUT.value and INPUT.value != "-":
        with open(fs.local_copy(INPUT.value), encoding="utf-8") as file:
            lines = file.read().splitlines()
    else:
        lines = sys.stdin.read().splitlines()
    return [line for line in lines if line.strip()]


def main(argv: list[str]) -> None:
    versions.check_installation()
    preflight.check_paths([PathUse("--model", MODEL.value), PathUse("--input", INPUT.value)])
    from trainer.export import predict

    texts = read_texts(argv[1:])
    if not texts:
        raise UsageError(
            "At least one text must be given, as an argument, in --input or on standard input. Received: none."
        )
    saved, signature = predict.load_export(MODEL.value)
    width = len(predict.input_names(signature))
    rows = [text.split("\t") if width == 2 else [text] for text in texts]
    wrong = [text for text, row in zip(texts, rows, strict=True) if len(row) != width]
    if wrong:
        raise ValueError(f"This model takes pairs: two texts separated by a tab. Received: {wrong[0]!r}.")
    names = predict.class_names(saved)
    for text, scores in zip(texts, predict.score_texts(signature, rows), strict=True):
        if names:
            best = names[scores.argmax()]
            if FORMAT.value == "jsonl":
                print(
                    json.dumps(
                        {"text": text, "label": best, "scores": dict(zip(names, map(float, scores), strict=True))},
                        ensure_ascii=False,
                    )
                )
            else:
                print(f"{best:<{max(map(len, names))}}  {scores.max():.4f}  {text}")
        elif FORMAT.value == "jsonl":
            print(json.dumps({"text": text, "score": float(scores[0])}, ensure_ascii=False))
        else:
            print(f"{scores[0]:>9.4f}  {text}")


if __name__ == "__main__":
    app.run(main, __doc__)

"""Rebuild encoders natively, and measure how far their outputs are from the original's, and how long a step takes.

Examples:
  python scripts/check_encoders.py minilm
  python scripts/check_encoders.py encoders/mine random:tiny_albert

An encoder is a name, a URL or a folder, as for --encoder of a run, or random:PRESET. The table has milliseconds per
train step: the median of steps that are measured in turn, through hub.KerasLayer and natively.
"""

import tempfile

from absl import flags

from trainer.errors import Problem, UsageError
from trainer.runtime import app, text_tables, versions

BATCH_SIZE = flags.DEFINE_integer("batch_size", 16, "The number of texts in a step.", lower_bound=1)
SEQ_LENGTH = flags.DEFINE_integer("seq_length", 64, "The number of tokens of each text.", lower_bound=1)
ROUNDS = flags.DEFINE_integer("rounds", 20, "The number of steps to measure of each.", lower_bound=1)


def main(argv: list[str]) -> None:
    names = argv[1:]
    if not names or (unknown := [name for name in names if name.startswith("--")]):
        received = ", ".join(unknown) if names else "none"
        raise UsageError(Problem("ENCODER", "name at least one encoder, behind known flags", received, "Try --help."))
    versions.check_installation()
    from trainer.encoder_check import measuring

    rows = [list(measuring.COLUMNS)]
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            check = measuring.check_encoder(
                measuring.resolve_encoder(name, folder),
                batch_size=BATCH_SIZE.value,
                seq_length=SEQ_LENGTH.value,
                rounds=ROUNDS.value,
            )
        rows.append(check.cells())
        if check.reason:
            print(f"{name} cannot be rebuilt, since {check.reason}.", flush=True)
    print(text_tables.align_columns(rows))


if __name__ == "__main__":
    app.run(main, __doc__)

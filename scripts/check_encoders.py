"""Rebuild encoders natively, and measure how far their outputs are from the original's, and how long a step takes.

  python scripts/check_encoders.py ENCODER ...

Each ENCODER is what --encoder of a job may be (a name, a URL, a folder), or random:PRESET. The table has milliseconds
a train step: the median of steps that are measured in turn, through hub.KerasLayer and natively.
"""

import tempfile

from absl import flags

from trainer.errors import Problem, UsageError
from trainer.runtime import app, text_tables, versions

BATCH_SIZE = flags.DEFINE_integer("batch_size", 16, "Train on this number of texts in a step.", lower_bound=1)
SEQ_LENGTH = flags.DEFINE_integer("seq_length", 64, "Give each text this number of tokens.", lower_bound=1)
ROUNDS = flags.DEFINE_integer("rounds", 20, "Measure this number of steps of each.", lower_bound=1)


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

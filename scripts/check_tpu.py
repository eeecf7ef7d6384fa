"""Compile the project's train and evaluation steps for TPUs, on a machine without one.

Both steps of each encoder are traced by a TPUStrategy, lowered by TensorFlow for the platform TPU and compiled
by Google's TPU compiler. Nothing runs: this says what a TPU would be given, not what it would compute.

  make tpu-check                             the tiny encoder on every topology
  python scripts/check_tpu.py --largest      also the largest batch that fits, by compiling

--encoders takes tiny, bert_base, bert_large, and the tutorials' names that end in sizes, such as
small_bert/bert_en_uncased_L-4_H-512_A-8.
"""

from absl import flags

from trainer import errors
from trainer.runtime import app
from trainer.tpu_check import compiler, estimate

ENCODERS = flags.DEFINE_list("encoders", ["tiny"], "whose steps")
TOPOLOGIES = flags.DEFINE_list("topologies", list(compiler.TOPOLOGIES), "for which hosts")
SEQ_LENGTH = flags.DEFINE_multi_integer("seq_length", [128], "tokens, padding included; may be given more than once")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 32, "texts of one replica", lower_bound=1)
ACCUMULATION = flags.DEFINE_integer("accumulation_steps", 1, "parts that they are computed in", lower_bound=1)
LARGEST = flags.DEFINE_bool("largest", False, "find the largest batch that fits, too")
WITHIN = flags.DEFINE_float("within", 0.1, "share of that batch that may be left open: 1 only doubles", lower_bound=0)

COLUMNS = "encoder", "topology", "tokens", "replicas", "batch", "global batch"
FIGURES = "TFLOPs a step", "GB accessed", "HBM used, GB", "HBM free, GB", "all-reduces", "programs"


def main(argv: list[str]) -> None:
    app.reject_positional_arguments(argv)
    unknown = [name for name in TOPOLOGIES.value if name not in compiler.TOPOLOGIES]
    if unknown:
        raise errors.UsageError(
            f"--topologies must be of {', '.join(compiler.TOPOLOGIES)}. Received: {', '.join(unknown)}."
        )
    if BATCH_SIZE.value % ACCUMULATION.value or (LARGEST.value and estimate.MULTIPLE % ACCUMULATION.value):
        raise errors.UsageError(
            f"--accumulation_steps must divide --batch_size, and {estimate.MULTIPLE} with --largest. "
            f"Received: {ACCUMULATION.value}."
        )
    settings = BATCH_SIZE.value, ACCUMULATION.value
    cases = [
        (estimate.Job(encoder, compiler.TOPOLOGIES[topology].replicas, length, *settings), topology)
        for length in SEQ_LENGTH.value
        for encoder in ENCODERS.value
        for topology in TOPOLOGIES.value
    ]
    with estimate.workers() as at:
        print(estimate.heading([*COLUMNS, *FIGURES]), flush=True)
        for job, topology in cases:
            fit = estimate.fit(at, job, topology)
            print(estimate.line(estimate.row(job, topology) + estimate.figures(fit)), flush=True)
        if LARGEST.value:
            print(f"\nThe largest batch that fits, for each replica and in all\n\n{estimate.heading(COLUMNS)}")
            for job, topology in cases:
                print(
                    estimate.line(estimate.row(estimate.largest(at, job, topology, WITHIN.value), topology)),
                    flush=True,
                )


if __name__ == "__main__":
    app.run(main, __doc__)

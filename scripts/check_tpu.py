"""Compile the project's train and evaluation steps for TPUs, on a machine without one.

A TPUStrategy traces both steps of each encoder, TensorFlow lowers them for the platform TPU, and Google's TPU compiler
compiles them. Nothing runs: this shows which programs a TPU would get, not what they would compute.

Examples:
  make tpu-check                            # the tiny encoder on every topology
  python scripts/check_tpu.py --largest     # also the largest batch that fits, found by compiling
"""

from absl import flags

from trainer.errors import Problem, UsageError
from trainer.runtime import app
from trainer.tpu_check import compiler, estimate

ENCODERS = flags.DEFINE_list(
    "encoders",
    ["tiny"],
    "The encoders: tiny, tiny_albert, tiny_talking_heads, bert_base, bert_large, or the tutorials' names that end in "
    "sizes, such as small_bert/bert_en_uncased_L-4_H-512_A-8.",
)
TOPOLOGIES = flags.DEFINE_list(
    "topologies", list(compiler.TOPOLOGIES), "The TPUs to compile for, of one host or several."
)
SEQ_LENGTH = flags.DEFINE_multi_integer("seq_length", [128], "The number of tokens that texts are padded to.")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 32, "The number of texts of each replica.", lower_bound=1)
ACCUMULATION_STEPS = flags.DEFINE_integer(
    "accumulation_steps", 1, "The number of micro-batches of a replica's batch.", lower_bound=1
)
MAX_WINDOWS = flags.DEFINE_integer(
    "max_windows", 1, "The number of windows of each text, as with --data.truncation=windows.", lower_bound=1
)
LARGEST = flags.DEFINE_bool("largest", False, "Also search for the largest batch that fits.")
WITHIN = flags.DEFINE_float(
    "within",
    0.1,
    "The share of the largest batch to within which --largest finds it. With 1, batches are only doubled.",
    lower_bound=0,
)


def check_flags() -> None:
    """Raises UsageError with every problem of the flags."""
    problems = []
    unknown = [name for name in TOPOLOGIES.value if name not in compiler.TOPOLOGIES]
    if unknown:
        problems.append(Problem("--topologies", f"be of {', '.join(compiler.TOPOLOGIES)}", ", ".join(unknown)))
    multiple, parts = estimate.BATCH_SIZE_MULTIPLE, ACCUMULATION_STEPS.value
    if BATCH_SIZE.value % parts or (LARGEST.value and multiple % parts):
        required = f"divide --batch_size, and {multiple} with --largest"
        problems.append(Problem("--accumulation_steps", required, f"{parts} with --batch_size={BATCH_SIZE.value}"))
    if problems:
        raise UsageError(*problems)


def main(argv: list[str]) -> None:
    app.reject_arguments(argv)
    check_flags()
    sizes = BATCH_SIZE.value, ACCUMULATION_STEPS.value, MAX_WINDOWS.value
    cases = [
        (estimate.CompileCase(encoder, compiler.TOPOLOGIES[topology].replicas, length, *sizes), topology)
        for length in SEQ_LENGTH.value
        for encoder in ENCODERS.value
        for topology in TOPOLOGIES.value
    ]
    with estimate.start_toolchain() as toolchain:
        print(estimate.format_heading([*estimate.CASE_COLUMNS, *estimate.ESTIMATE_COLUMNS]), flush=True)
        for case, topology in cases:
            cells = estimate.estimate_cells(estimate.estimate_case(toolchain, case, topology))
            print(estimate.format_row([*estimate.case_cells(case, topology), *cells]), flush=True)
        if LARGEST.value:
            print("\nThe largest batch that fits, for each replica and for all of them\n")
            print(estimate.format_heading(estimate.CASE_COLUMNS), flush=True)
            for case, topology in cases:
                largest = estimate.find_largest_case(toolchain, case, topology, WITHIN.value)
                print(estimate.format_row(estimate.case_cells(largest, topology)), flush=True)


if __name__ == "__main__":
    app.run(main, __doc__)

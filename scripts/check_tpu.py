"""Compile the project's train and evaluation steps for TPUs, on a machine without one.

A TPUStrategy traces both steps of each encoder, TensorFlow lowers them for the platform TPU, and Google's TPU compiler
compiles them. Nothing runs: this shows which programs a TPU would get, not what they would compute.

Examples:
  make tpu-check                            # the tiny encoder on every topology, and its padding
  python scripts/check_tpu.py --largest     # also the largest batch that fits, found by compiling
"""

from collections.abc import Sequence

from absl import flags

from trainer.data import widths
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
SEQ_LENGTH = flags.DEFINE_multi_integer(
    "seq_length", [128], "The most tokens of a text. Every width that batches of such texts may have is compiled."
)
PAD_MULTIPLE = flags.DEFINE_integer(
    "pad_multiple",
    16,
    "What data.pad_multiple is for a run. With the value of --seq_length there is one width.",
    lower_bound=1,
)
BATCH_SIZE = flags.DEFINE_integer("batch_size", 32, "The number of texts of each replica.", lower_bound=1)
ACCUMULATION_STEPS = flags.DEFINE_integer(
    "accumulation_steps", 1, "The number of micro-batches of a replica's batch.", lower_bound=1
)
MAX_WINDOWS = flags.DEFINE_integer(
    "max_windows", 1, "The number of windows of each text, as with --data.truncation=windows.", lower_bound=1
)
DATA_SETS = flags.DEFINE_list(
    "data_sets",
    list(estimate.DATA_SETS),
    "The data sets for which the cost of padding is printed, on the first topology. May be empty.",
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
    unknown = [name for name in DATA_SETS.value if name not in estimate.DATA_SETS]
    if unknown:
        problems.append(Problem("--data_sets", f"be of {', '.join(estimate.DATA_SETS)}", ", ".join(unknown)))
    multiple, parts = estimate.BATCH_SIZE_MULTIPLE, ACCUMULATION_STEPS.value
    if BATCH_SIZE.value % parts or (LARGEST.value and multiple % parts):
        required = f"divide --batch_size, and {multiple} with --largest"
        problems.append(Problem("--accumulation_steps", required, f"{parts} with --batch_size={BATCH_SIZE.value}"))
    if problems:
        raise UsageError(*problems)


def list_widths(seq_length: int) -> tuple[int, ...]:
    """The widths of a TPU's batches, of texts in windows one: the largest first, which fails if any does."""
    if MAX_WINDOWS.value > 1:
        return (seq_length,)
    return widths.list_widths(seq_length, widths.coarse_pad_multiple(seq_length, PAD_MULTIPLE.value))[::-1]


def list_cases(lengths: Sequence[int], topologies: Sequence[str]) -> list[tuple[estimate.CompileCase, str]]:
    """A case for each length, encoder and topology, which is beside it."""
    sizes = BATCH_SIZE.value, ACCUMULATION_STEPS.value, MAX_WINDOWS.value
    return [
        (estimate.CompileCase(encoder, compiler.TOPOLOGIES[topology].replicas, length, *sizes), topology)
        for length in lengths
        for encoder in ENCODERS.value
        for topology in topologies
    ]


def print_programs(toolchain: estimate.Toolchain) -> None:
    print(estimate.format_heading([*estimate.CASE_COLUMNS, *estimate.ESTIMATE_COLUMNS]), flush=True)
    lengths = [width for length in SEQ_LENGTH.value for width in list_widths(length)]
    for case, topology in list_cases(lengths, TOPOLOGIES.value):
        cells = estimate.estimate_cells(estimate.estimate_case(toolchain, case, topology))
        print(estimate.format_row([*estimate.case_cells(case, topology), *cells]), flush=True)


def print_padding(toolchain: estimate.Toolchain) -> None:
    print("\nWhat a train step computes for each token that is no padding\n")
    print(estimate.format_heading([*estimate.CASE_COLUMNS, *estimate.PADDING_COLUMNS]), flush=True)
    for name in DATA_SETS.value:
        for case, topology in list_cases([estimate.DATA_SETS[name]], TOPOLOGIES.value[:1]):
            cost = estimate.estimate_padding(toolchain, case, topology, name, PAD_MULTIPLE.value)
            cells = [*estimate.case_cells(case, topology), *estimate.padding_cells(name, case, cost)]
            print(estimate.format_row(cells), flush=True)


def print_largest(toolchain: estimate.Toolchain) -> None:
    print("\nThe largest batch that fits, for each replica and for all of them\n")
    print(estimate.format_heading(estimate.CASE_COLUMNS), flush=True)
    for case, topology in list_cases(SEQ_LENGTH.value, TOPOLOGIES.value):
        largest = estimate.find_largest_case(toolchain, case, topology, WITHIN.value)
        print(estimate.format_row(estimate.case_cells(largest, topology)), flush=True)


def main(argv: list[str]) -> None:
    app.reject_arguments(argv)
    check_flags()
    with estimate.start_toolchain() as toolchain:
        print_programs(toolchain)
        if DATA_SETS.value and MAX_WINDOWS.value == 1:
            print_padding(toolchain)
        if LARGEST.value:
            print_largest(toolchain)


if __name__ == "__main__":
    app.run(main, __doc__)

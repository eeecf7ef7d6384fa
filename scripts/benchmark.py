"""Measure HubTune on this machine as its users run it, and with --peers Hugging Face's Trainer in turn with it.

Examples:
  make bench                                        # the rows of --rows' default: 10 minutes
  make peers IMDB=aclImdb_v1.tar.gz                 # all rows, with the peer: hours
  python scripts/benchmark.py --rows=step,length    # some of them
  python scripts/benchmark.py --table               # the results as a table in Markdown

The same command again continues: what is in --output is not measured again. --output gets JSON with every sample,
medians, spreads and the name of the processor, and a chart beside it (.png). docs/benchmarks.md describes the rows.
"""

import os
from pathlib import Path

from absl import flags

from trainer.benchmarks.inputs import QUICK, ROOT, Inputs, Settings, Sizes
from trainer.benchmarks.results import ALL_ROWS, Results, describe_machine, format_table, open_results, read_results
from trainer.distributed import processor
from trainer.errors import Problem, UserError
from trainer.runtime import app, signals, versions
from trainer.storage import preflight
from trainer.storage.preflight import PathUse

PEER_PYTHON = ROOT / ".venv-peers/bin/python"
DEFAULT_ROWS = [name for name, row in ALL_ROWS.items() if row.in_default]

ROWS = flags.DEFINE_list(
    "rows", DEFAULT_ROWS, f"The rows to measure, in this order: all, or some of {', '.join(ALL_ROWS)}."
)
PEERS = flags.DEFINE_bool("peers", False, "Also measure the peer, which `make peers` installs.")
REPETITIONS = flags.DEFINE_integer(
    "repetitions", 3, "The number of times that each contender is measured, in turn.", lower_bound=1
)
OUTPUT = flags.DEFINE_string("output", "results/benchmark.json", "The local .json file of the results.")
ENCODER = flags.DEFINE_string("encoder", "minilm", "The encoder, as --source of scripts/import_encoder.py.")
IMDB = flags.DEFINE_string(
    "imdb", None, "The archive or folder of IMDB. Without it, the rows that need it are left out."
)
WORK = flags.DEFINE_string("work", "runs/benchmark", "The folder in which encoders, data sets and exports are kept.")
QUICK_SIZES = flags.DEFINE_bool("quick", False, "Use tiny sizes, for a test. The results mean nothing.")
TABLE = flags.DEFINE_bool("table", False, "Print the results in --output as a table, and measure nothing.")


def check_flags() -> list[str]:
    """The names of the rows. Raises UsageError with every problem of the flags."""
    problems = app.normalize_path_flags("output", "work", "imdb")
    names = list(ALL_ROWS) if ROWS.value == ["all"] else list(dict.fromkeys(ROWS.value))
    if unknown := [name for name in names if name not in ALL_ROWS]:
        problems.append(Problem("--rows", f"be all, or of {', '.join(ALL_ROWS)}", ", ".join(unknown)))
    if not OUTPUT.value.endswith(".json"):
        problems.append(Problem("--output", "be a .json file", OUTPUT.value))
    if PEERS.value and not PEER_PYTHON.exists():
        problems.append(Problem("--peers", "have its packages", f"no {PEER_PYTHON}", "Run `make peers` once."))
    paths = [PathUse("--imdb", IMDB.value), PathUse("--work", WORK.value, writes=True)]
    preflight.check_paths([*paths, PathUse("--output", OUTPUT.value, writes=True, is_file=True)], problems=problems)
    return names


def available_rows(names: list[str]) -> list[str]:
    """Those whose data are here. The others are named."""
    missing = [name for name in names if ALL_ROWS[name].needs_imdb and not (IMDB.value or QUICK_SIZES.value)]
    if missing:
        print(f"left out without --imdb: {', '.join(missing)}")
    return [name for name in names if name not in missing]


def report(results: Results) -> None:
    from trainer.benchmarks import chart

    picture = f"{os.path.splitext(OUTPUT.value)[0]}.png"
    chart.draw_results(results, picture)
    print(f"{format_table(results)}\n\n{OUTPUT.value} and {picture} written")


def main(argv: list[str]) -> None:
    app.reject_arguments(argv)
    if TABLE.value:
        print(format_table(read_results(OUTPUT.value)))
        return
    versions.check_installation()
    names = available_rows(check_flags())
    settings = Settings(
        encoder=ENCODER.value,
        work=Path(WORK.value).absolute(),
        imdb=os.path.abspath(IMDB.value) if IMDB.value else None,
        peer_python=PEER_PYTHON if PEERS.value else None,
        precision="bfloat16" if processor.describe_processor().has_bfloat16 else "float32",
        sizes=QUICK if QUICK_SIZES.value else Sizes(),
    )
    results = open_results(OUTPUT.value, settings.fingerprint(), describe_machine())
    from trainer.benchmarks import running

    with signals.watch_signals() as request:
        problems = running.run_rows(names, Inputs(settings, request), REPETITIONS.value, results)
    results.write()
    report(results)
    if problems:
        raise UserError(*problems)


if __name__ == "__main__":
    app.run(main, __doc__)

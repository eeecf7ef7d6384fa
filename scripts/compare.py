"""Compare finished runs on the same test texts: settings, metrics, and whether a difference may be chance.

Examples:
  python scripts/compare.py runs/first runs/second
  python scripts/compare.py runs/first runs/second runs/third --output=compare.html

Each run is compared with the first. A difference has a 95 % interval by the paired bootstrap, and for classes McNemar's
exact test. --output writes the comparison as a page, with the texts on which the runs differ most.
"""

from absl import flags

from trainer.errors import Problem
from trainer.runtime import app, versions
from trainer.storage import fs, paths, preflight
from trainer.storage.preflight import PathUse

OUTPUT = flags.DEFINE_string("output", None, "The .html file to write, local or gs://.")
RESAMPLES = flags.DEFINE_integer("resamples", 2000, "The number of resamples of the bootstrap.", 1000, 1_000_000)


def main(argv: list[str]) -> None:
    problems = app.find_argument_problems(argv, texts=True)
    problems += app.normalize_path_flags("output")
    model_dirs = [paths.normalize_path("RUN", each, problems) for each in app.text_arguments(argv)]
    if len(set(model_dirs)) < max(2, len(model_dirs)):
        received = ", ".join(model_dirs) or "none"
        problems.append(Problem("RUN RUN ...", "name two runs or more by their model_dirs, each once", received))
    uses = [PathUse("RUN", each) for each in model_dirs]
    preflight.check_paths([*uses, PathUse("--output", OUTPUT.value, writes=True, is_file=True)], problems=problems)
    versions.check_installation()
    from trainer.comparison import compared_runs, comparing, page  # These import TensorFlow, which --help does without.

    comparison = comparing.compare_runs(compared_runs.read_runs(model_dirs), RESAMPLES.value)
    print(comparing.format_comparison(comparison))
    if OUTPUT.value:
        fs.write_text(OUTPUT.value, page.render_page(comparison))
        print(f"\n{OUTPUT.value} written")


if __name__ == "__main__":
    app.run(main, __doc__)

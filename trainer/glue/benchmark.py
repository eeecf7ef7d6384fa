"""The whole of scripts/glue.py: prepare, train, predict, and write the results."""

import dataclasses
from collections.abc import Sequence

from trainer.data import glue, tasks
from trainer.glue import dev_table, predictions, runs, submission, suite
from trainer.glue.runs import SuiteOptions
from trainer.runtime import signals
from trainer.runtime.signals import StopRequest
from trainer.storage import fs


@dataclasses.dataclass(frozen=True)
class Outcome:
    scores: list[dev_table.DevScore]
    results: str  # The path of results.json.
    submission: str  # The path of submission.zip.
    missing: list[str]  # The files that the submission lacks.


def run_benchmark(options: SuiteOptions, names: Sequence[str], seeds: Sequence[int], prepare_script: str) -> Outcome:
    """Run the tasks `names` with each seed, and write results.json and submission.zip.

    Raises UserError for files that cannot be read or a run that failed, and signals.Stopped after a signal: called
    again, it continues.
    """
    inputs = suite.read_submission_inputs(options.glue_dir, names)
    trained = [task for task in names if task != tasks.AX]
    with signals.watch_signals() as request:
        for task in trained:  # All of them first: a file that cannot be read is found before hours of training.
            runs.prepare_task(options, task, prepare_script, request)
        for task in trained:
            for seed in seeds:
                runs.train(options, task, seed, request)
        results = {task: {seed: runs.read_result(options, task, seed) for seed in seeds} for task in trained}
        best = {task: runs.best_seed(results[task]) for task in trained}
        mismatched = _score_mismatched(options, seeds, request) if "mnli" in trained else {}
        files = _predict_files(options, names, best, inputs, request)
    scores = dev_table.collect_scores(results, mismatched)
    summary = {"encoder": options.encoder, "best_seed": best, "dev": [dataclasses.asdict(each) for each in scores]}
    outcome = Outcome(
        scores,
        fs.join(options.output, dev_table.RESULTS_FILE),
        fs.join(options.output, submission.SUBMISSION_FILE),
        submission.missing_files(files),
    )
    fs.write_json(outcome.results, summary)
    submission.write_submission(outcome.submission, files)
    return outcome


def _score_mismatched(options: SuiteOptions, seeds: Sequence[int], request: StopRequest) -> dict[int, float]:
    folders = {seed: runs.run_folder(options, "mnli", seed) for seed in seeds}
    return {
        seed: predictions.mismatched_accuracy(folder, options.glue_dir, request) for seed, folder in folders.items()
    }


def _predict_files(
    options: SuiteOptions,
    names: Sequence[str],
    best: dict[str, int],
    inputs: dict[str, glue.Unlabeled],
    request: StopRequest,
) -> dict[str, str]:
    """The contents of the submission's files by name, of the run that is best on validation."""
    files = {}
    for task in names:
        model = "mnli" if task == tasks.AX else task
        folder = runs.run_folder(options, model, best[model])
        for name in glue.LAYOUTS[task].unlabeled:
            predicted = predictions.predict(folder, name, inputs[name].texts, request)
            labels = predictions.submission_labels(task, predicted)
            files[name] = submission.format_predictions(inputs[name].indexes, labels)
    return files

"""SUITE: what is particular about each task of GLUE: its metrics, its settings, and published figures.

The metrics are those of Table 1 of Wang et al., "GLUE", ICLR 2019. Published figures are of BERT-base:
- dev: Hugging Face transformers, examples/pytorch/text-classification/README.md: bert-base-cased, one seed, 128 tokens,
  batches of 32, a learning rate of 2e-5, 3 epochs (MRPC and WNLI 5).
- test: Devlin et al., "BERT", NAACL 2019, Table 1, scored by GLUE's server: BERT-base, the best of several learning
  rates on dev, 3 epochs; F1 for QQP and MRPC, Spearman's correlation for STS-B.
"""

import dataclasses
from collections.abc import Sequence

from trainer.data import glue, tasks
from trainer.errors import Problem, UserError


@dataclasses.dataclass(frozen=True)
class Figure:
    """A metric of a task, and what is published of it for BERT-base. None: not published there."""

    metric: str
    dev: float | None
    test: float | None
    mismatched: bool = False  # Of MNLI's dev_mismatched.


@dataclasses.dataclass(frozen=True)
class SuiteTask:
    figures: tuple[Figure, ...]
    best_metric: str = "accuracy"  # training.best_metric.
    epochs: int | None = None  # None: those of the preset.
    skips_bad_rows: bool = False  # Its train is known to have some.


SUITE = {
    "cola": SuiteTask((Figure("matthews", 0.5653, 0.521),), "matthews"),
    "sst2": SuiteTask((Figure("accuracy", 0.9232, 0.935),)),
    "mrpc": SuiteTask((Figure("f1", 0.8885, 0.889), Figure("accuracy", 0.8407, None)), "f1", epochs=5),
    "stsb": SuiteTask((Figure("pearson", 0.8864, None), Figure("spearman", 0.8848, 0.858)), "pearson"),
    "qqp": SuiteTask((Figure("f1", 0.8749, 0.712), Figure("accuracy", 0.9071, None)), "f1", skips_bad_rows=True),
    "mnli": SuiteTask((Figure("accuracy", 0.8391, 0.846), Figure("accuracy", 0.8410, 0.834, mismatched=True))),
    "qnli": SuiteTask((Figure("accuracy", 0.9066, 0.905),)),
    "rte": SuiteTask((Figure("accuracy", 0.6570, 0.664),)),
    "wnli": SuiteTask((Figure("accuracy", 0.5634, None),), epochs=5),
    # Predicted with the model of mnli.
    tasks.AX: SuiteTask(()),
}

# The files of a submission, in the order of SUITE: https://gluebenchmark.com/faq
SUBMISSION_FILES = tuple(name for task in SUITE for name in glue.LAYOUTS[task].unlabeled)


def find_task_problems(names: Sequence[str]) -> list[Problem]:
    """What is wrong with the names of tasks to run. A problem's setting is the flag --tasks."""
    problems = []
    if unknown := [name for name in names if name not in SUITE]:
        problems.append(Problem("--tasks", f"be among {', '.join(SUITE)}", ", ".join(unknown)))
    if not names or len(set(names)) < len(names):
        problems.append(Problem("--tasks", "name each task once", ",".join(names) or "none"))
    if tasks.AX in names and "mnli" not in names:
        problems.append(Problem("--tasks", f"have mnli too, whose model predicts {tasks.AX}", ",".join(names)))
    return problems


def read_submission_inputs(glue_dir: str, names: Sequence[str]) -> dict[str, glue.Unlabeled]:
    """The rows to predict for each file of the submission, by its name. Raises UserError for all tasks at once."""
    inputs, problems = {}, []
    for task in names:
        for name in glue.LAYOUTS[task].unlabeled:
            try:
                inputs[name] = glue.read_unlabeled(glue_dir, task, name)
            except UserError as error:
                problems += [
                    dataclasses.replace(each, setting=each.setting.replace("--source", "--glue_dir"))
                    for each in error.problems
                ]
    if problems:
        raise UserError(*problems)
    return inputs

"""The report of a run: what it is made from is gathered here, at the end of the run or by --mode=report.

A run is finished before its report is begun: neither an error here nor a signal costs it, and --mode=report writes the
report later.
"""

import dataclasses
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trainer.data import batching, manifests, records, tokenization
from trainer.data.records import Columns
from trainer.distributed import remote_hosts, strategies
from trainer.evals import baseline
from trainer.evals.metrics import Predictions
from trainer.report import build, error_analysis, occlusion
from trainer.report.facts import ReportFacts
from trainer.runtime import signals
from trainer.storage import fs
from trainer.train import decisions, example_weights, run_files, runs
from trainer.train.decisions import Decision
from trainer.train.runs import Run

_LOG = logging.getLogger(__name__)

# Of a larger train, its first shards are looked at: the texts are in memory.
MAX_TRAIN_EXAMPLES = 50_000


def write_at_end(
    run: Run,
    result: Mapping[str, Any],
    test: Predictions,
    decision: Decision | None,
    request: signals.StopRequest,
    validation: Predictions | None = None,
) -> None:
    """Write the report of a run that has just finished. Never raises for what goes wrong: it warns.

    `validation` are the predictions of it, without a decision, if they have been computed. All workers take part in
    predicting it otherwise; the chief does the rest, which is less on several workers: nobody computes the words that
    mattered.
    """
    if not run.job.config.logging.report:
        return
    later = f"--mode=report --model_dir={run.files.root} writes it."
    try:
        # Every worker has to know: they predict together.
        missing = run.all_reduce_max({"missing": validation is None})["missing"]
        columns, failure = _try_to_read(run, predicts=bool(missing))
        if run.all_reduce_max({"failed": failure is not None})["failed"]:
            raise failure or RuntimeError("another worker could not read its data")
        if missing:
            validation = runs.predict_split(run, columns["validation"], "report", None, request)
        assert validation is not None
        validation = decisions.apply_decision(validation, decision)
        if run.chief:
            facts = gather_facts(run, result, columns, {"validation": validation, "test": test})
            write_report(run, facts, decision, request)
    except signals.Stopped:
        _LOG.warning("the report was left out, since the process was asked to stop. %s", later)
    except Exception as error:
        elsewhere = _worker_count(run) > 1 or remote_hosts.coordinator_device(run.job.strategy) is not None
        if elsewhere and isinstance(error, strategies.WORKER_LOST_ERRORS):
            raise  # The end of the process would wait for what is gone.
        _LOG.warning("the report could not be written (%s). %s", repr(error)[:500], later)


def _try_to_read(run: Run, *, predicts: bool) -> tuple[dict[str, Columns], Exception | None]:
    """(what this worker needs of the data set, why it could not be read). The chief alone needs test and the texts."""
    try:
        if run.chief:
            return read_columns(run), None
        return {"validation": runs.read_split(run, "validation")} if predicts else {}, None
    except Exception as error:
        return {}, error


def read_columns(run: Run) -> dict[str, Columns]:
    """Validation and test, with their texts."""
    return {split: runs.read_split(run, split, with_text=True) for split in ("validation", "test")}


def write_report(
    run: Run,
    facts: ReportFacts,
    decision: Decision | None,
    request: signals.StopRequest,
    *,
    cross_check: bool = False,
) -> list[str]:
    """Write the report's files, and return their paths. Raises signals.Stopped between two parts after a signal.

    `facts` are those of gather_facts; what takes long is added to them. With `cross_check`, train's labels are judged
    too, which have to be classes.
    """
    started = time.monotonic()

    def check_stop() -> None:
        signals.raise_if_requested(request, request.reason is not None)

    check_stop()
    facts = _add_baseline(run, facts, cross_check)
    check_stop()
    if facts.cross_checked:
        train = runs.predict_split(run, facts.columns["train"], "train", decision, request)
        facts = dataclasses.replace(facts, predictions={**facts.predictions, "train": train})
    if _worker_count(run) == 1:
        facts = dataclasses.replace(facts, occlusions=_find_occlusions(run, facts, decision, request))
    paths = []
    for name, content in build.build_files(facts, check_stop).items():
        paths.append(fs.join(run.files.root, name))
        fs.write_text(paths[-1], content)
    _LOG.info("report: %s, in %.0f s", paths[0], time.monotonic() - started)
    return paths


def _worker_count(run: Run) -> int:
    return strategies.worker_index_and_count(run.job.strategy)[1]


def gather_facts(
    run: Run, result: Mapping[str, Any], columns: Mapping[str, Columns], predictions: Mapping[str, Predictions]
) -> ReportFacts:
    """What the report says of the run, without what has to be computed for it.

    `columns` are those of read_columns, `predictions` the model's of the same splits.
    """
    job = run.job
    return ReportFacts(
        model_dir=run.files.root,
        export=run.files.export,
        command=run_files.repeat_command(job.config, run.files),
        settings=run_files.changed_settings(job.config),
        manifest=job.manifest,
        result=result,
        history=run.history.lines,
        metric=job.metric,
        positive=job.positive,
        scale=job.label_use.scale,
        rating_range=job.label_use.rating_range,
        readable_tokens=job.readable_tokens,
        columns={"train": _read_train(run), **columns},
        predictions=predictions,
    )


def _read_train(run: Run) -> Columns:
    """Train with its texts: its first shards, as many as have MAX_TRAIN_EXAMPLES together, but one at least."""
    manifest, examples = run.job.manifest, 0
    chosen: list[manifests.Shard] = []
    for shard in manifest.splits["train"].shards:
        if chosen and examples + shard.examples > MAX_TRAIN_EXAMPLES:
            break
        chosen.append(shard)
        examples += shard.examples
    return records.read_shards(run.job.config.data_dir, chosen, manifest, with_text=True)


def _add_baseline(run: Run, facts: ReportFacts, cross_check: bool) -> ReportFacts:
    """The facts with the bag of words on test; with `cross_check`, with its probabilities of each row that it has not
    seen. Without them, if train has nothing that it could learn.
    """
    job, columns = run.job, facts.columns
    train = example_weights.weigh_examples(columns["train"], job.class_weights)
    others = {split: columns[split] for split in ("test", *(["validation"] if cross_check else []))}
    try:
        found = baseline.predict_baseline(train, list(others.values()), facts.manifest, facts.scale)
        predictions = dict(zip(others, found, strict=True))
        checked = {split: each.scores for split, each in predictions.items()} if cross_check else {}
        if cross_check:
            checked["train"] = baseline.predict_out_of_fold(train, facts.manifest, job.config.seed)
    except ValueError as error:
        _LOG.warning("the report has no bag of words: %s", error)
        return facts
    return dataclasses.replace(facts, baseline=predictions["test"], cross_checked=checked)


def _find_occlusions(
    run: Run, facts: ReportFacts, decision: Decision | None, request: signals.StopRequest
) -> list[occlusion.Occlusion]:
    """Of test's worst errors, how much each word mattered. Of a truncation with several windows, none."""
    job, test = run.job, facts.columns["test"]
    known = facts.manifest.kind in ("classification", "regression")
    if not known or test.tokens_b or job.config.data.truncation not in tokenization.TRUNCATIONS:
        return []
    rows = error_analysis.worst_errors(facts.predictions["test"], by_class=facts.by_class)
    assert test.texts is not None
    spans = {int(row): occlusion.split_words(test.texts[row]) for row in rows}
    words = _tokenize_words(job.tokenizer, test.texts, spans)
    budget = job.config.data.seq_length - tokenization.special_token_count(1)
    # A text whose words have other tokens by themselves than together is left out.
    same = [row for row in spans if spans[row] and np.array_equal(np.concatenate(words[row]), test.tokens.row(row))]
    plans, tokens = {}, 0
    for row in same:
        plans[row] = occlusion.plan_variants(words[row], budget, job.config.data.truncation)
        tokens += sum(map(len, plans[row].rows))
        if tokens > occlusion.TOKENS_OF_ALL:
            break
    if not plans:
        return []
    variants = [tokens for plan in plans.values() for tokens in plan.rows]
    of_row = np.repeat(list(plans), [len(plan.rows) for plan in plans.values()])
    columns = dataclasses.replace(batching.select_rows(test, of_row), tokens=records.to_ragged(variants))
    predicted = runs.predict_split(run, columns, "words", decision, request)
    if facts.by_class:
        scores = predicted.scores[np.arange(len(of_row)), facts.predictions["test"].predicted[of_row]]
    else:
        scores = predicted.logits[:, 0]
    return [
        occlusion.describe_effects(row, test.texts[row], spans[row], plan, scores[of_row == row])
        for row, plan in plans.items()
    ]


def _tokenize_words(
    tokenizer: tokenization.Tokenizer, texts: Sequence[str], spans: Mapping[int, Sequence[tuple[int, int]]]
) -> dict[int, list[np.ndarray]]:
    """Row -> the tokens of each of its words, int32."""
    import tensorflow as tf

    words = [texts[row][start:end] for row, places in spans.items() for start, end in places]
    if not words:
        return {row: [] for row in spans}
    tokens = tokenizer.tokenize(tf.constant(words, tf.string))
    of_word = np.split(tokens.values.numpy().astype(np.int32), tokens.row_splits.numpy()[1:-1])
    ends = np.cumsum([len(places) for places in spans.values()])
    return {row: of_word[end - len(spans[row]) : end] for row, end in zip(spans, ends, strict=True)}

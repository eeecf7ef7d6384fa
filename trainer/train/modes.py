"""What --mode does: train, evaluate, report, export, inspect batches. Functions take values and return results."""

import contextlib
import dataclasses
import json
import logging
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from trainer.config.schema import Config
from trainer.data import batching
from trainer.distributed import cluster_config, remote_hosts, rendezvous, strategies
from trainer.errors import Problem, UsageError, UserError
from trainer.evals import baseline, metrics
from trainer.runtime import app, signals, trial
from trainer.storage import fs
from trainer.train import (
    builder,
    checkpoints,
    decisions,
    example_weights,
    loop,
    metric_sinks,
    profiling,
    run_data,
    run_exports,
    run_files,
    run_report,
    runs,
    sink_services,
    warm_start,
    workers,
)
from trainer.train.sessions import Session

_LOG = logging.getLogger(__name__)


def train(
    session: Session,
    cluster_timeout_s: float,
    stop_at_step: int | None = None,
    profiled: profiling.ProfiledSteps | None = None,
) -> dict[str, Any] | None:
    """Train, evaluate and export, unless the run is finished. Returns result.json's values, None if not the chief.

    Raises signals.Stopped, with a checkpoint written, after a signal, at `stop_at_step` or when another worker is lost;
    UsageError for a trial whose metric could not be written.
    """
    config, files, cluster = session.config, session.files, session.devices.cluster
    chief = not cluster or cluster.index == 0
    others = cluster if cluster and len(cluster.addresses) > 1 else None
    with contextlib.ExitStack() as stack:
        try:
            if chief:
                if problems := sink_services.find_missing_packages(builder.sink_targets(config)):
                    raise UsageError(*problems)
                trial.check_metric_file()
                stack.enter_context(fs.exclusive_lock(files.root))
            else:
                workers.refresh_folders(files)
            result = run_files.read_finished_result(config, files)
            start = warm_start.find_warm_start(files, config.init_from)
            signature: dict[str, Any] = {}
            if others and result is None:
                signature = builder.job_signature(config, start.parent if start else None)
                # Workers that leave the device at other steps would wait for each other.
                signature |= {"--stop_at_step": stop_at_step, "--profile": str(profiled)}
        except (ValueError, OSError) as error:
            rendezvous.tell_problem(cluster, error, cluster_timeout_s)
            raise
        if others and result is None:
            result = _meet_workers(session, others, signature, cluster_timeout_s)
        if result is None:
            result = _train_to_the_end(session, start, stop_at_step, profiled)
        else:
            _LOG.info("%s holds this run, finished: nothing to do.", files.root)
            if chief:
                run_files.warn_without_export(files)
        return result if chief else None


def _meet_workers(
    session: Session, cluster: cluster_config.Cluster, signature: dict[str, Any], timeout_s: float
) -> dict[str, Any] | None:
    """Meet the other workers of this job. Returns the result of a run that is finished, whose others are gone.

    Raises UserError if they do not come, or have another job.
    """
    try:
        workers.meet_workers(cluster, session.files, signature, timeout_s)
    except UserError:
        # A worker that is started again while the chief exports meets nobody: the run is finished by then.
        result = run_files.read_finished_result(session.config, session.files)
        if result is None:
            raise
        return result
    return None


def _train_to_the_end(
    session: Session,
    start: warm_start.WarmStart | None,
    stop_at_step: int | None,
    profiled: profiling.ProfiledSteps | None,
) -> dict[str, Any]:
    choice = strategies.build_strategy(session.strategy, session.devices)
    _LOG.info("strategy: %s", choice.description)
    _watch_remote_hosts(choice.strategy)
    with _lost_hosts_stop(choice.strategy):
        manifest = builder.read_job_manifest(session.config)
        started = run_files.read_label_use(session.files, manifest)
        config = run_files.keep_resolved(session.config, session.files)
        job = builder.build_job(config, choice.strategy, started)
        if start:
            job = warm_start.start_from_parent(job, start)
        run_files.write_run_identity(job, session.files)
        run = runs.open_run(job, session.files, session.started)
        runs.check_scratch_space(run)
        with (
            signals.watch_signals(at_once=session.of_command) as request,
            checkpoints.background_saves_finished(run.checkpoints),
            _lost_hosts_stop(choice.strategy),
        ):
            result: dict[str, Any] = {}
            try:
                result = loop.train_and_evaluate(run, request, stop_at_step, profiled)
            finally:
                metric_sinks.close_sinks(run.sinks, run.history.lines, result)
            return result


def _watch_remote_hosts(strategy: tf.distribute.Strategy) -> None:
    if remote_hosts.coordinator_device(strategy) is not None:
        app.skip_exit_handlers()
        remote_hosts.watch_hosts(strategy, _stop_for_lost_host)


def _stop_for_lost_host(reason: str) -> None:
    advice = "Run the same command again to resume from the newest checkpoint."
    app.stop_at_once(f"stopped: a host of the TPU is gone ({reason}). {advice}")


@contextlib.contextmanager
def _lost_hosts_stop(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """Raises signals.Stopped if what the block raises is what TensorFlow raises when another worker is gone.

    If it is a host of a remote TPU, the process ends here, with the code of a stop.
    """
    remote = remote_hosts.coordinator_device(strategy) is not None
    _, workers = strategies.worker_index_and_count(strategy)
    try:
        yield
    except strategies.WORKER_LOST_ERRORS as error:
        if workers == 1 and not remote:
            raise
        lines = [line.strip() for line in str(error).splitlines() if not line.endswith(":")]
        reason = next((line for line in lines if "root error(s)" not in line), type(error).__name__)[:200]
        if remote:  # A save in the background would wait for the host without end.
            _stop_for_lost_host(reason)
        app.skip_exit_handlers()
        advice = "Run the same command again on every worker to resume from the newest checkpoint."
        raise signals.Stopped(f"stopped: another worker is gone ({reason}). {advice}") from None


@dataclasses.dataclass(frozen=True)
class RestoredRun:
    """A run with its best weights by validation."""

    run: runs.Run
    step: int  # Of the weights.
    own: run_data.OwnData | None  # Its own data, if the session's is other data.


def restore_best(session: Session) -> RestoredRun:
    """The run in the session's model_dir. Raises UserError if there is none, or if it has not evaluated yet."""
    config, files = session.config, session.files
    manifest = builder.read_job_manifest(config)
    own = run_data.compare_data(files, config.data_dir, manifest)
    strategy = strategies.build_strategy(session.strategy, session.devices).strategy
    _watch_remote_hosts(strategy)
    started = run_files.read_label_use(files, manifest, of_best=True)
    with _lost_hosts_stop(strategy):
        job = builder.build_job(config, strategy, started)
    trained_from = run_files.read_identity(files).get("encoder_sha256")
    if trained_from not in (None, job.encoder.sha256):  # Its activation may be another one: no shape tells.
        _LOG.warning("--encoder=%s is another one than that of the run in --model_dir %s.", config.encoder, files.root)
    with _lost_hosts_stop(strategy):
        run = runs.open_run(job, files, session.started)
        step = runs.restore_best(run)
    if step is None:
        received = f"{files.root}, which has no best checkpoint yet"
        raise UserError(Problem("--model_dir", "hold a run that has evaluated", received))
    return RestoredRun(run, step, own)


def find_decision(restored: RestoredRun, request: signals.StopRequest) -> decisions.Decision | None:
    """The decision that the run keeps. None if there is none, and it needs none.

    Raises UserError if it is needed, there is none, and the session's data are not the run's own.
    """
    run, training = restored.run, restored.run.job.config.training
    kept = decisions.read_decision(run.files.decision, restored.step)
    needed = training.calibrate or training.threshold_metric or run.job.manifest.kind == "multi_label"
    if kept or not needed:
        return kept
    if restored.own is not None:
        required = "be the run's own data, whose validation its threshold and its temperature are fitted on"
        raise UserError(Problem("--data_dir", required, run.job.config.data_dir))
    return runs.load_decision(run, restored.step, request)


@dataclasses.dataclass(frozen=True)
class Evaluation:
    rows: list[tuple[str, dict[str, float]]]  # A model's name and its metrics.
    classes: dict[str, Any]  # What run_summary.format_classes shows of the run's model. Empty for regression.


def evaluate(session: Session, split: str, with_baseline: bool = False) -> Evaluation:
    """The metrics on a split of the best weights, then, if asked for, of a bag of words of the run's own train.

    Writes every example's id, label and scores to the session's file of predictions, if it has one.
    """
    restored = restore_best(session)
    run, own = restored.run, restored.own
    job = run.job
    columns = runs.read_split(run, split, with_text=own is not None or with_baseline)
    train = None
    if with_baseline:
        train = run_data.read_train(own) if own else runs.read_split(run, "train", with_text=True)
    if own is not None:
        _LOG.warning("%s", run_data.describe_overlap(own, columns, split))
    with _lost_hosts_stop(job.strategy), signals.watch_signals(at_once=session.of_command) as request:
        decision = find_decision(restored, request)
        predictions = runs.predict_split(run, columns, split, decision, request)
    if session.predictions:
        rows_of_examples = metrics.prediction_rows(predictions, job.manifest.labels)
        lines = (json.dumps(row) + "\n" for row in rows_of_examples)
        fs.write_text(session.predictions, "".join(lines))
    rows = [(job.encoder.name, runs.measure(run, predictions))]
    if train is not None:
        trained_on = (own and own.manifest) or job.manifest
        weights = example_weights.choose_class_weights(job.config.training.class_weights, trained_on)
        train = example_weights.weigh_examples(train, weights)
        (baseline_predictions,) = baseline.predict_baseline(train, [columns], job.manifest, job.label_use.scale)
        rows.append((baseline.BASELINE_NAME, runs.measure(run, baseline_predictions)))
    return Evaluation(rows, runs.describe_classes(run, predictions))


def report(session: Session, cross_check: bool = False) -> list[str]:
    """Write the report of a finished run. Returns the paths of its files. With `cross_check`, train's labels too.

    Raises UserError if the run is not finished, or if the session's data is not the run's; UsageError if its labels
    cannot be cross-checked.
    """
    files = session.files
    if cross_check and builder.read_job_manifest(session.config).kind != "classification":
        raise UsageError(Problem("--cross_check", "be left out, unless each text has one class", "on"))
    result = run_files.read_result(files)
    with fs.exclusive_lock(files.root), signals.watch_signals(at_once=session.of_command) as request:
        restored = restore_best(session)
        run = restored.run
        if restored.own is not None:
            raise UserError(Problem("--data_dir", "be the run's own data for --mode=report", session.config.data_dir))
        with _lost_hosts_stop(run.job.strategy):
            decision = find_decision(restored, request)
            columns = run_report.read_columns(run)
            predictions = {
                split: runs.predict_split(run, rows, split, decision, request) for split, rows in columns.items()
            }
            # A run from before these were kept.
            result.setdefault("test_classes", runs.describe_classes(run, predictions["test"]))
            facts = run_report.gather_facts(run, result, columns, predictions)
            return run_report.write_report(run, facts, decision, request, cross_check=cross_check)


def export(session: Session) -> float:
    """Export the best weights. Returns the largest difference between the export's scores and the job's."""
    with fs.exclusive_lock(session.files.root), signals.watch_signals(at_once=session.of_command) as request:
        restored = restore_best(session)
        with _lost_hosts_stop(restored.run.job.strategy):
            return run_exports.export_run(restored.run, find_decision(restored, request), request)


def inspect_batches(config: Config, checkpoint_folder: str | None, count: int) -> Iterator[dict[str, Any]]:
    """{"step", "ids"} of the next `count` global batches, from the newest checkpoint on. Starts nothing."""
    manifest = builder.read_job_manifest(config)
    builder.check_shards(config, manifest)
    plan = builder.plan_steps(config, manifest.splits["train"].examples)
    steps = checkpoints.list_steps(checkpoint_folder) if checkpoint_folder else []
    first = steps[-1] if steps else 0
    batches = batching.train_batches(
        config.data_dir, manifest, builder.shuffle_order(config), config.data.batch_size, first, plan.examples
    )
    for step, batch in zip(range(first + 1, first + 1 + count), batches, strict=False):
        yield {"step": step, "ids": batch.ids}

"""Exports of a run, with the weights that it has: the SavedModel that takes text, its encoder, and the classifier that
takes token ids.
"""

import contextlib
import dataclasses
from typing import Any

import numpy as np

from trainer.data import batching, manifests, model_inputs, records, tasks, tokenization
from trainer.encoders import native
from trainer.errors import Problem, UserError
from trainer.evals import evaluation
from trainer.evals.metrics import Predictions
from trainer.export import classifier_export, encoder_export, saved_model, token_classifier
from trainer.report import encoder_card
from trainer.runtime import signals
from trainer.storage import fs
from trainer.train import builder, run_files, runs, steps
from trainer.train.decisions import Decision
from trainer.train.runs import Run

# The number of texts whose scores and labels an export must reproduce.
PARITY_TEXTS = 100
MEASURED_SPLITS = ("validation", "test")


def export_run(
    run: Run, decision: Decision | None, request: signals.StopRequest, test: Predictions | None = None
) -> float:
    """Export the model, if the export scores texts of test as the job does. Returns the largest difference of a score.

    `test` are the predictions of test, with this decision, if they have been computed: they are what is compared then.
    All workers score otherwise. The chief alone writes.
    """
    job, config, scale = run.job, run.job.config, run.job.label_use.scale
    with saved_model.parity_process() if run.chief else contextlib.nullcontext() as fresh:
        sample = _read_first(run, "test", PARITY_TEXTS)
        predictions = test or runs.predict_split(run, _first_rows(sample), "export", decision, request)
        if fresh is None:
            return 0.0
        threshold = predictions.threshold
        module, signature = saved_model.build_serving_module(
            runs.update_eval_model(run),
            job.tokenizer,
            texts=job.manifest.texts,
            labels=job.manifest.labels,
            seq_length=config.data.seq_length,
            truncation=config.data.truncation,
            windows=job.layout.windows,
            window_pooling=config.model.window_pooling,
            scale=scale,
            temperature=predictions.temperature,
            threshold=(threshold.positive, threshold.score) if threshold else None,
            thresholds=predictions.label_thresholds,
        )
        return saved_model.write_saved_model(
            module,
            signature,
            run.files.export,
            _scored_texts(run, sample, predictions),
            fresh,
            io_device=run.checkpoints.io_device,
        )


def _scored_texts(run: Run, sample: records.Columns, predictions: Predictions) -> saved_model.ScoredTexts:
    """What the export has to compute: the first of the `predictions`, which are of the rows of `sample` and others."""
    job, scale = run.job, run.job.label_use.scale
    texts = [sample.texts] if sample.texts_b is None else [sample.texts, sample.texts_b]
    rows = list(zip(*(column[:PARITY_TEXTS] for column in texts if column), strict=True))
    count = len(rows)
    labels, margins = None, None
    if job.manifest.kind != "regression":
        labels, margins = predictions.predicted[:count], predictions.margins[:count]
        labels = labels if predictions.several_labels else np.array(job.manifest.labels)[labels]
    return saved_model.ScoredTexts(
        rows,
        predictions.scores[:count],
        labels,
        margins,
        saved_model.TOLERANCES[job.config.eval_precision],
        scale.deviation if scale else 1.0,
    )


def _read_first(run: Run, split: str, count: int) -> records.Columns:
    """The rows of a split's first shards, as many as have `count` rows together, with their texts."""
    manifest = run.job.manifest
    shards = manifest.splits[split].shards
    ends = np.cumsum([shard.examples for shard in shards])
    first = shards[: int(np.searchsorted(ends, count)) + 1]
    return records.read_shards(run.job.config.data_dir, first, manifest, with_text=True)


def _first_rows(columns: records.Columns) -> records.Columns:
    return batching.select_rows(columns, np.arange(min(PARITY_TEXTS, len(columns))))


def export_encoder(run: Run, output: str, format_name: str) -> float:
    """Write the encoder to the new folder `output`. `format_name` is a key of encoder_export.FORMATS.

    Returns the largest difference between its outputs and the run's. Raises UserError for a run that is not finished,
    or with other data than its own; and for an encoder that was not rebuilt natively, or that the format does not have.
    """
    job = run.job
    result = run_files.read_result(run.files)
    if run_files.read_identity(run.files).get("data_fingerprint") != job.manifest.fingerprint:
        required = "be the run's own data, which the model card is about"
        raise UserError(Problem("--data_dir", required, job.config.data_dir))
    card = encoder_card.write(job.manifest, result, format_name=format_name, readable_tokens=job.readable_tokens)
    return encoder_export.write_encoder(_trained_encoder(run), output, format_name, card)


def _trained_encoder(run: Run) -> encoder_export.TrainedEncoder:
    job = run.job
    architecture, name = job.encoder.architecture, job.encoder.name
    if architecture is None:
        required = "hold a run whose encoder was rebuilt natively"
        raise UserError(Problem("--model_dir", required, f"one of {name}, which trained through hub.KerasLayer"))
    return encoder_export.TrainedEncoder(
        name=name,
        encoder=encoder_export.build_trained_encoder(architecture, runs.update_eval_model(run).variables),
        architecture=architecture,
        preprocess=_preprocess_folder(run),
        vocabulary=_vocabulary(run),
        lower_case=job.manifest.vocabulary.lower_case,
    )


def _preprocess_folder(run: Run) -> str:
    return fs.join(run.job.config.data_dir, manifests.PREPROCESS_FOLDER)


def _vocabulary(run: Run) -> bytes:
    vocabulary = tokenization.read_vocabulary(_preprocess_folder(run))
    assert vocabulary is not None  # Preparation refuses a preprocessor without one.
    return vocabulary


def export_classifier(
    run: Run, decision: Decision | None, output: str, format_name: str, request: signals.StopRequest
) -> dict[str, Any]:
    """Write the classifier to the new folder `output`, in a format of classifier_export.FORMATS.

    It computes in float32, whatever the run evaluates in, and is compared with the run's weights in float32. Returns
    the contents of classifier.json. Raises UserError if it does not compute what they do, and signals.Stopped after a
    signal.
    """
    job, scale = run.job, run.job.label_use.scale
    sample = _first_rows(runs.read_split(run, "validation"))
    exact = _evaluate_in_float32(run)
    expected = runs.predict_split(exact, sample, "export", decision, request)
    parity = classifier_export.ParityTexts(
        inputs=_model_inputs(run, sample),
        logits=expected.logits,
        decide=lambda logits: dataclasses.replace(expected, logits=logits).predicted,
        unit=scale.deviation if scale else 1.0,
        has_labels=job.manifest.kind != "regression",
    )

    def measure(classify: token_classifier.Classify) -> dict[str, Any]:
        return {split: _measure_split(run, split, decision, classify, request) for split in MEASURED_SPLITS}

    return classifier_export.write_classifier(
        classifier_export.build_token_module(exact.job.eval_model, scale, rank=3 if job.layout.windows else 2),
        output,
        format_name,
        _describe_classifier(run, expected),
        _vocabulary(run),
        parity,
        measure,
    )


def _evaluate_in_float32(run: Run) -> Run:
    """The run, with a model that evaluates in float32."""
    job = run.job
    if job.config.eval_precision == "float32":
        return run
    with job.strategy.scope():
        model = builder.build_model(job.config, job.manifest, job.encoder, "float32")
    step = steps.build_eval_step(job.strategy, steps.build_replica_eval_step(model), job.static_widths)
    return dataclasses.replace(run, job=dataclasses.replace(job, build_eval_model=lambda: model), eval_step=step)


def _model_inputs(run: Run, columns: records.Columns) -> dict[str, np.ndarray]:
    """The model's inputs for all rows as one batch, in their order."""
    layout = dataclasses.replace(run.job.layout, batch_size=len(columns), replicas=1, micro_batches=1)
    batch = next(model_inputs.to_model_inputs(iter([columns]), run.job.manifest, layout).as_numpy_iterator())
    return {name: batch[name] for name in native.INPUT_NAMES}


def _measure_split(
    run: Run,
    split: str,
    decision: Decision | None,
    classify: token_classifier.Classify,
    request: signals.StopRequest,
) -> dict[str, Any]:
    """{"metric", "run", "export"}: the main metric of the run's model and of the export on a split."""
    job, columns = run.job, runs.read_split(run, split)
    of_run = runs.predict_split(run, columns, split, decision, request)

    def eval_step(batches: Any) -> tuple[np.ndarray, np.ndarray]:
        batch = next(batches)
        logits = classify({name: batch[name].numpy() for name in native.INPUT_NAMES})
        return logits, np.zeros(len(logits), np.float32)

    exported = evaluation.predict_rows(
        job.strategy,
        eval_step,
        columns,
        job.manifest,
        job.layout,
        name=f"{split}, exported",
        progress=job.config.logging.progress,
        after_batch=lambda: runs.stop_if_requested(run, request),
    )
    metric = tasks.MAIN_METRIC[job.manifest.kind]
    measured = (runs.measure(run, p) for p in (of_run, dataclasses.replace(of_run, logits=exported.logits)))
    before, after = (values.get(metric) for values in measured)
    return {"metric": metric, "examples": len(columns), "run": before, "export": after}


def _describe_classifier(run: Run, predictions: Predictions) -> dict[str, Any]:
    """What a program needs to use the classifier: how texts become inputs, and logits scores and labels."""
    job, manifest, windows = run.job, run.job.manifest, run.job.layout.windows
    shape = ["batch", "windows", "tokens"] if windows else ["batch", "tokens"]
    threshold, limits = predictions.threshold, predictions.label_thresholds
    return {
        "task": manifest.task,
        "kind": manifest.kind,
        "encoder": job.encoder.name,
        "labels": list(manifest.labels),
        "inputs": {name: {"dtype": "int32", "shape": shape} for name in native.INPUT_NAMES},
        "outputs": {token_classifier.OUTPUT: {"dtype": "float32", "shape": ["batch", manifest.classes or 1]}},
        "texts": manifest.texts,
        "seq_length": job.config.data.seq_length,
        "truncation": job.config.data.truncation,
        "windows": dataclasses.asdict(windows) if windows else None,
        "vocabulary": dataclasses.asdict(manifest.vocabulary),
        "scores": {"classification": "softmax", "multi_label": "sigmoid", "regression": "identity"}[manifest.kind],
        "temperature": predictions.temperature,
        "threshold": {"label": manifest.labels[threshold.positive], "score": threshold.score} if threshold else None,
        "label_thresholds": None if limits is None else dict(zip(manifest.labels, limits.tolist(), strict=True)),
    }

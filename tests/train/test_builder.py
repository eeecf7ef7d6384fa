import dataclasses
import hashlib
import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
from helpers import python

from trainer.config import loading, schema
from trainer.data import batching, manifests, records
from trainer.data.windows import Windows
from trainer.distributed import strategies
from trainer.encoders import native, recomputation, registry, saved_models
from trainer.errors import UsageError
from trainer.train import builder, one_pass_adamw, optimizers
from trainer.train.label_use import LabelUse


@pytest.mark.parametrize(
    ("overrides", "steps", "stream", "eval_every"),
    [
        ((), 24, 300, 8),  # 3 epochs of 100; an evaluation every 100 / 13, rounded up
        (("training.epochs=1",), 8, 100, 8),
        (("training.epochs=1.5",), 12, 150, 8),
        (("training.epochs=0.01",), 1, 1, 1),
        (("training.steps=5",), 5, 65, 5),  # an evaluation at the last step, as none is due earlier
        (("training.steps=50", "training.eval_every=20"), 50, 650, 20),
        (("training.epochs=2", "data.batch_size=100"), 2, 200, 1),
        (("training.epochs=2", "data.batch_size=1000"), 1, 200, 1),
    ],
)
def test_the_plan_counts_steps_and_examples(overrides, steps, stream, eval_every):
    plan = builder.plan_steps(loading.load_config(None, ["data.batch_size=13", *overrides]), 100)
    assert (plan.steps, plan.examples, plan.eval_every) == (steps, stream, eval_every)
    assert plan.examples_at(0) == 0
    assert plan.examples_at(steps) == stream
    assert plan.examples_at(steps - 1) == (steps - 1) * plan.batch_size < stream


def test_a_job_follows_its_configuration(job, tiny):
    assert job.plan == builder.StepPlan(steps=100, examples=1600, batch_size=16, eval_every=50)
    assert (job.layout.batch_size, job.layout.seq_length, job.layout.truncation, job.layout.padded_rows) == (
        16,
        24,
        "head_tail",
        16,
    )
    assert job.order == batching.ShuffleOrder(0, True, 1 << 18)
    assert job.metric == "accuracy"
    assert job.model.output_shape == (None, 2)
    assert job.eval_model is job.model
    assert len(job.optimizer.variables()) == 1 + 2 * len(job.model.trainable_variables)
    assert job.encoder.path == "native"
    assert job.encoder.sha256 == registry.saved_model_sha256(str(tiny / "encoder"))
    saved = native.variables_by_name(saved_models.load_saved_model(str(tiny / "encoder")).trainable_variables)
    built = native.variables_by_name(job.model.trainable_variables)
    assert set(built) == {*saved, "classifier/kernel", "classifier/bias"}
    assert all((built[name].numpy() == value.numpy()).all() for name, value in saved.items())


def test_a_job_with_windows_pools_their_logits(load):
    config = load("data.truncation=windows", "data.seq_length=16", "data.window_stride=10", "data.max_windows=3")
    job = builder.build_job(config, tf.distribute.OneDeviceStrategy("/cpu:0"))
    assert job.layout.windows == Windows(content=14, stride=10, most=3)
    assert set(job.model.input_shape.values()) == {(None, None, None)}
    assert job.model.output_shape == (None, 2)
    assert {"classifier/kernel", "classifier/bias"} < set(native.variables_by_name(job.model.trainable_variables))


def test_a_job_with_frozen_parts_keeps_no_moments_for_them(load):
    job = builder.build_job(load("model.freeze=layers:1"), tf.distribute.OneDeviceStrategy("/cpu:0"))
    names = set(native.variables_by_name(job.trained_variables))
    assert {name.split("/")[0] for name in names} == {"transformer", "pooler_transform", "classifier"}
    assert {name.split("/")[1] for name in names if name.startswith("transformer")} == {"layer_1"}
    assert len(job.optimizer.variables()) == 1 + 2 * len(names)
    assert len(job.model.trainable_variables) > len(names)


def test_windows_that_do_not_fit_the_data_are_refused(load, manifest, tmp_path):
    with pytest.raises(UsageError, match=r"data\.window_stride must .*14 tokens"):
        builder.read_job_manifest(load("data.truncation=windows", "data.seq_length=16", "data.window_stride=15"))
    manifests.write_manifest(str(tmp_path), dataclasses.replace(manifest, texts=2))
    pairs = (f"data_dir={tmp_path}", "data.truncation=head_tail")
    assert builder.read_job_manifest(load(*pairs)).texts == 2
    with pytest.raises(UsageError, match=r"data\.truncation must .*for pairs of texts"):
        builder.read_job_manifest(load(*pairs, "data.truncation=windows"))


def test_a_job_has_the_label_use_of_a_run_that_has_started(load, prepared):
    kept = LabelUse(None, "negative")
    job = builder.build_job(load(), tf.distribute.OneDeviceStrategy("/cpu:0"), kept)
    assert (job.label_use, job.positive) == (kept, 0)
    assert dataclasses.replace(job, label_use=LabelUse(None, None)).positive is None


def test_what_does_not_suit_the_labels_is_refused_before_the_encoder_loads(load):
    config = dataclasses.replace(load("data.positive_class=good", "training.best_metric=pearson"), encoder="missing")
    with pytest.raises(UsageError) as raised:
        builder.build_job(config, tf.distribute.OneDeviceStrategy("/cpu:0"))
    assert [p.setting for p in raised.value.problems] == ["data.positive_class", "training.best_metric"]


def test_a_bfloat16_job_evaluates_with_a_float32_model(load):
    job = builder.build_job(load("precision=bfloat16"), tf.distribute.OneDeviceStrategy("/cpu:0"))
    assert job.eval_model is not job.model
    for a, b in zip(job.model.variables, job.eval_model.variables, strict=True):
        assert a.dtype == tf.float32
        assert (a.numpy() == b.numpy()).all()


@pytest.mark.parametrize(("precision", "one_model"), [("float32", False), ("bfloat16", True)])
def test_a_job_may_evaluate_in_bfloat16(load, precision, one_model):
    config = load(f"precision={precision}", "eval_precision=bfloat16")
    job = builder.build_job(config, tf.distribute.OneDeviceStrategy("/cpu:0"))
    assert (job.eval_model is job.model) == one_model
    computes_in = {layer.compute_dtype for layer in job.eval_model._flatten_layers() if "encoder" in layer.name}
    assert computes_in == {"bfloat16"}
    assert job.eval_model.output.dtype == "float32"
    assert {variable.dtype for variable in job.eval_model.variables} == {tf.float32}


def test_a_task_other_than_the_data_sets_is_rejected(load, manifest):
    assert builder.read_job_manifest(load("task=csv")) == manifest
    with pytest.raises(UsageError, match=r"task must .*csv\. Received: imdb\."):
        builder.read_job_manifest(load("task=imdb"))


@pytest.mark.parametrize(
    ("examples", "replicas", "words"),
    [
        (100, 14, r"data\.batch_size must .*14\. Received: 13\."),
        (12, 13, r"training examples must .*13\. Received: 12\."),
    ],
)
def test_more_replicas_than_rows_are_rejected(examples, replicas, words):
    loaded = loading.load_config(None, ["data.batch_size=13"])
    loading.check_replicas(loaded, replicas - 1, examples)
    with pytest.raises(UsageError, match=words):
        loading.check_replicas(loaded, replicas, examples)


def test_the_job_signature_holds_what_decides_the_result(load, manifest, tiny):
    signature = builder.job_signature(load("optimizer.learning_rate=0.5", "logging.progress=off"))
    assert signature["optimizer.learning_rate"] == 0.5
    assert signature["model.fused"] == "off"  # Workers of other values could not agree on what auto means.
    assert signature["the data set"] == manifest.fingerprint
    assert signature["the encoder"] == registry.saved_model_sha256(str(tiny / "encoder"))
    assert not [key for key in signature if key.startswith(("logging", "data_dir"))]


def test_a_missing_data_dir_is_rejected(tiny):
    with pytest.raises(UsageError, match=r"--data_dir must name a prepared data set\. Received: none\."):
        builder.build_job(loading.load_config(None, [f"encoder={tiny}"]), tf.distribute.OneDeviceStrategy("/cpu:0"))


def test_a_corrupt_or_missing_shard_is_named(load, manifest, prepared, tmp_path):
    moved = shutil.copytree(prepared, tmp_path / "data")
    name = manifest.splits["test"].shards[-1].name
    content = (moved / name).read_bytes()
    for damaged, words in (
        (content[:-1], f"{name} must have the {len(content):,} bytes .*Received: {len(content) - 1:,} bytes"),
        (
            content[:-9] + bytes([content[-9] ^ 1]) + content[-8:],
            name,
        ),
        (None, f"{name} .*Received: no such file"),
    ):
        (moved / name).unlink() if damaged is None else (moved / name).write_bytes(damaged)
        with pytest.raises(ValueError, match=words):
            builder.check_shards(load(f"data_dir={moved}"), manifest)


@pytest.mark.parametrize("evaluation", ["float32", "bfloat16", "auto"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "auto"])
def test_precision_auto_follows_the_hardware(job, precision, evaluation):
    resolved = builder.resolve_precision(
        dataclasses.replace(job.config, precision=precision, eval_precision=evaluation), job.encoder, job.strategy
    )
    fast = "bfloat16" if strategies.has_bfloat16(job.strategy) else "float32"
    assert resolved.precision == (fast if precision == "auto" else precision)
    # What is trained in float32 is evaluated in float32.
    follows = fast if resolved.precision == "bfloat16" else "float32"
    assert resolved.eval_precision == (follows if evaluation == "auto" else evaluation)


def test_compile_auto_is_off_on_a_cpu_and_xla_has_few_widths(job, load):
    for setting, resolved in (("auto", "off"), ("off", "off"), ("xla", "xla")):
        config = builder.resolve_compile(load(f"model.compile={setting}"), job.encoder, job.strategy)
        assert config.model.compile == resolved
    for setting, multiple in (("off", 8), ("xla", 32)):
        layout = builder.batch_layout(load(f"model.compile={setting}", "data.pad_multiple=8"), job.strategy)
        assert layout.pad_multiple == multiple


TPU_LAYOUTS = """
import dataclasses
from trainer.config import loading
from trainer.tpu_check import trace
from trainer.train import builder

strategy = trace.build_tracing_strategy(2)
empty = dict.fromkeys(field.name for field in dataclasses.fields(builder.Job))
for setting in ("seed=0", "data.pad_multiple=128", "data.truncation=windows"):
    config = loading.load_config(None, ["data.seq_length=128", setting])
    job = builder.Job(**empty | dict(config=config, strategy=strategy, layout=builder.batch_layout(config, strategy)))
    print(job.static_widths, job.layout.static_shape, job.eval_layout.fixed_rows)
"""


def test_a_tpu_has_few_widths_and_one_with_windows(job):
    lines = python("-c", TPU_LAYOUTS, check=True).stdout.splitlines()
    assert lines == ["(32, 64, 96, 128) [None] True", "(128,) [128] True", "(128,) [4, 128] True"]
    assert job.static_widths == ()  # Elsewhere a step takes any.


def test_the_settings_of_a_model_reach_it(load):
    strategy = tf.distribute.OneDeviceStrategy("/cpu:0")
    job = builder.build_job(load("model.recompute=true", "optimizer.name=lamb"), strategy)
    layers = [layer for layer in job.model._flatten_layers() if isinstance(layer, recomputation.BLOCKS)]
    assert len(layers) == 2
    assert all("call" in vars(layer) for layer in layers)
    assert type(job.optimizer).__name__ == "LAMB"


def test_fused_models_are_trained_and_evaluated(load):
    strategy = tf.distribute.OneDeviceStrategy("/cpu:0")
    job = builder.build_job(load("model.fused=auto", "precision=bfloat16"), strategy)
    assert job.config.model.fused == "on"
    for model in (job.model, job.eval_model):
        norms = [layer for layer in model._flatten_layers() if layer.name == "embeddings/layer_norm"]
        assert ["call" in vars(layer) for layer in norms] == [True]
    assert job.update.__module__ == one_pass_adamw.__name__
    lamb = builder.build_job(load("model.fused=on", "optimizer.name=lamb"), strategy)
    assert lamb.update.__module__ == optimizers.__name__


def test_the_fingerprint_covers_only_what_decides_the_result(load):
    def fingerprint(*overrides, encoder="a", data="b", parent=None):
        return builder.run_fingerprint(load(*overrides), encoder, data, parent)

    # A run from before a key existed has a fingerprint without it.
    keys = {key: value for key, value in schema.fingerprinted(load()).items() if key not in schema.LATER_KEYS}
    assert fingerprint() == hashlib.sha256(json.dumps([keys, "a", "b"], sort_keys=True).encode()).hexdigest()
    same = {fingerprint(), fingerprint("logging.progress=off"), fingerprint("encoder=moved", "data_dir=moved")}
    same |= {fingerprint("model.fused=on"), fingerprint("model.fused=auto")}
    assert len(same) == 1
    others = [
        *(fingerprint(o) for o in ("seed=1", "optimizer.learning_rate=1", "data.batch_size=8", "precision=bfloat16")),
        fingerprint("eval_precision=bfloat16"),
        *(fingerprint("training.class_weights=balanced"), fingerprint("training.loss=focal")),
        *(fingerprint("model.compile=xla"), fingerprint("model.recompute=true"), fingerprint("optimizer.name=lamb")),
        *(fingerprint(o) for o in ("model.pooling=mean", "model.freeze=encoder", "model.max_positions=1024")),
        *(fingerprint("training.steps=9"), fingerprint(encoder="x"), fingerprint(data="x")),
        *(fingerprint(parent=builder.Parent("run", sha256)) for sha256 in ("x", "y")),
    ]
    assert len({*others, *same}) == len(others) + 1


def test_the_tokenizer_is_that_of_the_data_set(job, prepared):
    columns = records.read_split(str(prepared), job.manifest, "test", with_text=True)
    tokens = job.tokenizer.tokenize(tf.constant(columns.texts[:3]))
    for row in range(3):
        assert np.array_equal(tokens[row].numpy(), columns.tokens.row(row))


def test_a_metric_of_ratings_needs_ratings(points_run, load):
    config = dataclasses.replace(
        load("training.best_metric=quadratic_kappa"), data_dir=str(points_run.parent / "data"), encoder="missing"
    )
    with pytest.raises(UsageError, match=r"training\.best_metric must .*whole.* Received: quadratic_kappa"):
        builder.build_job(config, tf.distribute.OneDeviceStrategy("/cpu:0"))

"""Trace and lower our own train and evaluation steps as TPU programs, on a machine without a TPU.

TensorFlow's TPUStrategy traces them for replicas that are logical CPUs: the result can be lowered (lowering) but not
run. Variables hold no values, so that BERT-large for 8 replicas needs no memory. Run as a program, it answers requests
(child_requests).

Shapes: R replicas, B rows of a replica's batch, S tokens of a sequence.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras
from tensorflow.python.client import session
from tensorflow.python.tpu import topology, tpu_system_metadata

from trainer.data import manifests, model_inputs, records, windows
from trainer.encoders import architectures, classifier, native, random_encoders, window_pooling
from trainer.errors import Problem, UserError
from trainer.tpu_check import batch_widths, child_requests, lowering
from trainer.tpu_check.estimate import CompileCase
from trainer.train import optimizers, steps

# Of the topologies of compiler.TOPOLOGIES. A logical CPU for each is made at the first trace.
MAX_REPLICAS = 32

PRESETS = ("tiny", "tiny_albert", "tiny_talking_heads", "bert_base", "bert_large")
# The tutorials' names have their sizes: small_bert/bert_en_uncased_L-4_H-512_A-8.
SIZES_IN_NAME = re.compile(r"L-(\d+)_H-(\d+)_A-(\d+)$")
# Vocabulary sizes by the name without the sizes; every other BERT has the vocabulary of bert_en_uncased.
VOCABULARY_SIZES = {"bert_en_cased": 28996, "bert_en_wwm_cased": 28996, "bert_multi_cased": 119547, "bert_zh": 21128}
UNCASED_VOCABULARY_SIZE = 30522


def get_architecture(encoder: str) -> architectures.Architecture:
    """Return the sizes of a random encoder's preset or of a BERT of the tutorials. Raises UserError for other names."""
    if encoder in PRESETS:
        return random_encoders.RANDOM_PRESETS[encoder].architecture
    if match := SIZES_IN_NAME.search(encoder):
        layers, hidden, heads = map(int, match.groups())
        family = encoder[: match.start()].rstrip("_")
        vocabulary = VOCABULARY_SIZES.get(family, UNCASED_VOCABULARY_SIZE)
    else:
        required = (
            f"be of {', '.join(PRESETS)}, or names that end in sizes, such as small_bert/bert_en_uncased_L-4_H-512_A-8"
        )
        raise UserError(Problem("--encoders", required, encoder))
    return architectures.Architecture(
        vocab_size=vocabulary,
        embedding_width=hidden,
        hidden_size=hidden,
        layers=layers,
        heads=heads,
        inner_size=4 * hidden,
        max_positions=512,
        token_types=2,
        activation="gelu",
        dropout=0.1,
        attention_dropout=0.1,
    )


# --- A TPUStrategy without a TPU ------------------------------------------------------------------


def build_tracing_strategy(replicas: int) -> tf.distribute.TPUStrategy:
    """Return a TPUStrategy over at most MAX_REPLICAS logical CPUs. It traces like one over TPU cores."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    if not tf.config.get_logical_device_configuration(cpu):
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * MAX_REPLICAS)
    host = "/job:localhost/replica:0/task:0/device:"
    mesh = topology.Topology(
        mesh_shape=[replicas, 1, 1, 1], device_coordinates=np.array([[[core, 0, 0, 0] for core in range(replicas)]])
    )
    cores = [session._DeviceAttributes(f"{host}TPU:{core}", "TPU", 0, 0) for core in range(replicas)]
    metadata = tpu_system_metadata.TPUSystemMetadata(
        num_cores=replicas, num_hosts=1, num_of_cores_per_host=replicas, topology=mesh, devices=cores
    )
    resolver = tf.distribute.cluster_resolver.TPUClusterResolver("local")
    resolver.get_tpu_system_metadata = lambda: metadata
    resolver.set_tpu_topology(mesh.serialized())
    strategy = tf.distribute.TPUStrategy(resolver)
    # Variables are created on these devices.
    strategy.extended._tpu_devices = np.array([[f"{host}CPU:{core}"] for core in range(replicas)], dtype=object)
    strategy.extended._host_device = f"{host}CPU:0"
    strategy._enable_packed_variable_in_eager_mode = False  # Only real TPUs can pack.
    return strategy


# --- The steps of a case --------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class CaseSteps:
    """The functions that a job passes to `strategy.run`, and the variables that it keeps on the device."""

    strategy: tf.distribute.TPUStrategy
    train: Callable[[steps.Batch], None]
    evaluation: Callable[[steps.Batch], tf.Tensor]
    variables: tuple[tf.Variable, ...]


@functools.cache
def build_steps(
    architecture: architectures.Architecture, replicas: int, accumulation_steps: int, in_windows: bool = False
) -> CaseSteps:
    """Build the steps as builder.build_job does for a TPU: training in bfloat16, evaluation in float32."""
    strategy = build_tracing_strategy(replicas)

    def build_model(precision: str) -> tf_keras.Model:
        encoder = native.build_encoder(architecture, classifier.POLICIES[precision], output_range=1)
        model = classifier.build_classifier(encoder, classes=2, head_dropout=classifier.HEAD_DROPOUT, seed=0)
        return window_pooling.build_window_classifier(model, "mean") if in_windows else model

    with strategy.scope(), native.variables_without_values():
        train_model, eval_model = build_model("bfloat16"), build_model("float32")
        optimizer = optimizers.build_adamw(1e-4, steps=1000, warmup_fraction=0.1, weight_decay=0.01)
        optimizers.create_slots(optimizer, train_model.trainable_variables)
        sums = steps.create_train_sums()
    return CaseSteps(
        strategy,
        steps.build_train_step(
            train_model, optimizer, sums, 0, optimizers.build_update(optimizer, 1.0), accumulation_steps
        ),
        steps.build_replica_eval_step(eval_model),
        (*train_model.variables, *optimizer.variables(), *sums.saved().values(), sums.bad_step, *eval_model.variables),
    )


def build_batches(case: CompileCase) -> list[dict[str, np.ndarray]]:
    """Return a replica's share of a full batch and of a last batch of one text, padded as model_inputs does.

    Their inputs are [B, S], or [B, max_windows, S].
    """
    rows = case.batch_size * case.replicas
    layout = model_inputs.BatchLayout(
        rows, case.seq_length, "head", case.seq_length, case.replicas, case.accumulation_steps
    )
    if case.max_windows > 1:
        plan = windows.plan_windows(case.seq_length, None, case.max_windows)
        layout = dataclasses.replace(layout, truncation=windows.TRUNCATION, windows=plan)
    manifest = manifests.Manifest(
        task="csv",
        kind="classification",
        texts=1,
        labels=("negative", "positive"),
        encoder=case.encoder,
        vocabulary=manifests.Vocabulary("", UNCASED_VOCABULARY_SIZE, True, start=2, end=3, padding=0),
        seed=0,
        splits={},
        removed={},
    )
    dataset = model_inputs.to_model_inputs(iter([_columns(rows), _columns(1)]), manifest, layout)
    lowering.check_batch(dataset.element_spec)
    shares = list(dataset.as_numpy_iterator())
    return [shares[0], shares[case.replicas]]


def _columns(rows: int) -> records.Columns:
    tokens = records.to_ragged([np.arange(5, dtype=np.int32)] * rows)
    return records.Columns(list(range(rows)), tokens, None, np.zeros(rows, np.int32), None, None)


def lower_calls(strategy: tf.distribute.Strategy, step: Callable, calls: Sequence[tuple]) -> list[lowering.Program]:
    """Return the programs that a TPU compiles when `step` is run with each tuple of arguments in `calls`.

    Raises UserError if the same shapes need more than one program, or a program is not one for a TPU.
    """

    @tf.function(autograph=False)
    def run(*arguments: Any) -> Any:
        return strategy.run(step, args=arguments)

    traced: dict[str, Any] = {}
    for arguments in calls:
        specs = tf.nest.map_structure(_spec, arguments)
        lowering.check_batch(specs[0])
        shapes = str([x.shape.as_list() for x in tf.nest.flatten(specs) if isinstance(x, tf.TensorSpec)])
        function = run.get_concrete_function(*specs)
        if traced.setdefault(shapes, function) is not function:
            raise UserError(
                Problem(
                    "A step",
                    "be one program for each shape of its inputs",
                    f"a second one for {shapes}, with the arguments {arguments[1:]}, which are not tensors",
                    "Convert them to tensors.",
                )
            )
    return [lowering.lower_function(function) for function in traced.values()]


def _spec(x: Any) -> Any:
    """Return the shape and dtype of an array; any other value is returned as it is."""
    return tf.TensorSpec(x.shape, x.dtype) if isinstance(x, np.ndarray | tf.Tensor) else x


# --- Answering estimate.py ------------------------------------------------------------------------


def write_programs(case: CompileCase, folder: Path) -> dict[str, Any]:
    """Lower both steps of a case and write their programs to a new folder.

    Returns {"programs": the number that a complete run compiles, "train": ..., "evaluation": ...}. Each step has
    {"hlo": the program's path, "other_bytes": the size of the job's variables that are not its inputs}.
    """
    architecture = get_architecture(case.encoder)
    if case.seq_length > architecture.max_positions:
        raise UserError(Problem("--seq_length", f"be at most {architecture.max_positions}", str(case.seq_length)))
    case_steps = build_steps(architecture, case.replicas, case.accumulation_steps, case.max_windows > 1)
    calls = [(batch,) for batch in build_batches(case)]
    all_bytes = sum(variable.shape.num_elements() * variable.dtype.size for variable in case_steps.variables)
    folder.mkdir()
    answer: dict[str, Any] = {"programs": 0}
    for name, step in (("train", case_steps.train), ("evaluation", case_steps.evaluation)):
        programs = lower_calls(case_steps.strategy, step, calls)
        path = folder / f"{name}.hlo"
        path.write_bytes(programs[0].hlo)
        answer["programs"] += len(programs)
        answer[name] = {"hlo": str(path), "other_bytes": all_bytes - programs[0].variable_bytes}
    return answer


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Return the result of write_programs for {"case": the fields of a CompileCase, "folder": path}.

    For the arguments of batch_widths.count_batches it is the result of that.
    """
    if "data_set" in request:
        return batch_widths.count_batches(**request)
    return write_programs(CompileCase(**request["case"]), Path(request["folder"]))


if __name__ == "__main__":
    child_requests.answer_requests(answer)

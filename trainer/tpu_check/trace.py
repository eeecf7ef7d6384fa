"""Our own train and evaluation steps as TPU programs, on a machine without a TPU.

They are traced by TensorFlow's TPUStrategy, which is told of replicas that are logical CPUs: what it
traces can be lowered (`tpu_lowering`) but not run. Variables hold no values, so that BERT-large for 8
replicas costs no memory. Run as a program, it answers requests, one line of JSON each.

Shapes: R replicas, B rows of a replica's batch, S sequence.
"""

import contextlib
import dataclasses
import functools
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras
from tensorflow.python.client import session
from tensorflow.python.tpu import topology, tpu_system_metadata

from trainer.data import manifests, model_inputs, records
from trainer.encoders import classifier, native, random_encoders
from trainer.tpu_check import lowering
from trainer.tpu_check.estimate import Job
from trainer.train import optimizers, steps

MAX_REPLICAS = 8  # of one TPU host: v2-8, v3-8, v5e-8

PRESETS = ("tiny", "bert_base", "bert_large")
# The tutorials' names say their sizes: small_bert/bert_en_uncased_L-4_H-512_A-8.
SIZES = re.compile(r"L-(\d+)_H-(\d+)_A-(\d+)$")
VOCABULARIES = {"bert_en_cased": 28996, "bert_en_wwm_cased": 28996, "bert_multi_cased": 119547, "bert_zh": 21128}
UNCASED = 30522


def architecture(encoder: str) -> native.Architecture:
    """The sizes of a random encoder's preset or of a BERT of the tutorials. Raises ValueError for other names."""
    if encoder in PRESETS:
        _, layers, hidden, heads, vocabulary = random_encoders.RANDOM_PRESETS[encoder]
    elif found := SIZES.search(encoder):
        layers, hidden, heads = map(int, found.groups())
        family = encoder[: found.start()].rstrip("_")
        vocabulary = VOCABULARIES.get(family, UNCASED)
    else:
        raise ValueError(
            f"--encoders must be of {', '.join(PRESETS)}, or names that end in sizes, such as "
            f"small_bert/bert_en_uncased_L-4_H-512_A-8. Received: {encoder}."
        )
    return native.Architecture(
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


def strategy(replicas: int) -> tf.distribute.TPUStrategy:
    """A TPUStrategy over logical CPUs: it traces like one over TPU cores. At most MAX_REPLICAS."""
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
    made = tf.distribute.TPUStrategy(resolver)
    # Where its variables are made.
    made.extended._tpu_devices = np.array([[f"{host}CPU:{core}"] for core in range(replicas)], dtype=object)
    made.extended._host_device = f"{host}CPU:0"
    made._enable_packed_variable_in_eager_mode = False  # packs on real TPUs alone
    return made


@contextlib.contextmanager
def variables_without_values() -> Iterator[None]:
    """Variables made in here have a shape, but nothing is written to their memory, which costs none until it is."""

    def create(next_creator: Callable[..., tf.Variable], **options: Any) -> tf.Variable:
        shape, dtype = options.get("shape"), options.get("dtype")
        if shape is not None and dtype is not None:
            dimensions = tf.TensorShape(shape).as_list()
            options["initial_value"] = lambda: tf.raw_ops.Empty(shape=dimensions, dtype=dtype)
        return next_creator(**options)

    with tf.variable_creator_scope(create):
        yield


# --- The steps of a job ---------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Steps:
    """What a job hands to `strategy.run`, and the variables that it keeps on the device."""

    strategy: tf.distribute.TPUStrategy
    train: Callable[[steps.Batch], None]
    evaluation: Callable[[steps.Batch], tf.Tensor]
    variables: tuple[tf.Variable, ...]


@functools.cache
def job_steps(sizes: native.Architecture, replicas: int, accumulation_steps: int) -> Steps:
    """As build.job makes them for a TPU: trains in bfloat16, evaluates in float32 with a second model."""
    within = strategy(replicas)

    def build_model(precision: str) -> tf_keras.Model:
        encoder = native.build_encoder(sizes, classifier.POLICIES[precision], output_range=1)
        return classifier.build_classifier(encoder, classes=2, head_dropout=classifier.HEAD_DROPOUT, seed=0)

    with within.scope(), variables_without_values():
        trained, scorer = build_model("bfloat16"), build_model("float32")
        optimizer = optimizers.build_adamw(1e-4, steps=1000, warmup_fraction=0.1, weight_decay=0.01)
        optimizers.create_slots(optimizer, trained.trainable_variables)
        sums = steps.create_train_sums()
    return Steps(
        within,
        steps.build_train_step(trained, optimizer, sums, seed=0, clip_norm=1.0, accumulation_steps=accumulation_steps),
        steps.build_replica_eval_step(scorer),
        (*trained.variables, *optimizer.variables(), *sums.saved().values(), sums.bad_step, *scorer.variables),
    )


def batches(job: Job) -> list[dict[str, np.ndarray]]:
    """A replica's share of a full batch and of a last partial one, of one text, as `data.to_inputs` pads them."""
    rows = job.batch_size * job.replicas
    layout = model_inputs.BatchLayout(
        rows, job.seq_length, "head", job.seq_length, job.replicas, job.accumulation_steps
    )
    manifest = manifests.Manifest(
        task="csv",
        kind="classification",
        texts=1,
        labels=("negative", "positive"),
        encoder=job.encoder,
        vocabulary=manifests.Vocabulary("", UNCASED, True, start=2, end=3, padding=0),
        seed=0,
        splits={},
        removed={},
    )
    dataset = model_inputs.to_model_inputs(iter([_columns(rows), _columns(1)]), manifest, layout)
    lowering.check_batch(dataset.element_spec)
    shares = list(dataset.as_numpy_iterator())
    return [shares[0], shares[job.replicas]]


def _columns(rows: int) -> records.Columns:
    tokens = records.to_ragged([np.arange(5, dtype=np.int32)] * rows)
    return records.Columns(list(range(rows)), tokens, None, np.zeros(rows, np.int32), None, None)


def programs(within: tf.distribute.Strategy, step: Callable, calls: Sequence[tuple]) -> list[lowering.Program]:
    """The programs that a TPU compiles when `step` is run with each of these arguments in turn.

    Raises ValueError if there is more than one for the same shapes.
    """

    @tf.function(autograph=False)
    def run(*arguments: Any) -> Any:
        return within.run(step, args=arguments)

    traced: dict[str, Any] = {}
    for arguments in calls:
        specs = tf.nest.map_structure(_spec, arguments)
        lowering.check_batch(specs[0])
        shapes = str([x.shape.as_list() for x in tf.nest.flatten(specs) if isinstance(x, tf.TensorSpec)])
        function = run.get_concrete_function(*specs)
        if traced.setdefault(shapes, function) is not function:
            raise ValueError(
                f"A step must be one program for each shape of its inputs. Received: a second one for {shapes}, since "
                f"it was given {arguments[1:]}, which are no tensors. Make them tensors."
            )
    return [lowering.lower(function) for function in traced.values()]


def _spec(x: Any) -> Any:
    """What an array looks like before it is there; any value but an array is itself."""
    return tf.TensorSpec(x.shape, x.dtype) if isinstance(x, np.ndarray | tf.Tensor) else x


# --- Answering scripts/check_tpu.py ---------------------------------------------------------------


def write_programs(job: Job, folder: Path) -> dict[str, Any]:
    """Lower both steps of a job, and write their programs to `folder`, which is made.

    Returns {"programs": how many a full run compiles, and for "train" and "evaluation" {"hlo": the
    program's path, "elsewhere": bytes of the job's variables that are no inputs of it}}.
    """
    sizes = architecture(job.encoder)
    if job.seq_length > sizes.max_positions:
        raise ValueError(f"--seq_length must be at most {sizes.max_positions}. Received: {job.seq_length}.")
    made = job_steps(sizes, job.replicas, job.accumulation_steps)
    calls = [(batch,) for batch in batches(job)]
    resident = sum(variable.shape.num_elements() * variable.dtype.size for variable in made.variables)
    folder.mkdir()
    answer: dict[str, Any] = {"programs": 0}
    for name, step in (("train", made.train), ("evaluation", made.evaluation)):
        found = programs(made.strategy, step, calls)
        path = folder / f"{name}.hlo"
        path.write_bytes(found[0].hlo)
        answer["programs"] += len(found)
        answer[name] = {"hlo": str(path), "elsewhere": resident - found[0].variable_bytes}
    return answer


def main() -> None:
    """For each line {"job": a Job's fields, "folder": path} print write_programs' answer, or {"error": message}."""
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = write_programs(Job(**request["job"]), Path(request["folder"]))
        except ValueError as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()

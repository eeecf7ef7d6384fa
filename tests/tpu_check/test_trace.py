"""What is traced for TPUs: the sizes of encoders, batches of one shape, and an inner loop with several widths."""

import json

import pytest
from helpers import run_in_tpu_trace_environment

from trainer.encoders import registry

CODE = f"""
import json
from trainer.tpu_check import trace
from trainer.tpu_check.estimate import CompileCase

names = {[name for name in registry.ENCODERS if "bert/" in name or name.startswith("bert_")]}
sizes = [(a.layers, a.hidden_size, a.heads, a.vocab_size) for a in map(trace.get_architecture, names)]
full, last = trace.build_batches(CompileCase("tiny", replicas=4, seq_length=24, batch_size=6, accumulation_steps=2))
shapes = [{{name: [list(x.shape), x.dtype.name] for name, x in batch.items()}} for batch in (full, last)]
case = CompileCase("tiny", replicas=4, seq_length=24, batch_size=6, accumulation_steps=2, max_windows=3)
windows = [list(batch["input_mask"].shape) for batch in trace.build_batches(case)]
print(json.dumps([sizes, shapes, full["weight"].tolist(), last["weight"].tolist(), windows]))
"""


@pytest.fixture(scope="module")
def results() -> list:
    return json.loads(run_in_tpu_trace_environment(CODE))


def test_sizes_are_read_off_the_tutorials_names(results):
    sizes = results[0]
    assert len(sizes) == 32
    assert sizes[2] == [12, 768, 12, 119547]  # bert_multi_cased
    assert [4, 512, 8, 30522] in sizes  # The tutorial's own encoder.


def test_the_last_batch_is_padded_to_the_shape_of_the_others(results):
    _, (full, last), weights, last_weights, _ = results
    assert full == last
    assert full["input_word_ids"] == [[6, 24], "int32"]
    assert (sum(weights), sum(last_weights)) == (6, 1)


def test_every_text_is_padded_to_the_most_windows(results):
    assert results[-1] == [[6, 3, 24]] * 2


INNER_LOOP = """
import json
import tensorflow as tf
from trainer.encoders import native
from trainer.tpu_check import trace
from trainer.train import steps

strategy, shapes = trace.build_tracing_strategy(1), []
with strategy.scope():
    total = tf.Variable(0)

def step(batch):
    shapes.append(batch["input_word_ids"].shape.as_list())
    total.assign_add(tf.reduce_sum(batch["input_mask"]))

spec = {name: tf.TensorSpec([6, None], tf.int32) for name in native.INPUT_NAMES}
batches = iter(tf.data.Dataset.from_generator(lambda: [], output_signature=spec))
loop = steps.build_inner_loop(strategy, step, (8, 16, 24))
library = loop.get_concrete_function(batches, tf.TensorSpec([], tf.int32)).graph.as_graph_def().library
nodes = [node for function in library.function for node in function.node_def]
replicated = [node for node in nodes if node.op == "TPUReplicateMetadata"]
clusters = sorted({node.attr["_tpu_replicate"].s.decode() for node in replicated})
print(json.dumps([shapes, clusters, sorted({node.op for node in nodes} & {"Pad", "XlaSetDynamicDimensionSize"})]))
"""


def test_the_inner_loop_has_a_program_for_each_width():
    """Of static shapes, without TensorFlow's padding, and of a name of its own: TensorFlow tells programs by it."""
    shapes, clusters, padding = json.loads(run_in_tpu_trace_environment(INNER_LOOP))
    assert shapes == [[6, 8], [6, 16], [6, 24]]
    assert len(clusters) == 3
    assert padding == []

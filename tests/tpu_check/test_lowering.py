"""Steps traced and lowered for TPUs, in processes with .venv-tpu-trace."""

import json

import pytest
from helpers import run_in_tpu_trace_environment

# Steps for a TPUStrategy. Each but the first three has one defect.
STEPS = """
import json
import sys
import numpy as np
import tensorflow as tf
from trainer.tpu_check import lowering
from trainer.tpu_check import trace

strategy = trace.build_tracing_strategy(2)
with strategy.scope():
    weights = tf.Variable(tf.ones([4, 3]))

def loss(batch):
    return tf.reduce_sum(tf.matmul(tf.cast(batch["x"], tf.float32), weights))

def in_a_loop(batch):
    return tf.while_loop(lambda i, x: i < 3, lambda i, x: (i + 1, x * 2), [0, loss(batch)])

def variable_in_a_loop(batch):
    return tf.while_loop(lambda i, x: i < 3, lambda i, x: (i + 1, x + weights), [0, tf.zeros([4, 3])])

def assigned_in_a_loop(batch):
    def body(i):
        weights.assign_add(tf.ones([4, 3]))
        return i + 1
    return tf.while_loop(lambda i: i < 3, body, [0])

def strings(batch):
    return tf.strings.length(tf.strings.as_string(batch["x"]))

def host_function(batch):
    return tf.numpy_function(lambda x: x, [loss(batch)], tf.float32)

def printing(batch):
    tf.print(batch["x"])
    return loss(batch)

def random_state(batch):
    return loss(batch) * tf.random.uniform([])

def outfeed(batch):
    tf.raw_ops.OutfeedEnqueue(input=loss(batch))
    return loss(batch)

def float64(batch):
    return tf.cast(tf.cast(loss(batch), tf.float64) * 2, tf.float32)

def float64_in_a_branch(batch):
    x = loss(batch)
    return tf.cond(x > 0, lambda: tf.cast(tf.cast(x, tf.float64) * 2, tf.float32), lambda: x)

def unique(batch):
    return tf.reduce_sum(tf.unique(tf.reshape(batch["x"], [-1]))[0])

def mask(batch):
    return tf.reduce_sum(tf.boolean_mask(batch["x"], batch["x"] > 0))

def slice_by_value(batch):
    return tf.reduce_sum(batch["x"][: batch["x"][0, 0]])

def shape_by_value(batch):
    return tf.reduce_sum(tf.ones([batch["x"][0, 0]]))

def no_kernel(batch):
    return tf.raw_ops.NthElement(input=tf.cast(batch["x"], tf.float32), n=1)

def variable_in_a_branch(batch):
    return tf.cond(batch["x"][0, 0] > 0, lambda: weights * 2, lambda: weights * 1)

def rows(batch, number):
    return loss(batch) / tf.cast(number, tf.float32)

def result(step, *calls):
    try:
        return len(trace.lower_calls(strategy, step, calls))
    except ValueError as error:
        return str(error)

full, short = {"x": np.ones([2, 4], np.int32)}, {"x": np.ones([1, 4], np.int32)}
steps = [
    loss, in_a_loop, variable_in_a_loop, assigned_in_a_loop, strings, host_function, printing, random_state, outfeed,
    float64, float64_in_a_branch, unique, mask, slice_by_value, shape_by_value, no_kernel, variable_in_a_branch,
]
results = {step.__name__: result(step, (full,)) for step in steps}
results["same shape"] = result(loss, (full,), ({"x": np.zeros([2, 4], np.int32)},))
results["other shape"] = result(loss, (full,), (short,))
results["tensor"] = result(rows, (full, tf.constant(2.0)), (full, tf.constant(1.0)))
results["number"] = result(rows, (full, 2), (full, 1))
results["unknown length"] = result(loss, ({"x": tf.TensorSpec([2, None], tf.int32)},))
print(json.dumps(results))
"""

# Defects that no operator of TensorFlow is known to cause.
INSTRUCTIONS = """
import json
import tensorflow as tf
from tensorflow.compiler.xla import xla_data_pb2
from tensorflow.compiler.xla.service import hlo_pb2
from trainer.tpu_check import lowering

def result(opcode, element_type, dynamic=False):
    shape = xla_data_pb2.ShapeProto(element_type=element_type, dimensions=[8], is_dynamic_dimension=[dynamic])
    inner = xla_data_pb2.ShapeProto(element_type=xla_data_pb2.TUPLE, tuple_shapes=[shape])
    instruction = hlo_pb2.HloInstructionProto(opcode=opcode, shape=inner)
    module = hlo_pb2.HloModuleProto(computations=[hlo_pb2.HloComputationProto(instructions=[instruction])])
    try:
        return lowering.check_instructions(module, tf.Graph())
    except ValueError as error:
        return str(error)

F32, F64 = xla_data_pb2.F32, xla_data_pb2.F64
print(json.dumps([result("add", F32), result("infeed", F32), result("add", F64), result("add", F32, True)]))
"""


@pytest.fixture(scope="module")
def results() -> dict:
    """Name of a step -> the number of its programs, or the message of its error."""
    return json.loads(run_in_tpu_trace_environment(STEPS))


@pytest.mark.parametrize(
    ("step", "operator"),
    [
        ("strings", "no strings: a TPU has none. Received: AsString, AsString, from <string>:"),
        ("host_function", "PyFunc, PyFunc, from <string>:"),
        ("printing", "no strings: a TPU has none. Received: StringFormat, StringFormat, from <string>:"),
        ("random_state", "RandomUniform, random_uniform/RandomUniform, from <string>:"),
        ("outfeed", "OutfeedEnqueue, OutfeedEnqueue, from <string>:"),
        ("float64", "emulates float64. Received: Cast, Cast_1, from <string>:"),
        ("float64_in_a_branch", "emulates float64. Received: Cast, cond/Cast, inside cond_true_"),
        ("unique", "set-dimension-size of Unique Unique, from <string>:"),
        ("mask", "set-dimension-size of Where boolean_mask/Where, from <string>:"),
        ("slice_by_value", "set-dimension-size of StridedSlice strided_slice_1, from <string>:"),
        ("shape_by_value", "Fill"),
        ("no_kernel", "NthElement"),
        ("variable_in_a_branch", "If, cond, from <string>:"),
        ("assigned_in_a_loop", "AssignAddVariableOp"),
        ("unknown length", "x, int32 (2, None)"),
        ("number", "a second one for [[2, 4]], with the arguments (1,)"),
    ],
)
def test_what_a_tpu_cannot_do_is_named_with_its_operator_and_line(results, step, operator):
    assert "Received: " in results[step]
    assert operator in results[step]


def test_the_line_is_the_one_that_created_the_operator(results):
    line = results["float64"].split("<string>:")[1].split(" ")[0]
    assert "tf.float64" in STEPS.splitlines()[int(line) - 1]
    assert f":{line} in float64" in results["float64"]


def test_a_step_is_one_program_for_each_shape_of_its_inputs(results):
    assert results["loss"] == results["in_a_loop"] == results["variable_in_a_loop"] == 1
    assert results["same shape"] == results["tensor"] == 1
    assert results["other shape"] == 2


def test_instructions_are_checked():
    fine, host, double, dynamic = json.loads(run_in_tpu_trace_environment(INSTRUCTIONS))
    assert fine is None
    assert "no transfer from or to the host" in host
    assert "emulates float64" in double
    assert "shapes that are known" in dynamic

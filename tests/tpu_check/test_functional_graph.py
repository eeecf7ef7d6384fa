"""A step as a function of its variables' values, compared with the step itself."""

from helpers import run_in_tpu_trace_environment

# The same step with its variables, and as a function of their values.
CODE = """
import numpy as np
import tensorflow as tf
from trainer.train import optimizers
from trainer.tpu_check import functional_graph
from trainer.tpu_check import trace

def build(strategy):
    with strategy.scope():
        weights, total = tf.Variable([[1.0, -2.0, 3.0]]), tf.Variable(0.5)
        optimizer = optimizers.build_adamw(0.1, steps=10, warmup_fraction=0.2, weight_decay=0.1)
        optimizers.create_slots(optimizer, [weights])

    def step(x):
        optimizer.iterations.assign_add(2)
        optimizers.apply_gradients(optimizer, [x * weights], [weights])
        total.assign_sub(tf.reduce_sum(weights))
        total.assign(total * 3)
        _, doubled = tf.while_loop(lambda i, x: i < 3, lambda i, x: (i + 1, x + weights * total), [0, weights * 2])
        return total + doubled

    return step, [weights, total, *optimizer.variables()]

tpu, cpu = trace.build_tracing_strategy(1), tf.distribute.OneDeviceStrategy("/cpu:0")
step, variables = build(tpu)
x = tf.constant([[0.5, 0.25, -4.0]])

@tf.function
def distributed(x):
    return tpu.run(step, args=(x,))

traced = distributed.get_concrete_function(x)
functional = functional_graph.build_functional_graph(traced.graph)
handles = {inside.op.name: outside for outside, inside in traced.graph.captures}

def handle(name):
    return handles.get(traced.graph.get_operation_by_name(name).inputs[0].op.name)

def value(name, spec):
    if handle(name) is None:
        return 0 if spec.dtype == tf.int32 else x  # The replica's number, or the batch.
    return tf.raw_ops.ReadVariableOp(resource=handle(name), dtype=spec.dtype)

arguments = [value(name, spec) for name, spec in functional.inputs.items()]

@tf.function
def run(*values):
    inputs = {f"{name}:0": value for name, value in zip(functional.inputs, values)}
    return tf.graph_util.import_graph_def(functional.graph, input_map=inputs, return_elements=functional.results)

output, *new = run(*arguments)
real_step, real_variables = build(cpu)
assert np.allclose(output, cpu.run(real_step, args=(x,)), rtol=1e-6)
expected = {id(variable.values[0].handle): real for variable, real in zip(variables, real_variables)}
assert {id(handle(name)) for name in functional.assigned} == set(expected)
for name, received in zip(functional.assigned, new):
    assert np.allclose(received, expected[id(handle(name))], rtol=1e-6), name
print("equal")
"""


def test_the_functional_graph_computes_what_the_step_computes():
    assert run_in_tpu_trace_environment(CODE) == "equal\n"

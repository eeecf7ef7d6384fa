"""Rewrite the graph of a step that a TPUStrategy traced as a function of values: variables in, their new values out.

`strategy.run` marks the operators that a TPU would compile: the cluster. For a device that is not attached, TensorFlow
lowers only operators without resources. So the operators on variables are replaced (REPLACEMENTS), in the order in
which they were traced; every other operator stays as it is.
"""

import dataclasses
import functools
from typing import Any

import tensorflow as tf
from tensorflow.core.framework import function_pb2, graph_pb2, node_def_pb2
from tensorflow.python.eager import context
from tensorflow.python.ops import handle_data_util

from trainer.errors import Problem, UserError

# Operators that tpu.replicate adds around a cluster.
WRAPPER_OPERATORS = ("TPUReplicateMetadata", "TPUReplicatedInput", "TPUReplicatedOutput", "TPUCompilationResult")


@dataclasses.dataclass(frozen=True)
class Replacement:
    """The operator on values that replaces an operator on variables."""

    op: str
    variables: int = 1  # The number of variables, which are the first inputs.
    reads: bool = True
    writes: bool = True


REPLACEMENTS = {
    "ReadVariableOp": Replacement("Identity", writes=False),
    "AssignVariableOp": Replacement("Identity", reads=False),
    "AssignAddVariableOp": Replacement("AddV2"),
    "AssignSubVariableOp": Replacement("Sub"),
    "ResourceApplyAdam": Replacement("PartitionedCall", variables=3),  # It calls _adam_update.
}


@dataclasses.dataclass(frozen=True)
class FunctionalGraph:
    """A cluster as a graph of values. Names are those of the traced graph."""

    graph: graph_pb2.GraphDef
    inputs: dict[str, tf.TensorSpec]
    variables: frozenset[str]  # The names of the inputs that are values of variables.
    outputs: tuple[str, ...]  # The tensors that the step returns.
    assigned: dict[str, str]  # Name of an input -> the tensor with its new value.

    @property
    def results(self) -> list[str]:
        """The names of all result tensors: what the step returns, then the new values of variables."""
        return [name if ":" in name else f"{name}:0" for name in (*self.outputs, *self.assigned.values())]


def in_cluster(node: node_def_pb2.NodeDef) -> bool:
    """Return whether a TPU would compile the operator."""
    return "_tpu_replicate" in node.attr and node.op not in WRAPPER_OPERATORS


def build_functional_graph(graph: tf.Graph) -> FunctionalGraph:
    """Return the cluster of a traced graph as a function of values.

    Raises UserError if a loop of the cluster assigns a variable.
    """
    definition = graph.as_graph_def()
    inputs = {op.name: _value_spec(op) for op in graph.get_operations() if op.type == "TPUReplicatedInput"}
    variables = frozenset(name for name in inputs if graph.get_tensor_by_name(f"{name}:0").dtype == tf.resource)
    outputs = tuple(node.input[0] for node in definition.node if node.op == "TPUReplicatedOutput")
    functional = graph_pb2.GraphDef(versions=definition.versions, library=definition.library)
    functional.library.function.append(_adam_update().function_def)
    state = {name: name for name in inputs}  # Name of an input -> the tensor with its present value.
    for node in filter(in_cluster, definition.node):
        copy = functional.node.add(name=node.name, op=node.op)
        # The values themselves keep the order. Without resources, control inputs are redundant.
        copy.input.extend(name for name in node.input if not name.startswith("^"))
        for key, value in node.attr.items():
            if not key.startswith("_"):
                copy.attr[key].CopyFrom(value)
        if node.op in REPLACEMENTS:
            _replace_operator(copy, state)
        elif node.op == "While":
            _pass_values_to_loop(
                copy, {name: inputs[name].dtype.as_datatype_enum for name in variables}, state, functional.library
            )
    return FunctionalGraph(functional, inputs, variables, outputs, {name: x for name, x in state.items() if x != name})


def _value_spec(op: tf.Operation) -> tf.TensorSpec:
    """Return the shape and dtype of a TPUReplicatedInput: for a variable, those of its value."""
    first = op.inputs[0]
    if first.dtype != tf.resource:
        return tf.TensorSpec(first.shape, first.dtype)
    value = handle_data_util.get_resource_handle_data(first).shape_and_type[0]
    return tf.TensorSpec(tf.TensorShape(value.shape), tf.as_dtype(value.dtype))


def _replace_operator(node: node_def_pb2.NodeDef, state: dict[str, str]) -> None:
    """Replace an operator on variables by one on their values, and store the tensors of the new values in `state`."""
    replacement = REPLACEMENTS[node.op]
    dtype = node.attr["T" if node.op == "ResourceApplyAdam" else "dtype"].type
    variables, inputs = node.input[: replacement.variables], node.input[replacement.variables :]
    if replacement.reads:
        inputs = [*(state[name] for name in variables), *inputs]
    if replacement.writes:
        state.update({name: f"{node.name}:{index}" for index, name in enumerate(variables)})
    new = node_def_pb2.NodeDef(name=node.name, op=replacement.op, input=inputs)
    if replacement.op == "PartitionedCall":
        new.attr["f"].func.name = _adam_update().function_def.signature.name
        new.attr["Tin"].list.type.extend([dtype] * len(inputs))
        new.attr["Tout"].list.type.extend([dtype] * replacement.variables)
    else:
        new.attr["T"].type = dtype
    node.CopyFrom(new)


def _pass_values_to_loop(
    loop: node_def_pb2.NodeDef, dtypes: dict[str, int], state: dict[str, str], library: function_pb2.FunctionDefLibrary
) -> None:
    """Replace the variables among the inputs of a While by their values. The loop can read but not assign them."""
    value_dtypes = {index: dtypes[name] for index, name in enumerate(loop.input) if name in dtypes}
    for index, dtype in value_dtypes.items():
        loop.attr["T"].list.type[index] = dtype
        loop.input[index] = state[loop.input[index]]
    functions = {function.signature.name: function for function in library.function}
    for part in ("cond", "body"):
        called = loop.attr[part].func
        changed = library.function.add()
        changed.CopyFrom(functions[called.name])
        _replace_arguments(changed, value_dtypes)
        called.name = changed.signature.name = f"{called.name}_of_values"  # The original keeps its name.
        context.context().add_function_def(changed)


def _replace_arguments(function: function_pb2.FunctionDef, value_dtypes: dict[int, int]) -> None:
    """Make arguments of a loop's function values (index -> dtype), and replace the operators that read them.

    Raises UserError if the function does anything else with them.
    """
    function.arg_attr.clear()
    value_tensors = {}  # Tensor that was a variable -> dtype of its value.
    for index, dtype in value_dtypes.items():
        value_tensors[function.signature.input_arg[index].name] = dtype
        for arguments in (function.signature.input_arg, function.signature.output_arg):
            if index < len(arguments):
                arguments[index].type = dtype
    renamed = {}
    for node in function.node_def:
        if node.input and node.input[0] in value_tensors:
            if node.op not in ("ReadVariableOp", "Identity"):
                raise UserError(Problem("A loop", "only read variables", f"{node.op}, {node.name}"))
            value_tensors[f"{node.name}:output:0"] = value_tensors[node.input[0]]
            renamed[f"{node.name}:value:0"] = f"{node.name}:output:0"
            node.op = "Identity"
            node.attr.clear()
            node.attr["T"].type = value_tensors[node.input[0]]
        node.input[:] = [renamed.get(name, name) for name in node.input]


@functools.cache
def _adam_update() -> Any:
    """Return a function with the update of ResourceApplyAdam, which Keras's Adam uses, as its TPU kernel computes it.

    It maps value, moments m and v, the powers of beta_1 and beta_2, and the hyperparameters to the new value, m and v
    (https://www.tensorflow.org/api_docs/python/tf/raw_ops/ResourceApplyAdam).
    """

    def update(value, m, v, power_1, power_2, rate, beta_1, beta_2, epsilon, gradient):  # type: ignore[no-untyped-def]
        m += (gradient - m) * (1 - beta_1)
        v += (tf.square(gradient) - v) * (1 - beta_2)
        step = rate * tf.sqrt(1 - power_2) / (1 - power_1)
        return value - step * m / (tf.sqrt(v) + epsilon), m, v

    return tf.function(update, autograph=False).get_concrete_function(*[tf.TensorSpec(None, tf.float32)] * 10)

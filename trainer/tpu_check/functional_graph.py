"""The graph of a step that a TPUStrategy traced -> a graph of values: variables in, their new values out.

`strategy.run` marks the operators that a TPU would compile: the cluster. TensorFlow lowers for a device
that is not there only what holds no resources, so those on variables are replaced (REWRITTEN), in the
order in which they were traced; every other operator stays what it is.
"""

import dataclasses
import functools
from typing import Any

import tensorflow as tf
from tensorflow.core.framework import function_pb2, graph_pb2, node_def_pb2
from tensorflow.python.eager import context
from tensorflow.python.ops import handle_data_util

# What tpu.replicate puts around a cluster.
WRAPPING = ("TPUReplicateMetadata", "TPUReplicatedInput", "TPUReplicatedOutput", "TPUCompilationResult")


@dataclasses.dataclass(frozen=True)
class Rewriting:
    """What takes an operator's place when its variables have become values."""

    op: str
    variables: int = 1  # that come first among its inputs
    reads: bool = True
    writes: bool = True


REWRITTEN = {
    "ReadVariableOp": Rewriting("Identity", writes=False),
    "AssignVariableOp": Rewriting("Identity", reads=False),
    "AssignAddVariableOp": Rewriting("AddV2"),
    "AssignSubVariableOp": Rewriting("Sub"),
    "ResourceApplyAdam": Rewriting("PartitionedCall", variables=3),  # of _adam
}


@dataclasses.dataclass(frozen=True)
class Pure:
    """A cluster as a graph of values. Names are those of the traced graph."""

    graph: graph_pb2.GraphDef
    inputs: dict[str, tf.TensorSpec]
    variables: frozenset[str]  # those of the inputs that are variables' values
    outputs: tuple[str, ...]  # tensors that the step returns
    assigned: dict[str, str]  # input -> the tensor that is its new value

    @property
    def results(self) -> list[str]:
        """Every tensor that the cluster gives: what the step returns, then the new values."""
        return [name if ":" in name else f"{name}:0" for name in (*self.outputs, *self.assigned.values())]


def in_cluster(node: node_def_pb2.NodeDef) -> bool:
    """Whether a TPU would compile it."""
    return "_tpu_replicate" in node.attr and node.op not in WRAPPING


def make_pure(graph: tf.Graph) -> Pure:
    """The cluster as a function of values; the variables' operators in the order in which they were traced."""
    definition = graph.as_graph_def()
    inputs = {op.name: _value_spec(op) for op in graph.get_operations() if op.type == "TPUReplicatedInput"}
    variables = frozenset(name for name in inputs if graph.get_tensor_by_name(f"{name}:0").dtype == tf.resource)
    outputs = tuple(node.input[0] for node in definition.node if node.op == "TPUReplicatedOutput")
    pure = graph_pb2.GraphDef(versions=definition.versions, library=definition.library)
    pure.library.function.append(_adam().function_def)
    state = {name: name for name in inputs}  # the tensor that has the variable's value by now
    for node in filter(in_cluster, definition.node):
        copy = pure.node.add(name=node.name, op=node.op)
        # Order is kept by the values themselves: without resources, control inputs say nothing more.
        copy.input.extend(name for name in node.input if not name.startswith("^"))
        for key, value in node.attr.items():
            if not key.startswith("_"):
                copy.attr[key].CopyFrom(value)
        if node.op in REWRITTEN:
            _rewrite(copy, state)
        elif node.op == "While":
            _give_values(copy, {name: inputs[name].dtype.as_datatype_enum for name in variables}, state, pure.library)
    return Pure(pure, inputs, variables, outputs, {name: x for name, x in state.items() if x != name})


def _value_spec(op: tf.Operation) -> tf.TensorSpec:
    """What comes in at a TPUReplicatedInput: for a variable, its value."""
    first = op.inputs[0]
    if first.dtype != tf.resource:
        return tf.TensorSpec(first.shape, first.dtype)
    held = handle_data_util.get_resource_handle_data(first).shape_and_type[0]
    return tf.TensorSpec(tf.TensorShape(held.shape), tf.as_dtype(held.dtype))


def _rewrite(node: node_def_pb2.NodeDef, state: dict[str, str]) -> None:
    """Make an operator on variables one on their values, and note in `state` what values they have after it."""
    how = REWRITTEN[node.op]
    dtype = node.attr["T" if node.op == "ResourceApplyAdam" else "dtype"].type
    variables, inputs = node.input[: how.variables], node.input[how.variables :]
    if how.reads:
        inputs = [*(state[name] for name in variables), *inputs]
    if how.writes:
        state.update({name: f"{node.name}:{index}" for index, name in enumerate(variables)})
    rewritten = node_def_pb2.NodeDef(name=node.name, op=how.op, input=inputs)
    if how.op == "PartitionedCall":
        rewritten.attr["f"].func.name = _adam().function_def.signature.name
        rewritten.attr["Tin"].list.type.extend([dtype] * len(inputs))
        rewritten.attr["Tout"].list.type.extend([dtype] * how.variables)
    else:
        rewritten.attr["T"].type = dtype
    node.CopyFrom(rewritten)


def _give_values(
    loop: node_def_pb2.NodeDef, dtypes: dict[str, int], state: dict[str, str], library: function_pb2.FunctionDefLibrary
) -> None:
    """Hand a While the variables' values, which it may read, in place of the variables."""
    places = {index: dtypes[name] for index, name in enumerate(loop.input) if name in dtypes}
    for index, dtype in places.items():
        loop.attr["T"].list.type[index] = dtype
        loop.input[index] = state[loop.input[index]]
    functions = {function.signature.name: function for function in library.function}
    for part in ("cond", "body"):
        called = loop.attr[part].func
        changed = library.function.add()
        changed.CopyFrom(functions[called.name])
        _take_values(changed, places)
        called.name = changed.signature.name = f"{called.name}_of_values"  # the other stays known by its name
        context.context().add_function_def(changed)


def _take_values(function: function_pb2.FunctionDef, places: dict[int, int]) -> None:
    """Make the arguments at `places` values of these types, and what reads them take them as they are."""
    function.arg_attr.clear()
    kinds = {}  # of the tensors that were variables
    for index, dtype in places.items():
        kinds[function.signature.input_arg[index].name] = dtype
        for arguments in (function.signature.input_arg, function.signature.output_arg):
            if index < len(arguments):
                arguments[index].type = dtype
    renamed = {}
    for node in function.node_def:
        if node.input and node.input[0] in kinds:
            if node.op not in ("ReadVariableOp", "Identity"):
                raise ValueError(f"A loop may only read variables. Received: {node.op}, {node.name}.")
            kinds[f"{node.name}:output:0"] = kinds[node.input[0]]
            renamed[f"{node.name}:value:0"] = f"{node.name}:output:0"
            node.op = "Identity"
            node.attr.clear()
            node.attr["T"].type = kinds[node.input[0]]
        node.input[:] = [renamed.get(name, name) for name in node.input]


@functools.cache
def _adam() -> Any:
    """ResourceApplyAdam (Keras's Adam) on values, as its TPU kernel computes it: new values, moments."""

    def update(value, m, v, power_1, power_2, rate, beta_1, beta_2, epsilon, gradient):  # type: ignore[no-untyped-def]
        m += (gradient - m) * (1 - beta_1)
        v += (tf.square(gradient) - v) * (1 - beta_2)
        step = rate * tf.sqrt(1 - power_2) / (1 - power_1)
        return value - step * m / (tf.sqrt(v) + epsilon), m, v

    return tf.function(update, autograph=False).get_concrete_function(*[tf.TensorSpec(None, tf.float32)] * 10)

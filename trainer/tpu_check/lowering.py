"""Lower a step that a TPUStrategy traced to the HLO that TensorFlow passes to a TPU's compiler, and check it; no TPU.

What a TPU cannot do, or does badly, raises UserError with the operator and the line of code that created it. This needs
the distribution tensorflow-tpu: plain TensorFlow cannot lower for the platform TPU.
"""

import dataclasses
import os
import re
from typing import Any

import tensorflow as tf
from tensorflow.compiler.xla import xla_data_pb2
from tensorflow.compiler.xla.service import hlo_pb2
from tensorflow.python.framework import op_def_registry

from trainer.errors import Problem, UserError
from trainer.tpu_check.functional_graph import REPLACEMENTS, FunctionalGraph, build_functional_graph, in_cluster

# Stateful operators, by TensorFlow's definition, that a TPU runs: transfers between its cores, and control flow.
DEVICE_OPERATORS = ("CrossReplicaSum", "AllToAll", "CollectivePermute", "If", "Case", "StatefulPartitionedCall")

# HLO instructions that exchange data with the host.
HOST_INSTRUCTIONS = ("infeed", "outfeed", "send", "recv")
# HLO instructions whose result has a size that is known only at run time.
DYNAMIC_INSTRUCTIONS = ("set-dimension-size", "dynamic-reshape")


ADVICE = "Remove it from the step."


@dataclasses.dataclass(frozen=True)
class Program:
    """One replica's program of a step, as input of the compiler."""

    hlo: bytes  # An HloModuleProto.
    variable_bytes: int  # The size of the variables among its inputs.


def lower_function(traced: Any) -> Program:
    """Return the program of a traced function (a ConcreteFunction) that calls `strategy.run` once.

    Raises UserError for operators of the host, strings, float64, and shapes that are known only at run time.
    """
    check_operators(traced.graph)
    functional = build_functional_graph(traced.graph)

    def step(*values: tf.Tensor) -> list[tf.Tensor]:
        input_map = {f"{name}:0": value for name, value in zip(functional.inputs, values, strict=True)}
        return tf.graph_util.import_graph_def(
            functional.graph, input_map=input_map, return_elements=functional.results, name=""
        )

    compiled = tf.function(step, jit_compile=True, autograph=False)
    specs = list(functional.inputs.values())
    try:
        hlo = compiled.experimental_get_compiler_ir(*specs)(stage="hlo_serialized", platform_name="TPU")
    except (ValueError, tf.errors.OpError) as error:
        raise UserError(Problem("Every operator of a step", "lower for a TPU", str(error).strip()[:600])) from None
    module = hlo_pb2.HloModuleProto.FromString(hlo)
    check_instructions(module, traced.graph)
    _update_in_place(module, functional)
    size = sum(
        functional.inputs[name].shape.num_elements() * functional.inputs[name].dtype.size
        for name in functional.variables
    )
    return Program(module.SerializeToString(), size)


def _update_in_place(module: hlo_pb2.HloModuleProto, functional: FunctionalGraph) -> None:
    """Let each new value reuse the memory of its variable, as on a TPU."""
    parameters = list(functional.inputs)
    for index, name in enumerate(functional.assigned, len(functional.outputs)):
        module.input_output_alias.entries.add(
            output_shape_index=[index], parameter_number=parameters.index(name), kind=hlo_pb2.MAY_ALIAS
        )


# --- What a TPU cannot do -------------------------------------------------------------------------


def check_batch(spec: dict[str, tf.TensorSpec]) -> None:
    """Raises UserError unless every dimension of a batch is static."""
    for name, x in spec.items():
        if not x.shape.is_fully_defined():
            raise UserError(
                Problem(
                    "The shape of every input",
                    "be known before a TPU's program is compiled",
                    f"{name}, {x.dtype.name} {x.shape}",
                    "Pad the texts to data.seq_length, and the batch with masked rows.",
                )
            )


def check_operators(graph: tf.Graph) -> None:
    """Raises UserError for the first operator of the cluster that a TPU cannot, or should not, run."""
    for op in filter(lambda op: in_cluster(op.node_def), graph.get_operations()):
        dtypes = {x.dtype.base_dtype for x in (*op.inputs, *op.outputs)}
        if required := _find_violated_rule(op.type, dtypes):
            raise UserError(Problem("A step", required, f"{op.type}, {op.name}, {find_origin(op)}", ADVICE))
    # The bodies of loops and branches, which have no traceback.
    for function in graph.as_graph_def().library.function:
        for node in function.node_def:
            enums = {enum for value in node.attr.values() for enum in (value.type, *value.list.type) if enum}
            if required := _find_violated_rule(node.op, set(map(tf.as_dtype, enums))):
                received = f"{node.op}, {node.name}, inside {function.signature.name}"
                raise UserError(Problem("A step", required, received, ADVICE))


def _find_violated_rule(operator: str, dtypes: set[tf.DType]) -> str:
    """Return what a step must do that an operator with inputs, outputs or attributes of these types does not; or ""."""
    definition = op_def_registry.get(operator)
    if tf.string in dtypes:
        return "have no strings: a TPU has none"
    if dtypes & {tf.float64, tf.complex128}:
        return "compute in float32 or bfloat16: a TPU only emulates float64"
    if operator in (*REPLACEMENTS, "While", "Identity"):
        return ""
    if tf.resource in dtypes:
        return f"use variables only in {', '.join(REPLACEMENTS)}"
    if definition is not None and definition.is_stateful and operator not in DEVICE_OPERATORS:
        return "depend on its inputs and variables alone, without operators of the host and without random state"
    return ""


def find_origin(op: tf.Operation) -> str:
    """Return the innermost line of our code that created an operator: "from trainer/train/steps.py:72 in step"."""
    ours = [frame for frame in op.traceback if f"{os.sep}site-packages{os.sep}" not in frame.filename]
    ours = [frame for frame in ours if "/trainer/tpu_check/" not in frame.filename] or ours
    if not ours:
        return "from a package"
    return f"from {os.path.relpath(ours[-1].filename)}:{ours[-1].lineno} in {ours[-1].name}"


def check_instructions(module: hlo_pb2.HloModuleProto, graph: tf.Graph) -> None:
    """Raises UserError for the first instruction that needs the host, is float64 or has a dynamic shape."""
    operators = {op.name: op for op in graph.get_operations()}
    for computation in module.computations:
        for x in computation.instructions:
            if x.opcode in HOST_INSTRUCTIONS:
                required = "have no transfer from or to the host inside a step"
            elif x.opcode in DYNAMIC_INSTRUCTIONS or any(any(s.is_dynamic_dimension) for s in _arrays(x.shape)):
                required = "have shapes that are known before the step runs"
            elif any(s.element_type in (xla_data_pb2.F64, xla_data_pb2.C128) for s in _arrays(x.shape)):
                required = "have float32 or bfloat16: a TPU only emulates float64"
            else:
                continue
            name = re.sub(r"^.*\)/|:$", "", x.metadata.op_name)
            origin = find_origin(operators[name]) if name in operators else "of an unknown operator"
            received = f"{x.opcode} of {x.metadata.op_type} {x.metadata.op_name}, {origin}"
            raise UserError(Problem("A TPU's program", required, received, ADVICE))


def _arrays(shape: xla_data_pb2.ShapeProto) -> list[xla_data_pb2.ShapeProto]:
    """Return the array shapes inside a shape, which may be a tuple of tuples."""
    return [array for part in shape.tuple_shapes for array in _arrays(part)] or [shape]

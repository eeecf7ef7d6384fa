"""A step traced by a TPUStrategy -> the HLO that TensorFlow hands to a TPU's compiler, checked; without a TPU.

What a TPU cannot do, or does badly, is refused with its operator and the line that made it. Needs the
distribution tensorflow-tpu: plain TensorFlow cannot lower for the platform TPU.
"""

import dataclasses
import os
import re
from typing import Any

import tensorflow as tf
from tensorflow.compiler.xla import xla_data_pb2
from tensorflow.compiler.xla.service import hlo_pb2
from tensorflow.python.framework import op_def_registry

from trainer.tpu_check.functional_graph import REWRITTEN, Pure, in_cluster, make_pure

# Operators that TensorFlow counts as stateful, and that are a TPU's own: transfers between its cores; control flow.
DEVICE = ("CrossReplicaSum", "AllToAll", "CollectivePermute", "If", "Case", "StatefulPartitionedCall")

# HLO instructions by which a program talks to its host, or that give a tensor a size known only when it runs.
HOST = ("infeed", "outfeed", "send", "recv")
DYNAMIC = ("set-dimension-size", "dynamic-reshape")


@dataclasses.dataclass(frozen=True)
class Program:
    """A step as one replica's program, as the compiler takes it."""

    hlo: bytes  # an HloModuleProto
    variable_bytes: int  # of the variables among its inputs


def lower(traced: Any) -> Program:
    """The program of a traced function (a ConcreteFunction) that calls `strategy.run` once.

    Raises ValueError for operators of the host, strings, float64, and shapes that are known only when it runs.
    """
    check_operators(traced.graph)
    pure = make_pure(traced.graph)

    def step(*values: tf.Tensor) -> list[tf.Tensor]:
        given = {f"{name}:0": value for name, value in zip(pure.inputs, values, strict=True)}
        return tf.graph_util.import_graph_def(pure.graph, input_map=given, return_elements=pure.results, name="")

    compiled = tf.function(step, jit_compile=True, autograph=False)
    specs = list(pure.inputs.values())
    try:
        hlo = compiled.experimental_get_compiler_ir(*specs)(stage="hlo_serialized", platform_name="TPU")
    except (ValueError, tf.errors.OpError) as error:
        raise ValueError(
            f"Every operator of the step must lower for a TPU. Received: {str(error).strip()[:600]}"
        ) from None
    module = hlo_pb2.HloModuleProto.FromString(hlo)
    check_instructions(module, traced.graph)
    _update_in_place(module, pure)
    size = sum(pure.inputs[name].shape.num_elements() * pure.inputs[name].dtype.size for name in pure.variables)
    return Program(module.SerializeToString(), size)


def _update_in_place(module: hlo_pb2.HloModuleProto, pure: Pure) -> None:
    """Let each new value take its variable's memory, as on a TPU."""
    parameters = list(pure.inputs)
    for index, name in enumerate(pure.assigned, len(pure.outputs)):
        module.input_output_alias.entries.add(
            output_shape_index=[index], parameter_number=parameters.index(name), kind=hlo_pb2.MAY_ALIAS
        )


# --- What a TPU cannot do -------------------------------------------------------------------------


def check_batch(spec: dict[str, tf.TensorSpec]) -> None:
    """Raises ValueError unless every dimension of a batch is known before it is there."""
    for name, x in spec.items():
        if not x.shape.is_fully_defined():
            raise ValueError(
                f"The shape of every input must be known before a TPU's program is compiled. Received: {name}, "
                f"{x.dtype.name} {x.shape}. Pad it to data.seq_length, and the batch's rows with rows of weight 0."
            )


def check_operators(graph: tf.Graph) -> None:
    """Raises ValueError for the first operator of the cluster that cannot be, or should not be, on a TPU."""
    for op in filter(lambda op: in_cluster(op.node_def), graph.get_operations()):
        dtypes = {x.dtype.base_dtype for x in (*op.inputs, *op.outputs)}
        if problem := _problem(op.type, dtypes):
            raise ValueError(f"{problem} Received: {op.type}, {op.name}, {origin(op)}. Take it out of the step.")
    # The bodies of loops and branches, which do not know where they are from.
    for function in graph.as_graph_def().library.function:
        for node in function.node_def:
            numbers = {number for value in node.attr.values() for number in (value.type, *value.list.type) if number}
            if problem := _problem(node.op, set(map(tf.as_dtype, numbers))):
                inside = function.signature.name
                raise ValueError(
                    f"{problem} Received: {node.op}, {node.name}, inside {inside}. Take it out of the step."
                )


def _problem(operator: str, dtypes: set[tf.DType]) -> str:
    """What must be otherwise with an operator that has inputs, outputs or attributes of these types; "" if nothing."""
    definition = op_def_registry.get(operator)
    if tf.string in dtypes:
        return "A step must have no strings: a TPU has none."
    if dtypes & {tf.float64, tf.complex128}:
        return "A step must compute in float32 or bfloat16: a TPU only emulates float64."
    if operator in (*REWRITTEN, "While", "Identity"):
        return ""
    if tf.resource in dtypes:
        return f"What a step does with a variable must be one of {', '.join(REWRITTEN)}."
    if definition is not None and definition.is_stateful and operator not in DEVICE:
        return "A step must depend on its inputs and variables alone: no operator of the host, no random state."
    return ""


def origin(op: tf.Operation) -> str:
    """`trainer/train/steps.py:72 in step`: the innermost line of ours, not of a package's, that made this operator."""
    ours = [frame for frame in op.traceback if f"{os.sep}site-packages{os.sep}" not in frame.filename]
    ours = [frame for frame in ours if "/trainer/tpu_check/" not in frame.filename] or ours
    if not ours:
        return "from a package"
    return f"from {os.path.relpath(ours[-1].filename)}:{ours[-1].lineno} in {ours[-1].name}"


def check_instructions(module: hlo_pb2.HloModuleProto, graph: tf.Graph) -> None:
    """Raises ValueError for the first instruction that talks to the host, is float64 or has a dynamic shape."""
    operators = {op.name: op for op in graph.get_operations()}
    for computation in module.computations:
        for x in computation.instructions:
            if x.opcode in HOST:
                problem = "no transfer from or to the host inside a step"
            elif x.opcode in DYNAMIC or any(any(s.is_dynamic_dimension) for s in _arrays(x.shape)):
                problem = "shapes that are known before the step runs"
            elif any(s.element_type in (xla_data_pb2.F64, xla_data_pb2.C128) for s in _arrays(x.shape)):
                problem = "float32 or bfloat16: a TPU only emulates float64"
            else:
                continue
            name = re.sub(r"^.*\)/|:$", "", x.metadata.op_name)
            where = origin(operators[name]) if name in operators else "of an unknown operator"
            raise ValueError(
                f"A TPU's program must have {problem}. Received: {x.opcode} of {x.metadata.op_type} "
                f"{x.metadata.op_name}, {where}. Take it out of the step."
            )


def _arrays(shape: xla_data_pb2.ShapeProto) -> list[xla_data_pb2.ShapeProto]:
    """The array shapes inside a shape, which may be a tuple of tuples."""
    return [array for part in shape.tuple_shapes for array in _arrays(part)] or [shape]

"""Read the weights of a PyTorch module from its export to ONNX, by the names that PyTorch has for them.

ONNX is a format of protocol buffers. These few fields of its messages are enough; protobuf, which is installed anyway,
skips the others. The package onnx would be another dependency of 9 MB.
Sources: onnx/onnx.proto; torch.onnx.export, which stores a linear layer's kernel transposed, as onnx::MatMul_470.
"""

from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from trainer.errors import Problem, UserError

FLOAT = 1  # TensorProto.DataType

_Field = descriptor_pb2.FieldDescriptorProto
# A message -> its fields: name, number, type, whether it is a list, and the message that it holds.
_MESSAGES = {
    "Tensor": [
        ("dims", 1, _Field.TYPE_INT64, True, ""),
        ("data_type", 2, _Field.TYPE_INT32, False, ""),
        ("name", 8, _Field.TYPE_STRING, False, ""),
        ("raw_data", 9, _Field.TYPE_BYTES, False, ""),
    ],
    "Node": [
        ("input", 1, _Field.TYPE_STRING, True, ""),
        ("output", 2, _Field.TYPE_STRING, True, ""),
        ("op_type", 4, _Field.TYPE_STRING, False, ""),
    ],
    "Graph": [
        ("node", 1, _Field.TYPE_MESSAGE, True, "Node"),
        ("initializer", 5, _Field.TYPE_MESSAGE, True, "Tensor"),
    ],
    "Model": [("graph", 7, _Field.TYPE_MESSAGE, False, "Graph")],
}


def _model_class() -> Any:
    """A class of protobuf's for the message Model."""
    file = descriptor_pb2.FileDescriptorProto(name="onnx_weights.proto", package="onnx_weights")
    for message, fields in _MESSAGES.items():
        described = file.message_type.add(name=message)
        for name, number, kind, is_list, held in fields:
            label = _Field.LABEL_REPEATED if is_list else _Field.LABEL_OPTIONAL
            type_name = f".onnx_weights.{held}" if held else None
            described.field.add(name=name, number=number, type=kind, label=label, type_name=type_name)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("onnx_weights.Model"))


def read_tensors(path: Path, prefix: str = "") -> dict[str, np.ndarray]:
    """The float32 weights of a module by PyTorch's names, without `prefix`; kernels are [out, in], as in PyTorch.

    Raises UserError if the file is cut, of another format, or has a weight of another type.
    """
    try:
        graph = _model_class().FromString(path.read_bytes()).graph
    except DecodeError:
        graph = None
    if graph is None or not graph.initializer:
        received = f"{path.stat().st_size:,} bytes without weights"
        raise UserError(Problem(str(path), "be a complete ONNX file", received, "Download it again."))
    kernels = _find_kernels(graph)
    return {
        kernels.get(tensor.name, tensor.name).removeprefix(prefix): _read(path, tensor, tensor.name in kernels)
        for tensor in graph.initializer
    }


def _find_kernels(graph: Any) -> dict[str, str]:
    """The name of every kernel that is multiplied by and has a bias added -> PyTorch's name, which the bias shows."""
    stored = {tensor.name for tensor in graph.initializer}
    binary = [
        (node.op_type, *node.input, *node.output)
        for node in graph.node
        if (len(node.input), len(node.output)) == (2, 1)
    ]
    products = {output: kernel for kind, _, kernel, output in binary if kind == "MatMul" and kernel in stored}
    return {
        products[product]: bias.removesuffix("bias") + "weight"
        for kind, left, right, _ in binary
        for bias, product in ((left, right), (right, left))
        if kind == "Add" and bias.endswith(".bias") and bias in stored and product in products
    }


def _read(path: Path, tensor: Any, is_transposed: bool) -> np.ndarray:
    shape = tuple(tensor.dims)
    if tensor.data_type != FLOAT or len(tensor.raw_data) != 4 * np.prod(shape, dtype=np.int64):
        required = "hold its numbers as float32"
        received = f"{len(tensor.raw_data):,} bytes of type {tensor.data_type} for the shape {shape}"
        raise UserError(Problem(f"{tensor.name} in {path}", required, received))
    value = np.frombuffer(tensor.raw_data, "<f4").reshape(shape)
    return value.T if is_transposed else value

import struct

import numpy as np
import pytest

from trainer.encoders import onnx_files
from trainer.errors import UserError

KERNEL, BIAS = np.arange(6, dtype=np.float32).reshape(2, 3), np.array([7, 8, 9], np.float32)


def varint(value: int) -> bytes:
    return bytes([value & 127 | 128]) + varint(value >> 7) if value > 127 else bytes([value])


def field(number: int, value: bytes | str | int) -> bytes:
    """A field of a protocol buffer."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    content = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(content)) + content


def tensor(name: str, value: np.ndarray, data_type: int = onnx_files.FLOAT) -> bytes:
    """A TensorProto in a GraphProto, by the numbers in onnx.proto."""
    dims = b"".join(field(1, size) for size in value.shape)
    return field(5, dims + field(2, data_type) + field(8, name) + field(9, value.tobytes()))


def node(kind: str, inputs: list[str], output: str) -> bytes:
    named = b"".join(field(1, name) for name in inputs)
    return field(1, named + field(2, output) + field(3, f"/{output}") + field(4, kind))


def linear(*inputs: str) -> list[bytes]:
    """A linear layer as PyTorch exports it: the sum's operands in either order."""
    product = node("MatMul", ["x", "onnx::MatMul_7"], "product")
    return [product, node("Add", list(inputs), "sum"), tensor("onnx::MatMul_7", KERNEL), tensor("m.dense.bias", BIAS)]


@pytest.fixture
def read(tmp_path):
    """A function parts of a graph -> the tensors of a file with them."""

    def read_file(parts, cut=None, prefix="m."):
        path = tmp_path / "model.onnx"
        path.write_bytes((field(1, 8) + field(2, "pytorch") + field(7, b"".join(parts) + field(2, "graph")))[:cut])
        return onnx_files.read_tensors(path, prefix)

    return read_file


@pytest.mark.parametrize("inputs", [("m.dense.bias", "product"), ("product", "m.dense.bias")])
def test_a_kernel_has_the_name_and_layout_of_pytorch(read, inputs):
    tensors = read(linear(*inputs))
    assert sorted(tensors) == ["dense.bias", "dense.weight"]
    assert np.array_equal(tensors["dense.weight"], KERNEL.T)
    assert np.array_equal(tensors["dense.bias"], BIAS)


def test_a_tensor_that_nothing_multiplies_keeps_its_name(read):
    tensors = read([tensor("m.embeddings.weight", KERNEL), node("Gather", ["m.embeddings.weight", "ids"], "x")])
    assert np.array_equal(tensors["embeddings.weight"], KERNEL)


@pytest.mark.parametrize(
    "part",
    [
        tensor("x", KERNEL, data_type=10),
        tensor("x", KERNEL.astype(np.float16)),
        field(5, field(1, 4) + field(2, onnx_files.FLOAT) + field(8, "x") + field(9, struct.pack("<f", 1.0))),
    ],
)
def test_numbers_of_another_type_are_refused(read, part):
    with pytest.raises(UserError, match=r"x in .*float32"):
        read([part])


@pytest.mark.parametrize(("parts", "cut"), [(linear("product", "m.dense.bias"), 60), ([], None), ([], 0)])
def test_a_cut_or_empty_file_is_named(read, tmp_path, parts, cut):
    with pytest.raises(UserError, match=rf"{tmp_path}/model\.onnx must be a complete ONNX file"):
        read(parts, cut=cut)

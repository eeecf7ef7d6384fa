import pickle
import zipfile

import numpy as np
import pytest
from fakes import torch_files as written
from fakes.bert import random_weights

from trainer.encoders import torch_files
from trainer.errors import UserError

NUMBERS = np.arange(12, dtype=np.float32)
CONTENT = NUMBERS.tobytes()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "pytorch_model.bin"


def write_view(path, offset, shape, strides, kind="Float", key="0", count=12, content=CONTENT, **options):
    described = written.tensor(written.storage(kind, key, count), offset, shape, strides)
    written.write_archive(path, written.state_dict({"x": described}), {"0": content}, **options)


def find_problem(path):
    with pytest.raises(UserError) as caught:
        torch_files.read_tensors(path)
    (problem,) = caught.value.problems
    assert problem.setting == str(path)
    assert "safetensors.torch.save_file" in problem.advice
    return problem.received


# --- Tensors --------------------------------------------------------------------------------------


def test_tensors_are_read_by_name(path):
    written.write_state_dict(random_weights(), path)
    read = torch_files.read_tensors(path)
    assert list(read) == list(random_weights())
    assert all(np.array_equal(read[name], value) for name, value in random_weights().items())


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int64, np.int32])
def test_numbers_keep_their_type(path, dtype):
    written.write_state_dict({"x": np.arange(-2, 4).astype(dtype)}, path)
    read = torch_files.read_tensors(path)["x"]
    assert read.dtype == dtype
    assert read.tolist() == [-2, -1, 0, 1, 2, 3]


def test_bfloat16_becomes_float32(path):
    numbers = np.array([1.0, -2.5, 3.140625, float("inf")], np.float32)
    written.write_state_dict({"x": (numbers.view(np.uint32) >> 16).astype(np.uint16)}, path)
    assert np.array_equal(torch_files.read_tensors(path)["x"], numbers)


@pytest.mark.parametrize(
    ("offset", "shape", "strides", "expected"),
    [
        (0, (3, 4), (4, 1), NUMBERS.reshape(3, 4)),
        (0, (4, 3), (1, 4), NUMBERS.reshape(3, 4).T),
        (5, (3,), (2,), NUMBERS[5::2][:3]),
        (11, (), (), NUMBERS[11]),
        (12, (0, 4), (4, 1), np.zeros([0, 4])),
    ],
)
def test_a_view_has_its_offset_and_strides(path, offset, shape, strides, expected):
    write_view(path, offset, shape, strides)
    assert np.array_equal(torch_files.read_tensors(path)["x"], expected)


def test_parameters_and_shared_storages_are_read(path):
    stored = written.storage("Float", "0", 12)
    plain = written.tensor(stored, 0, (12,), (1,))
    parameter = (
        b"ctorch._utils\n_rebuild_parameter\n"
        + written.tuple_of(plain, b"\x88", written.ORDERED_DICT + written.EMPTY_TUPLE + written.REDUCE)
        + written.REDUCE
    )
    written.write_archive(path, written.state_dict({"a": parameter, "b": plain}), {"0": CONTENT})
    read = torch_files.read_tensors(path)
    assert np.array_equal(read["a"], NUMBERS)
    assert np.array_equal(read["b"], NUMBERS)


# --- What is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (1, (12,), (1,)),
        (0, (3, 4), (5, 1)),
        (0, (13,), (1,)),
        (0, (1 << 30, 1 << 30), (0, 0)),
        (0, (24,), (0,)),
        (-1, (2,), (1,)),
        (3, (2,), (-1,)),
        (0, (3, 4), (4,)),
        (0, (1,) * 9, (1,) * 9),
    ],
)
def test_a_view_beyond_its_storage_is_refused(path, offset, shape, strides):
    write_view(path, offset, shape, strides)
    assert "tensor of" in find_problem(path)


@pytest.mark.parametrize(
    ("options", "received"),
    [
        (dict(count=11), "48 bytes in data/0 for 11 numbers"),
        (dict(content=b""), "0 bytes in data/0"),
        (dict(key="1"), "no data/1"),
        (dict(key="../data.pkl"), "no data/../data.pkl"),
        (dict(kind="ComplexFloat"), "the name torch.ComplexFloatStorage"),
        (dict(compression=zipfile.ZIP_DEFLATED), "compressed members"),
    ],
)
def test_a_storage_that_does_not_fit_is_refused(path, options, received):
    write_view(path, 0, (1,), (1,), **options)
    assert received in find_problem(path)


class Harmful:
    """What a pickle runs when it is loaded."""

    def __init__(self, function, *arguments):
        self.reduced = (function, arguments)

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("function", [exec, print, getattr])
def test_a_pickle_that_runs_something_is_refused_unrun(path, protocol, function, tmp_path):
    code = f"open({str(tmp_path / 'made')!r}, 'w')"
    content = pickle.dumps({"x": Harmful(function, code)}, protocol)
    written.write_archive(path, content, {})
    find_problem(path)
    path.write_bytes(content)  # PyTorch's format of before 1.6
    find_problem(path)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


NAME, VALUE = written.text("x"), written.integer(1)
MADE = written.ORDERED_DICT + written.EMPTY_TUPLE + written.REDUCE


@pytest.mark.parametrize(
    ("content", "received"),
    [
        (b"N.", "None instead of a state_dict"),
        (written.EMPTY_DICT + NAME + VALUE + b"s.", "int under the name 'x'"),
        (written.EMPTY_DICT + VALUE + VALUE + b"s.", "int as a name"),
        (written.EMPTY_DICT + written.tuple_of() + VALUE + b"s.", "tuple as a name"),
        (b"cos\nsystem\n.", "the name os.system"),
        (b"ctorch.serialization\nload\n.", "the name torch.serialization.load"),
        (b"ccollections\nOrderedDict\n" + written.tuple_of(VALUE) + b"R.", "a call of collections.OrderedDict"),
        (b"ctorch\nFloatStorage\n)R.", "a call of torch.FloatStorage"),
        (NAME + written.EMPTY_TUPLE + b"R.", "a call of a value of type str"),
        (written.tuple_of(NAME, NAME, NAME, NAME, VALUE) + b"Q.", "a reference to something"),
        (NAME + written.EMPTY_DICT + b"b.", "the state of a value of type str"),
        (MADE + b"2.", "the instruction DUP"),
        (MADE + b"\x81.", "the instruction NEWOBJ"),
        (b"h\x07.", "damaged"),
        (b"t.", "damaged"),
        (b".", "damaged"),
        (b"R.", "damaged"),
        (b"X\xff\xff\xff\x7fx.", "damaged"),
        (b"", "damaged"),
        (MADE, "damaged"),
    ],
)
def test_anything_but_a_state_dict_is_refused(path, content, received):
    written.write_archive(path, content, {})
    assert received in find_problem(path)


@pytest.mark.parametrize("length", [0, 10, 1000, -1])
def test_a_cut_file_is_refused(path, length):
    written.write_state_dict(random_weights(), path)
    path.write_bytes(path.read_bytes()[:length])
    assert "bytes that cannot be read" in find_problem(path)


def test_a_flipped_byte_is_noticed(path):
    written.write_state_dict(random_weights(), path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert "cannot be read" in find_problem(path)


def test_a_large_pickle_and_other_byte_orders_are_refused(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", bytes(torch_files.MAX_PICKLE_BYTES + 1))
    assert "a pickle of more than" in find_problem(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"")
        archive.writestr("archive/byteorder", "big")
    assert "little-endian" in find_problem(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.pkl", b"")
    assert "0 pickles" in find_problem(path)

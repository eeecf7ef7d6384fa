"""Read the tensors of PyTorch's own files, pytorch_model.bin, without PyTorch, and without running what they hold.

Such a file is a zip archive of one pickle, data.pkl, and of the tensors' bytes. A pickle is a program. Nothing here
executes it: `pickletools` splits it into instructions, and those that a state_dict of tensors consists of are
interpreted as data. Any other instruction or name is refused, as by torch.load(weights_only=True).
Sources: torch/serialization.py (_save), torch/_weights_only_unpickler.py, Python's pickletools.py.
"""

import dataclasses
import math
import pickletools
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trainer.errors import Problem, UserError, describe_error

MAX_PICKLE_BYTES = 16 << 20  # BERT-large's has 60 kB.
MAX_DIMENSIONS = 8

# A plain save_file refuses tensors that share their storage, as those of a head for masked words do.
_ADVICE = (
    "Write model.safetensors next to it where PyTorch is installed: safetensors.torch.save_file({name: "
    'tensor.contiguous().clone() for name, tensor in torch.load("pytorch_model.bin", weights_only=True).items()}, '
    '"model.safetensors").'
)
# The storage types that a file may name -> how their bytes are read. bfloat16 is the upper half of float32.
_DTYPES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "BFloat16Storage": "<u2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "|i1",
    "ByteStorage": "|u1",
    "BoolStorage": "|b1",
}


class _Refused(ValueError):
    """The file holds something else than tensors. The message says what, as a noun."""


@dataclasses.dataclass(frozen=True)
class _Global:
    """A name of the closed list."""

    name: str


@dataclasses.dataclass(frozen=True)
class _Storage:
    """Numbers of one type in the archive."""

    dtype: str  # A key of _DTYPES.
    key: str  # The name of its member is data/{key}.
    count: int


@dataclasses.dataclass(frozen=True)
class _Tensor:
    """A view of a storage, in numbers, not bytes."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


_GLOBALS = {
    "collections OrderedDict",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
    *(f"torch {name}" for name in _DTYPES),
}


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a state_dict by name, bfloat16 as float32.

    Raises UserError if the file is damaged, has PyTorch's format of before 1.6, or holds anything but tensors.
    """
    required = "be a complete file of PyTorch 1.6 or later that holds tensors alone"
    try:
        with zipfile.ZipFile(path) as archive:
            return _read_archive(archive, path.stat().st_size)
    except _Refused as error:
        raise UserError(Problem(str(path), required, str(error), _ADVICE)) from None
    except (zipfile.BadZipFile, EOFError, OSError, ValueError, NotImplementedError, RuntimeError) as error:
        received = f"{path.stat().st_size:,} bytes that cannot be read ({describe_error(error)})"
        raise UserError(Problem(str(path), required, received, f"Download it again, if it is cut. {_ADVICE}")) from None


def _read_archive(archive: zipfile.ZipFile, size: int) -> dict[str, np.ndarray]:
    members = {info.filename: info for info in archive.infolist()}
    pickles = [name for name in members if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise _Refused(f"{len(pickles)} pickles")
    folder = pickles[0].removesuffix("data.pkl")
    if sum(info.file_size for info in members.values()) > size:
        raise _Refused("members that overlap")
    if any(info.compress_type != zipfile.ZIP_STORED for info in members.values()):
        raise _Refused("compressed members, which PyTorch does not write")
    if members[pickles[0]].file_size > MAX_PICKLE_BYTES:
        raise _Refused(f"a pickle of more than {MAX_PICKLE_BYTES:,} bytes")
    if f"{folder}byteorder" in members and archive.read(f"{folder}byteorder") != b"little":
        raise _Refused("numbers that are not little-endian")
    state = _interpret(archive.read(pickles[0]))
    tensors = _named_tensors(state)
    used = {tensor.storage for tensor in tensors.values()}
    storages = {storage: _read_storage(archive, folder, storage) for storage in used}
    return {name: _view(tensor, storages[tensor.storage]) for name, tensor in tensors.items()}


def _named_tensors(state: Any) -> dict[str, _Tensor]:
    if not isinstance(state, dict):
        raise _Refused(f"{_describe(state)} instead of a state_dict")
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, _Tensor):
            raise _Refused(f"{_describe(value)} under the name {name!r}")
    return state


def _read_storage(archive: zipfile.ZipFile, folder: str, storage: _Storage) -> np.ndarray:
    dtype = np.dtype(_DTYPES[storage.dtype])
    try:
        content = archive.read(f"{folder}data/{storage.key}")
    except KeyError:
        raise _Refused(f"no data/{storage.key}") from None
    if len(content) != storage.count * dtype.itemsize:
        raise _Refused(f"{len(content):,} bytes in data/{storage.key} for {storage.count:,} numbers")
    numbers = np.frombuffer(content, dtype)
    return (numbers.astype(np.uint32) << 16).view(np.float32) if storage.dtype == "BFloat16Storage" else numbers


def _view(tensor: _Tensor, numbers: np.ndarray) -> np.ndarray:
    """A read-only view. Raises _Refused if it leaves the storage, or repeats its numbers."""
    last = tensor.offset + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.strides, strict=True))
    count = math.prod(tensor.shape)
    if count > numbers.size or (count and last >= numbers.size):
        raise _Refused(f"a tensor of shape {tensor.shape} that is larger than its {numbers.size:,} numbers")
    strides = [stride * numbers.itemsize for stride in tensor.strides]
    return np.lib.stride_tricks.as_strided(
        numbers[tensor.offset :] if count else numbers[:0], tensor.shape, strides, writeable=False
    )


# --- The pickle -----------------------------------------------------------------------------------

_Stack = list[Any]
_MARK = object()


def _interpret(pickle: bytes) -> Any:
    """What a pickle describes: dicts with text as keys, lists, tuples, numbers, texts and _Tensors."""
    stack: _Stack = []
    memory: dict[int, Any] = {}
    try:
        argument: Any
        for opcode, argument, _ in pickletools.genops(pickle):
            if opcode.name in ("BINPUT", "LONG_BINPUT"):
                memory[argument] = stack[-1]
            elif opcode.name in ("BINGET", "LONG_BINGET"):
                stack.append(memory[argument])
            elif opcode.name in _INSTRUCTIONS:
                _INSTRUCTIONS[opcode.name](stack, argument)
            else:
                raise _Refused(f"the instruction {opcode.name}")
        return stack.pop()
    except _Refused:
        raise
    except (IndexError, KeyError, TypeError, ValueError, StopIteration) as error:
        raise _Refused(f"a pickle that is damaged ({describe_error(error)})") from None


def _push(stack: _Stack, argument: Any) -> None:
    stack.append(argument)


def _push_global(stack: _Stack, argument: str) -> None:
    if argument not in _GLOBALS:
        raise _Refused(f"the name {argument.replace(' ', '.')}")
    stack.append(_Global(argument))


def _pop_to_mark(stack: _Stack) -> list[Any]:
    start = next(i for i in reversed(range(len(stack))) if stack[i] is _MARK)
    values = stack[start + 1 :]
    del stack[start:]
    return values


def _push_tuple(count: int) -> Callable[[_Stack, Any], None]:
    def push(stack: _Stack, _: Any) -> None:
        values = tuple(stack.pop() for _ in range(count))[::-1]
        stack.append(values)

    return push


def _set_items(stack: _Stack, items: Sequence[Any]) -> None:
    target = stack[-1]
    for name, value in zip(items[::2], items[1::2], strict=True):
        # The hash of a tuple in a tuple in a tuple, and so on, would overflow the interpreter's stack.
        if not isinstance(target, dict) or not isinstance(name, str):
            raise _Refused(f"{_describe(name)} as a name")
        target[name] = value


def _append_items(stack: _Stack, items: Sequence[Any]) -> None:
    if not isinstance(stack[-1], list):
        raise _Refused(f"{_describe(stack[-1])} instead of a list")
    stack[-1].extend(items)


def _push_storage(stack: _Stack, _: Any) -> None:
    kind, dtype, key, _, count = stack.pop()
    if kind != "storage" or not isinstance(dtype, _Global) or not isinstance(key, str) or not _are_sizes([count]):
        raise _Refused("a reference to something that is no storage")
    stack.append(_Storage(dtype.name.removeprefix("torch "), key, count))


def _call(stack: _Stack, _: Any) -> None:
    """What the three functions of _GLOBALS return, of which none is called."""
    arguments, function = stack.pop(), stack.pop()
    if not isinstance(function, _Global) or not isinstance(arguments, tuple):
        raise _Refused(f"a call of {_describe(function)}")
    if function.name == "collections OrderedDict" and not arguments:
        stack.append({})
    elif function.name == "torch._utils _rebuild_parameter" and isinstance(arguments[0], _Tensor):
        stack.append(arguments[0])
    elif function.name == "torch._utils _rebuild_tensor_v2":
        storage, offset, shape, strides = arguments[:4]
        if not isinstance(storage, _Storage) or storage.dtype not in _DTYPES:
            raise _Refused("a tensor of no storage")
        sizes = [offset, *shape, *strides]
        if not _are_sizes(sizes) or len(shape) != len(strides) or len(shape) > MAX_DIMENSIONS:
            raise _Refused("a tensor of impossible sizes")
        stack.append(_Tensor(storage, offset, tuple(shape), tuple(strides)))
    else:
        raise _Refused(f"a call of {function.name.replace(' ', '.')} with {len(arguments)} arguments")


def _ignore_state(stack: _Stack, _: Any) -> None:
    """A state_dict has the versions of its modules as an attribute."""
    state = stack.pop()
    if not isinstance(state, dict) or not isinstance(stack[-1], dict):
        raise _Refused(f"the state of {_describe(stack[-1])}")


def _are_sizes(values: Sequence[Any]) -> bool:
    return all(type(value) is int and 0 <= value < 1 << 48 for value in values)


def _describe(value: Any) -> str:
    names = {_Tensor: "a tensor", _Storage: "a storage", _Global: "a name", dict: "a dictionary", type(None): "None"}
    return names.get(type(value), f"a value of type {type(value).__name__}")


# An instruction of pickle's protocol 2, in which PyTorch writes -> what it does with the stack and its own argument.
_INSTRUCTIONS: dict[str, Callable[[_Stack, Any], None]] = {
    **dict.fromkeys(("PROTO", "STOP"), lambda stack, _: None),
    "NONE": lambda stack, _: stack.append(None),
    "NEWTRUE": lambda stack, _: stack.append(True),
    "NEWFALSE": lambda stack, _: stack.append(False),
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE"), _push),
    "MARK": lambda stack, _: stack.append(_MARK),
    "EMPTY_TUPLE": _push_tuple(0),
    "TUPLE1": _push_tuple(1),
    "TUPLE2": _push_tuple(2),
    "TUPLE3": _push_tuple(3),
    "TUPLE": lambda stack, _: stack.append(tuple(_pop_to_mark(stack))),
    "EMPTY_LIST": lambda stack, _: stack.append([]),
    "APPEND": lambda stack, _: _append_items(stack, [stack.pop()]),
    "APPENDS": lambda stack, _: _append_items(stack, _pop_to_mark(stack)),
    "EMPTY_DICT": lambda stack, _: stack.append({}),
    "SETITEM": lambda stack, _: _set_items(stack, [stack.pop(), stack.pop()][::-1]),
    "SETITEMS": lambda stack, _: _set_items(stack, _pop_to_mark(stack)),
    "GLOBAL": _push_global,
    "BINPERSID": _push_storage,
    "REDUCE": _call,
    "BUILD": _ignore_state,
}

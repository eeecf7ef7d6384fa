"""Files as torch.save writes them, put together from pickle's instructions, since PyTorch is not installed.

Source: torch/serialization.py (_save); the instructions in Python's pickletools.py.
"""

import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

MARK, TUPLE, EMPTY_DICT, EMPTY_TUPLE = b"(", b"t", b"}", b")"
REDUCE, BUILD, SETITEM, SETITEMS, PERSISTENT_ID, STOP = b"R", b"b", b"s", b"u", b"Q", b"."
ORDERED_DICT = b"ccollections\nOrderedDict\n"
STORAGES = {"f8": "Double", "f4": "Float", "f2": "Half", "i8": "Long", "i4": "Int", "u2": "BFloat16"}


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def integer(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def tuple_of(*items: bytes) -> bytes:
    return MARK + b"".join(items) + TUPLE


def storage(kind: str, key: str, count: int) -> bytes:
    return tuple_of(text("storage"), b"ctorch\n%sStorage\n" % kind.encode(), text(key), text("cpu"), integer(count)) + (
        PERSISTENT_ID
    )


def tensor(stored: bytes, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> bytes:
    sizes = (tuple_of(*map(integer, shape)), tuple_of(*map(integer, strides)))
    hooks = ORDERED_DICT + EMPTY_TUPLE + REDUCE
    return b"ctorch._utils\n_rebuild_tensor_v2\n" + tuple_of(stored, integer(offset), *sizes, b"\x89", hooks) + REDUCE


def state_dict(tensors: Mapping[str, bytes]) -> bytes:
    """The pickle of an OrderedDict of tensors, with the versions of its modules as an attribute."""
    items = b"".join(text(name) + value for name, value in tensors.items())
    made = ORDERED_DICT + EMPTY_TUPLE + REDUCE
    state = EMPTY_DICT + text("_metadata") + made + SETITEM
    return b"\x80\x02" + made + b"q\x00" + MARK + items + SETITEMS + state + BUILD + STOP


def write_archive(path: Path, pickle: bytes, storages: Mapping[str, bytes], **options: Any) -> None:
    with zipfile.ZipFile(path, "w", **options) as archive:
        archive.writestr("archive/data.pkl", pickle)
        archive.writestr("archive/byteorder", "little")
        for key, content in storages.items():
            archive.writestr(f"archive/data/{key}", content)
        archive.writestr("archive/version", "3\n")


def write_state_dict(tensors: Mapping[str, np.ndarray], path: Path) -> None:
    """Write each tensor with a storage of its own. uint16 stands for bfloat16."""
    described, storages = {}, {}
    for key, (name, value) in enumerate(tensors.items()):
        stored = storage(STORAGES[value.dtype.str[1:]], str(key), value.size)
        strides = tuple(stride // value.itemsize for stride in np.ascontiguousarray(value).strides)
        described[name] = tensor(stored, 0, value.shape, strides)
        storages[str(key)] = value.tobytes()
    write_archive(path, state_dict(described), storages)

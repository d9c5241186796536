"""Write a file that ``torch.load`` reads, tensor by tensor and without torch.

The file is a zip archive whose entries are not compressed: ``data.pkl``, a pickle of the object with a
reference in the place of each tensor's memory, and ``data/0``, ``data/1`` … with that memory. The pickle is
written opcode by opcode, because Python's pickler would import torch to name its functions.

Source: ``torch/serialization.py`` and ``caffe2/serialize/inline_container.cc`` of PyTorch.
"""

import dataclasses
import errno
import itertools
import math
import os
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

_ROOT = "archive"
_PROTOCOL = 2  # of torch.save
_STORAGES = {"float32": "FloatStorage", "float16": "HalfStorage", "bfloat16": "BFloat16Storage"}
_ALIGNMENT = 64  # bytes, so that a mapped file can be used as it lies
_LOCAL_HEADER = 30  # bytes of a zip entry's header before its name
_EXTRA_HEADER = 4  # bytes of identifier and length of a field in that header
_PADDING_FIELD = b"FB"  # identifier of PyTorch's padding


@dataclasses.dataclass(frozen=True, kw_only=True)
class StateDict:
    """Tensors of a file, which are read when it is written.

    Attributes:
        shapes: Shape of each tensor by its name, in order.
        dtype: Element type of all of them: float32, float16 or bfloat16.
        read: Function that returns a tensor by its name, with this shape and type.
    """

    shapes: Mapping[str, tuple[int, ...]]
    dtype: np.dtype
    read: Callable[[str], np.ndarray]


def write_torch_archive(path: Path, entries: Mapping[str, Any], tensors: Mapping[str, StateDict]) -> None:
    """Write a dictionary as ``torch.save`` would.

    Args:
        path: The file.
        entries: Values without tensors by name: numbers, texts and collections of them.
        tensors: Dictionaries of tensors by name, which become further entries.

    Raises:
        OSError: If the file cannot be written, or the disk does not hold what was written.
    """
    numbers = itertools.count()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        _write_entry(archive, "data.pkl", _pickled(entries, tensors))
        _write_entry(archive, "byteorder", b"little")
        for state in tensors.values():
            for name in state.shapes:
                tensor = np.ascontiguousarray(state.read(name))
                _write_entry(archive, f"data/{next(numbers)}", tensor.reshape(-1).view(np.uint8).data)
        _write_entry(archive, "version", b"3\n")
    with path.open("rb") as file:
        os.fsync(file.fileno())
    with zipfile.ZipFile(path) as archive:
        if archive.testzip() is not None:  # compares checksums
            raise OSError(errno.EIO, "the disk does not hold what was written", str(path))


def _write_entry(archive: zipfile.ZipFile, name: str, contents: bytes | memoryview) -> None:
    """Write an entry whose contents begin at a multiple of 64 bytes of the file."""
    info = zipfile.ZipInfo(f"{_ROOT}/{name}")  # dated 1980, so that the same weights make the same file
    assert archive.fp is not None
    begin = archive.fp.tell() + _LOCAL_HEADER + len(info.filename) + _EXTRA_HEADER
    padding = -begin % _ALIGNMENT
    info.extra = _PADDING_FIELD + padding.to_bytes(2, "little") + b"Z" * padding
    info.file_size = len(contents)
    with archive.open(info, "w") as entry:
        entry.write(contents)


def _pickled(entries: Mapping[str, Any], tensors: Mapping[str, StateDict]) -> bytes:
    numbers = itertools.count()
    parts = [pickle.PROTO + bytes([_PROTOCOL]), pickle.EMPTY_DICT, pickle.MARK]
    for name, value in entries.items():
        parts += [_plain(name), _plain(value)]
    for name, state in tensors.items():
        parts += [_plain(name), *_ORDERED_DICT, pickle.MARK]
        for tensor, shape in state.shapes.items():
            parts += [_plain(tensor), *_tensor(str(next(numbers)), shape, state.dtype)]
        parts.append(pickle.SETITEMS)
    return b"".join([*parts, pickle.SETITEMS, pickle.STOP])


def _tensor(key: str, shape: tuple[int, ...], dtype: np.dtype) -> list[bytes]:
    """Return the opcodes of one tensor: a call of the function that joins memory, shape and strides."""
    strides = tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
    reference = [_plain("storage"), _named("torch", _STORAGES[dtype.name]), _plain(key), _plain("cpu")]
    return [
        _named("torch._utils", "_rebuild_tensor_v2"),
        pickle.MARK,
        *(pickle.MARK, *reference, _plain(math.prod(shape)), pickle.TUPLE, pickle.BINPERSID),
        *(_plain(0), _plain(shape), _plain(strides), pickle.NEWFALSE),  # offset, …, needs no gradient
        *_ORDERED_DICT,  # of hooks
        pickle.TUPLE,
        pickle.REDUCE,
    ]


def _named(module: str, name: str) -> bytes:
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()


def _plain(value: Any) -> bytes:
    """Return the opcodes of a value without tensors, between the first and the last of its own pickle."""
    return pickle.dumps(value, protocol=_PROTOCOL)[2:-1]


_ORDERED_DICT = (_named("collections", "OrderedDict"), pickle.EMPTY_TUPLE, pickle.REDUCE)

"""Write a file that ``torch.load`` reads, tensor by tensor and without torch.

The file is a zip archive whose entries are not compressed: ``data.pkl``, a pickle of the object with a
reference in the place of each tensor's memory, and ``data/0``, ``data/1`` … with that memory. The pickle is
written opcode by opcode, because Python's own pickler would import torch to name its functions.

Source: ``torch/serialization.py`` and ``caffe2/serialize/inline_container.cc`` of PyTorch.
"""

import dataclasses
import errno
import itertools
import math
import os
import pickletools
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flax_distil.checkpoints.formats.conversion import converted, pieces

_OPCODES = {opcode.name: opcode.code.encode("latin-1") for opcode in pickletools.opcodes}

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
        read: Function that returns a tensor by its name, with this shape and any floating-point type. It is
            converted a piece at a time, so no second tensor is in memory.
    """

    shapes: Mapping[str, tuple[int, ...]]
    dtype: np.dtype
    read: Callable[[str], np.ndarray]


def write_torch_archive(path: Path, entries: Mapping[str, Any], tensors: Mapping[str, StateDict]) -> None:
    """Write a dictionary as ``torch.save`` would.

    Args:
        path: The file.
        entries: Values without tensors by name: whole numbers, texts, and tuples and dictionaries of them.
        tensors: Dictionaries of tensors by name, which become further entries.

    Raises:
        OSError: If the file cannot be written, or the disk does not hold what was written.
    """
    numbers = itertools.count()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        _write_bytes(archive, "data.pkl", _pickled(entries, tensors))
        _write_bytes(archive, "byteorder", b"little")
        for state in tensors.values():
            for name in state.shapes:
                size = math.prod(state.shapes[name]) * state.dtype.itemsize
                _write_entry(archive, f"data/{next(numbers)}", size, _tensor_bytes(name, state))
        _write_bytes(archive, "version", b"3\n")
    with path.open("rb") as file:
        os.fsync(file.fileno())
    with zipfile.ZipFile(path) as archive:
        if archive.testzip() is not None:  # compares checksums
            raise OSError(errno.EIO, "the disk does not hold what was written", str(path))


def _tensor_bytes(name: str, state: StateDict) -> Iterator[memoryview]:
    for rows in pieces(state.read(name)):
        yield np.ascontiguousarray(converted(name, rows, state.dtype)).reshape(-1).view(np.uint8).data


def _write_bytes(archive: zipfile.ZipFile, name: str, contents: bytes) -> None:
    _write_entry(archive, name, len(contents), [memoryview(contents)])


def _write_entry(archive: zipfile.ZipFile, name: str, size: int, parts: Iterable[memoryview]) -> None:
    """Write an entry of a number of bytes, which begin at a multiple of 64 bytes of the file."""
    info = zipfile.ZipInfo(f"{_ROOT}/{name}")  # dated 1980, so that the same weights make the same file
    assert archive.fp is not None
    begin = archive.fp.tell() + _LOCAL_HEADER + len(info.filename) + _EXTRA_HEADER
    padding = -begin % _ALIGNMENT
    info.extra = _PADDING_FIELD + padding.to_bytes(2, "little") + b"Z" * padding
    info.file_size = size
    with archive.open(info, "w") as entry:
        for part in parts:
            entry.write(part)


def _pickled(entries: Mapping[str, Any], tensors: Mapping[str, StateDict]) -> bytes:
    numbers = itertools.count()
    parts = [_OPCODES["PROTO"], bytes([_PROTOCOL]), _OPCODES["EMPTY_DICT"], _OPCODES["MARK"]]
    for name, value in entries.items():
        parts += [*_plain(name), *_plain(value)]
    for name, state in tensors.items():
        parts += [*_plain(name), *_ORDERED_DICT, _OPCODES["MARK"]]
        for tensor, shape in state.shapes.items():
            parts += [*_plain(tensor), *_tensor(str(next(numbers)), shape, state.dtype)]
        parts.append(_OPCODES["SETITEMS"])
    return b"".join([*parts, _OPCODES["SETITEMS"], _OPCODES["STOP"]])


def _tensor(key: str, shape: tuple[int, ...], dtype: np.dtype) -> Iterator[bytes]:
    """Yield the opcodes of one tensor: a call of the function that joins memory, shape and strides."""
    strides = tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
    yield from (_named("torch._utils", "_rebuild_tensor_v2"), _OPCODES["MARK"])
    # The reference to the memory: kind, element type, entry, device and number of elements.
    yield from (_OPCODES["MARK"], *_plain("storage"), _named("torch", _STORAGES[dtype.name]))
    yield from (*_plain(key), *_plain("cpu"), *_plain(math.prod(shape)), _OPCODES["TUPLE"])
    yield _OPCODES["BINPERSID"]
    # Offset, shape, strides, that it needs no gradient, and hooks.
    yield from (*_plain(0), *_plain(shape), *_plain(strides), _OPCODES["NEWFALSE"], *_ORDERED_DICT)
    yield from (_OPCODES["TUPLE"], _OPCODES["REDUCE"])


def _named(module: str, name: str) -> bytes:
    return _OPCODES["GLOBAL"] + f"{module}\n{name}\n".encode()


def _plain(value: Any) -> Iterator[bytes]:
    """Yield the opcodes of a whole number, a text, or a tuple or dictionary of these."""
    match value:
        case int():
            yield _OPCODES["LONG1"]
            length = value.bit_length() // 8 + 1
            yield bytes([length]) + value.to_bytes(length, "little", signed=True)
        case str():
            contents = value.encode()
            yield _OPCODES["BINUNICODE"] + len(contents).to_bytes(4, "little") + contents
        case tuple():
            yield _OPCODES["MARK"]
            for item in value:
                yield from _plain(item)
            yield _OPCODES["TUPLE"]
        case dict():
            yield from (_OPCODES["EMPTY_DICT"], _OPCODES["MARK"])
            for key, item in value.items():
                yield from (*_plain(key), *_plain(item))
            yield _OPCODES["SETITEMS"]
        case _:
            raise TypeError(f"expected a whole number, a text, a tuple or a dictionary, got {type(value)}")


_ORDERED_DICT = (_named("collections", "OrderedDict"), _OPCODES["EMPTY_TUPLE"], _OPCODES["REDUCE"])

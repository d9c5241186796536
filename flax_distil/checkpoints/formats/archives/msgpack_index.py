"""Find the arrays in files that ``flax.serialization`` wrote, without reading their values.

Such a file is one MessagePack map of maps. An array is an extension of type 1: the MessagePack of its shape,
the name of its element type, and its bytes. An array of more than 2^30 bytes is a map of pieces instead.

Source: ``flax/serialization.py`` and the specification of MessagePack.
"""

import dataclasses
import math
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes  # noqa: F401  (importing it teaches NumPy the name bfloat16)
import numpy as np

_ARRAY_TYPE = 1  # of the extensions of Flax
_MAX_DEPTH = 32
_MAX_TEXT = 2**16  # bytes of a name
_MAX_AXES = 8
_DTYPES = frozenset(
    (
        "float64",
        "float32",
        "float16",
        "bfloat16",
        "int64",
        "int32",
        "int16",
        "int8",
        "uint8",
        "uint32",
        "bool",
    )
)
_CHUNKED = "__msgpack_chunked_array__"


class MsgpackError(ValueError):
    """The file is no MessagePack of Flax."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredArray:
    """An array that has not been read.

    Attributes:
        path: Its file.
        dtype: Name of its element type.
        shape: Its shape.
        offset: Place of its first byte.
    """

    path: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int

    def read(self, index: int | None = None) -> np.ndarray:
        """Return its values, or those at one index of its first axis.

        Raises:
            OSError: If the file cannot be read.
        """
        shape = self.shape if index is None else self.shape[1:]
        count, dtype = math.prod(shape), np.dtype(self.dtype)
        start = self.offset + (index or 0) * count * dtype.itemsize
        return np.fromfile(self.path, dtype, count=count, offset=start).reshape(shape)


def index_arrays(path: Path) -> dict[str, StoredArray]:
    """Return the arrays of a file by the names of the maps around them, joined by "/".

    Raises:
        MsgpackError: If the file is damaged, is not MessagePack, or holds something else than arrays.
        OSError: If it cannot be read.
    """
    with path.open("rb") as file:
        walk = _Walk(file=file, path=path, size=path.stat().st_size)
        walk.value("", depth=0)
        if file.tell() != walk.size:
            raise MsgpackError(f"it goes on after its end, at byte {file.tell()}")
    return walk.arrays


@dataclasses.dataclass(kw_only=True)
class _Walk:
    """A walk through a file that skips the bytes of arrays."""

    file: BinaryIO
    path: Path
    size: int
    arrays: dict[str, StoredArray] = dataclasses.field(default_factory=dict)

    def value(self, name: str, *, depth: int) -> None:
        """Walk through one map or array."""
        kind = self.byte()
        if 0x80 <= kind <= 0x8F:
            self.items(kind & 0x0F, name, depth)
        elif kind in (0xDE, 0xDF):
            self.items(self.number(2 if kind == 0xDE else 4), name, depth)
        elif kind in (0xC7, 0xC8, 0xC9):
            self.array(name, self.number(1 << (kind - 0xC7)))
        elif 0xD4 <= kind <= 0xD8:
            self.array(name, 1 << (kind - 0xD4))
        else:
            raise MsgpackError(
                f"{name or 'it'} is neither a map nor an array, at byte {self.file.tell() - 1}"
            )

    def items(self, count: int, name: str, depth: int) -> None:
        if depth > _MAX_DEPTH:
            raise MsgpackError(f"it is nested more than {_MAX_DEPTH} deep")
        for _ in range(count):
            key = self.text()
            if key == _CHUNKED:
                raise MsgpackError(f"{name} has more than 2^30 bytes, and is stored in pieces")
            self.value(f"{name}/{key}" if name else key, depth=depth + 1)

    def array(self, name: str, length: int) -> None:
        extension, end = self.byte(), self.file.tell() + length
        if extension != _ARRAY_TYPE or end > self.size:
            raise MsgpackError(f"{name} is no array, or cut off")
        if self.byte() != 0x93:  # three values
            raise MsgpackError(f"{name} is no array")
        shape = self.shape()
        dtype = self.text()
        stored = self.length({0xC4: 1, 0xC5: 2, 0xC6: 4})
        if dtype not in _DTYPES or stored != math.prod(shape) * np.dtype(dtype).itemsize:
            raise MsgpackError(f"{name} has {stored} bytes, which is not its shape in {dtype[:20]!r}")
        if self.file.tell() + stored != end or name in self.arrays:
            raise MsgpackError(f"{name} is no array, or stored twice")
        self.arrays[name] = StoredArray(path=self.path, dtype=dtype, shape=shape, offset=self.file.tell())
        self.file.seek(end)

    def shape(self) -> tuple[int, ...]:
        count = self.byte() & 0x0F  # of a short list
        if count > _MAX_AXES:
            raise MsgpackError(f"an array has {count} axes")
        return tuple(self.whole_number() for _ in range(count))

    def whole_number(self) -> int:
        kind = self.byte()
        if kind < 0x80:
            return kind
        if not 0xCC <= kind <= 0xCF:
            raise MsgpackError("a size of an array is no whole number")
        return self.number(1 << (kind - 0xCC))

    def text(self) -> str:
        length = self.length({0xD9: 1, 0xDA: 2, 0xDB: 4})
        if length > _MAX_TEXT:
            raise MsgpackError("a name is too long")
        return self.bytes(length).decode()

    def length(self, widths: dict[int, int]) -> int:
        """Return the length of a text or of bytes, from the kinds of those with a length of some bytes."""
        kind = self.byte()
        if 0xD9 in widths and 0xA0 <= kind <= 0xBF:
            return kind & 0x1F
        if kind not in widths:
            raise MsgpackError(f"a name or the bytes of an array are missing, at byte {self.file.tell() - 1}")
        return self.number(widths[kind])

    def byte(self) -> int:
        return self.number(1)

    def number(self, width: int) -> int:
        return int.from_bytes(self.bytes(width), "big")

    def bytes(self, count: int) -> Any:
        found = self.file.read(count)
        if len(found) < count:
            raise MsgpackError("it is cut off")
        return found

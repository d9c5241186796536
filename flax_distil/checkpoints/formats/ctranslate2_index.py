"""Read the names, shapes and offsets of the arrays in a CTranslate2 ``model.bin``.

``model.bin`` is a list of named arrays::

    u32 version · string spec · u32 revision · u32 count
    count × (string name · u8 rank · rank × u32 shape · u8 type · u32 bytes · data)
    u32 aliases · aliases × (string alias · string name)         string: u16 length, text, NUL

Source: ``ctranslate2/specs/model_spec.py`` and ``src/models/model.cc`` of CTranslate2 4.8.
"""

import dataclasses
import math
import struct
from collections.abc import Mapping
from typing import BinaryIO

import ml_dtypes
import numpy as np

from flax_distil.core.fields import one_line

_VERSIONS = (5, 6)
_DTYPES: tuple[np.dtype, ...] = tuple(
    np.dtype(kind) for kind in (np.float32, np.int8, np.int16, np.int32, np.float16, ml_dtypes.bfloat16)
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Variable:
    """One array of ``model.bin``: its shape, its type, and the offset of its bytes."""

    shape: tuple[int, ...]
    dtype: np.dtype
    offset: int


class FormatError(Exception):
    """An error in the bytes of a ``model.bin``."""


def read_index(file: BinaryIO, *, size: int) -> dict[str, Variable]:
    """Read names, shapes and offsets of all variables and aliases, without the data."""
    version = _integer(file, "<I")
    if version not in _VERSIONS:
        raise FormatError(f"binary version {version}, expected {' or '.join(map(str, _VERSIONS))}")
    spec = _string(file)
    if spec != "WhisperSpec":
        raise FormatError(f"model type {spec!r}, expected 'WhisperSpec'")
    _revision, count = _integer(file, "<I"), _integer(file, "<I")
    variables: dict[str, Variable] = {}
    for _ in range(count):
        name = _string(file)
        rank = _integer(file, "<B")
        shape = tuple(_integer(file, "<I") for _ in range(rank))
        kind, length = _integer(file, "<B"), _integer(file, "<I")
        if kind >= len(_DTYPES):
            raise FormatError(f"{one_line(name)} has type {kind}, expected one below {len(_DTYPES)}")
        dtype = _DTYPES[kind]
        if math.prod(shape) * dtype.itemsize != length:
            raise FormatError(f"{one_line(name)} has {length} bytes, which do not fill {dtype}{list(shape)}")
        variables[name] = Variable(shape=shape, dtype=dtype, offset=file.tell())
        if file.seek(length, 1) > size:
            raise FormatError(f"it ends inside {one_line(name)}")
    for _ in range(_integer(file, "<I")):
        alias, name = _string(file), _string(file)
        for end in ("", "_scale"):
            if f"{name}{end}" in variables:
                variables[f"{alias}{end}"] = variables[f"{name}{end}"]
    _check_scales(variables)
    return variables


def _check_scales(variables: Mapping[str, Variable]) -> None:
    """Check that every quantized array has one scale for each row, or one for all."""
    for name, variable in variables.items():
        scale = variables.get(f"{name}_scale")
        if scale is not None and (
            scale.shape not in ((), variable.shape[:1]) or scale.dtype.kind in "iu" or not variable.shape
        ):
            raise FormatError(
                f"{one_line(name)}_scale is {scale.dtype}{list(scale.shape)}, expected a float for each row "
                f"of {list(variable.shape)} or one for all"
            )


def _integer(file: BinaryIO, form: str) -> int:
    return struct.unpack(form, file.read(struct.calcsize(form)))[0]


def _string(file: BinaryIO) -> str:
    return file.read(_integer(file, "<H"))[:-1].decode()

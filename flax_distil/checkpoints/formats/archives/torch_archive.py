"""Read the tensors of files that ``torch.save`` wrote, without torch and without running anything in them.

Such a file is a zip archive whose entries are not compressed: ``data.pkl`` describes an object, and
``data/0``, ``data/1`` … are the memory of its tensors, which are read one at a time.

Source: ``torch/serialization.py`` of PyTorch, for files since version 1.6.
"""

import dataclasses
import functools
import math
import zipfile
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  (importing it teaches NumPy the name bfloat16)
import numpy as np
from numpy.lib.stride_tricks import as_strided

from flax_distil.checkpoints.formats.archives.pickle_data import (
    Call,
    Named,
    PersistentId,
    PickleError,
    read_pickle,
)
from flax_distil.core.errors import InputError
from flax_distil.core.fields import one_line, short_repr

_DTYPES = {
    "torch.DoubleStorage": "float64",
    "torch.FloatStorage": "float32",
    "torch.HalfStorage": "float16",
    "torch.BFloat16Storage": "bfloat16",
    "torch.LongStorage": "int64",
    "torch.IntStorage": "int32",
    "torch.ShortStorage": "int16",
    "torch.CharStorage": "int8",
    "torch.ByteStorage": "uint8",
    "torch.BoolStorage": "bool",
}
_REBUILD_TENSOR = "torch._utils._rebuild_tensor_v2"
_REBUILD_PARAMETER = "torch._utils._rebuild_parameter"
_DICTIONARIES = ("collections.OrderedDict", "builtins.dict")

_MAX_PICKLE_BYTES = 2**28
_LOCAL_HEADER = (
    30  # bytes before the name of an entry; the lengths of name and extra fields are the last four
)
_MAX_DEPTH = 16
_MAX_AXES = 8
_MAX_ELEMENTS = 2**40


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArchivedTensor:
    """A tensor that has not been read: a view of an entry's memory.

    Attributes:
        entry: Name of the entry.
        dtype: Element type.
        start: Index of its first element in the entry.
        shape: Its shape.
        strides: Number of elements from one index to the next, for each axis.
    """

    entry: str
    dtype: str
    start: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def span(self) -> int:
        """Number of elements of the entry from its first element to its last."""
        if 0 in self.shape:
            return 0
        return 1 + sum((size - 1) * step for size, step in zip(self.shape, self.strides, strict=True))


@dataclasses.dataclass(frozen=True, kw_only=True)
class TorchArchive:
    """A file of ``torch.save``.

    Attributes:
        path: The file.
        name: Its name in messages.
    """

    path: Path
    name: str

    @classmethod
    def open(cls, path: Path, *, name: str) -> "TorchArchive":
        """Open a file and read the description of its contents.

        Raises:
            InputError: If the file is damaged, or holds something else than a dictionary.
        """
        archive = cls(path=path, name=name)
        if not isinstance(archive._contents, dict):
            raise archive.damaged("it holds no dictionary")
        return archive

    def __contains__(self, key: str) -> bool:
        """Return whether the dictionary has an entry with this name."""
        return key in self._contents

    def value(self, key: str) -> Any:
        """Return one entry: numbers, texts and collections, with :class:`ArchivedTensor` for tensors.

        Raises:
            InputError: If there is no such entry, or it needs Python objects other than tensors.
        """
        if key not in self:
            raise self.damaged(f"it has no {key}")
        return _Resolver(self).resolve(self._contents[key])

    def values(self) -> dict[str, Any]:
        """Return all entries, as :meth:`value` does."""
        return {name: self.value(name) for name in self._contents}

    @functools.cached_property
    def _contents(self) -> Any:
        contents = self._read_pickle()
        is_dictionary = isinstance(contents, Call) and contents.name in _DICTIONARIES
        return contents.items if is_dictionary else contents

    def read(self, tensor: ArchivedTensor) -> np.ndarray:
        """Return the values of a tensor of :attr:`contents`.

        Raises:
            InputError: If the file cannot be read.
        """
        dtype = np.dtype(tensor.dtype)
        offset = self._entries[tensor.entry][0] + tensor.start * dtype.itemsize
        try:
            memory = np.fromfile(self.path, dtype, count=tensor.span, offset=offset)
        except OSError as error:
            raise InputError(f"{self.name} cannot be read ({error.strerror}): check the file") from error
        strides = tuple(step * dtype.itemsize for step in tensor.strides)
        return as_strided(memory, tensor.shape, strides, writeable=False)

    def check(self, tensor: ArchivedTensor) -> ArchivedTensor:
        """Return a tensor whose memory lies within its entry.

        Raises:
            InputError: If it does not.
        """
        available = self._entries.get(tensor.entry, (0, -1))[1]
        if (tensor.start + tensor.span) * np.dtype(tensor.dtype).itemsize > available:
            raise self.damaged(f"the memory {short_repr(tensor.entry)} of a tensor is missing or too short")
        return tensor

    @functools.cached_property
    def _entries(self) -> dict[str, tuple[int, int]]:
        """Offset in the file and number of bytes of each entry, by its name without the archive's folder."""
        try:
            with self.path.open("rb") as file, zipfile.ZipFile(file) as archive:
                size = self.path.stat().st_size
                found: dict[str, tuple[int, int]] = {}
                for info in archive.infolist():
                    if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
                        raise self.damaged("its entries are compressed")
                    file.seek(info.header_offset + _LOCAL_HEADER - 4)
                    lengths = file.read(4)
                    offset = info.header_offset + _LOCAL_HEADER
                    offset += int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little")
                    if offset + info.file_size > size:
                        raise self.damaged("it is cut off")
                    found[info.filename.partition("/")[2]] = (offset, info.file_size)
                return found
        except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError) as error:
            raise self._not_an_archive() from error
        except OSError as error:
            raise InputError(f"{self.name} cannot be read ({error.strerror}): check the file") from error

    def _read_pickle(self) -> Any:
        offset, size = self._entries.get("data.pkl", (0, 0))
        order, length = self._entries.get("byteorder", (0, 0))
        if not 0 < size <= _MAX_PICKLE_BYTES:
            raise self._not_an_archive()
        with self.path.open("rb") as file:
            file.seek(order)
            if length and file.read(length) != b"little":
                raise self.damaged("it was written on a machine with another order of bytes")
            file.seek(offset)
            contents = file.read(size)
        try:
            return read_pickle(contents)
        except PickleError as error:
            raise self.damaged(str(error)) from error

    def _not_an_archive(self) -> InputError:
        return InputError(
            f"{self.name} is not a complete file of torch.save (PyTorch 1.6 or later): fetch it again, or "
            "save it again with torch.save"
        )

    def damaged(self, reason: str) -> InputError:
        """Return the error that the file cannot be used for a reason."""
        return InputError(f"{self.name} cannot be used: {reason}; fetch it again")


class _Resolver:
    """Puts tensors in the place of their calls, and dictionaries in that of dictionaries of other kinds."""

    def __init__(self, archive: TorchArchive):
        self._archive = archive
        self._known: dict[
            int, Any
        ] = {}  # by identity, because a pickle can refer to the same part many times

    def resolve(self, value: Any, *, depth: int = 0) -> Any:
        """Return a value without calls.

        Raises:
            InputError: If it needs Python objects other than tensors, or is nested too deeply.
        """
        if depth > _MAX_DEPTH:
            raise self._archive.damaged(f"it is nested more than {_MAX_DEPTH} deep")
        if not isinstance(value, (dict, list, tuple, Call, Named, PersistentId)):
            return value
        if id(value) not in self._known:
            self._known[id(value)] = self._resolved(value, depth)
        return self._known[id(value)]

    def _resolved(self, value: Any, depth: int) -> Any:
        if isinstance(value, dict):
            return {key: self.resolve(item, depth=depth + 1) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.resolve(item, depth=depth + 1) for item in value]
        if isinstance(value, Call):
            return self._result(value, depth)
        raise self._needs_code(getattr(value, "name", "an object outside of it"))

    def _result(self, call: Call, depth: int) -> Any:
        if call.name in _DICTIONARIES and not call.args:
            return self.resolve(call.items, depth=depth + 1)
        if call.name == _REBUILD_PARAMETER and call.args:
            return self.resolve(call.args[0], depth=depth + 1)
        if call.name == _REBUILD_TENSOR:
            return self._tensor(call.args)
        raise self._needs_code(call.name)

    def _tensor(self, args: tuple[Any, ...]) -> ArchivedTensor:
        match args:
            case (
                PersistentId(("storage", Named(storage), str(key), _, int())),
                int(start),
                tuple(shape),
                tuple(strides),
                *_,
            ) if storage in _DTYPES and _is_view(start, shape, strides):
                tensor = ArchivedTensor(
                    entry=f"data/{key}", dtype=_DTYPES[storage], start=start, shape=shape, strides=strides
                )
                return self._archive.check(tensor)
        raise self._archive.damaged("it holds a tensor of an unknown kind")

    def _needs_code(self, what: str) -> InputError:
        return InputError(
            f"{self._archive.name} holds {one_line(what)}, which is neither a number, a text nor a tensor: "
            "it is not loaded, because that could run code; save only the tensors and their sizes again"
        )


def _is_view(start: int, shape: tuple[Any, ...], strides: tuple[Any, ...]) -> bool:
    numbers = (start, *shape, *strides)
    return (
        len(shape) == len(strides) <= _MAX_AXES
        and all(type(number) is int and 0 <= number < _MAX_ELEMENTS for number in numbers)
        and math.prod(shape) < _MAX_ELEMENTS
    )

"""Read Hugging Face checkpoints: safetensors in one file or in shards."""

import contextlib
import dataclasses
import fnmatch
import functools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  (importing it teaches NumPy, and so safetensors, the name bfloat16)
import numpy as np
from safetensors import SafetensorError, safe_open

from flax_distil.checkpoints.formats.mapping import canonical_name
from flax_distil.checkpoints.formats.reader import CheckpointReader, TensorSpec
from flax_distil.core.errors import InputError
from flax_distil.core.fields import Fields, check_fields, kind_of, map_to, one_line, short_repr
from flax_distil.core.json_files import parse_json, read_json

WEIGHTS_NAME = "model.safetensors"
INDEX_NAME = "model.safetensors.index.json"

_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}

_FILE_NAME = kind_of(
    "the name of a .safetensors file in the same folder",
    lambda value: isinstance(value, str) and Path(value).name == value and value.endswith(".safetensors"),
)
_INDEX_FIELDS: Fields = {"weight_map": map_to(_FILE_NAME)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SafetensorsReader(CheckpointReader):
    """Reads the tensors of one or several safetensors files by name.

    Attributes:
        folder: Folder of the checkpoint.
        files: Paths of its safetensors files.
        origin: Name of the checkpoint in messages.
    """

    folder: Path
    files: tuple[Path, ...]
    origin: str

    @classmethod
    def open(cls, folder: Path, *, origin: str | None = None) -> "SafetensorsReader":
        """Find the weight files of a Hugging Face folder.

        Args:
            folder: Folder with ``model.safetensors``, or with ``model.safetensors.index.json`` and its
                shards.
            origin: Name of the checkpoint in messages; by default the folder.

        Raises:
            InputError: If there are no weight files, one of them is missing, or they are in another format.
        """
        origin = origin or str(folder)
        names = [WEIGHTS_NAME] if (folder / WEIGHTS_NAME).is_file() else _indexed_files(folder, origin)
        return cls(folder=folder, files=tuple(folder / name for name in names), origin=origin)

    @functools.cached_property
    def _locations(self) -> dict[str, tuple[Path, str, TensorSpec]]:
        """File, name in the file, shape and type of each tensor, by canonical name."""
        locations: dict[str, tuple[Path, str, TensorSpec]] = {}
        for path in self.files:
            with _opened(path) as file:
                _check_header(path)
                for name in file.keys():  # noqa: SIM118  (safe_open is no mapping)
                    part = file.get_slice(name)
                    dtype = _DTYPES.get(part.get_dtype(), part.get_dtype())
                    spec = TensorSpec(shape=tuple(part.get_shape()), dtype=dtype)
                    if canonical_name(name) in locations:
                        raise InputError(f"{self.origin} holds {short_repr(name)} twice: download it again")
                    locations[canonical_name(name)] = (path, name, spec)
        return locations

    @property
    def tensors(self) -> Mapping[str, TensorSpec]:
        """Shape and type of each tensor, by canonical name."""
        return {name: spec for name, (_, _, spec) in self._locations.items()}

    def read(self, name: str) -> np.ndarray:
        """Return one tensor; the file is closed afterwards."""
        path, inner, _ = self._locations[name]
        with _opened(path) as file:
            return file.get_tensor(inner)


def has_weights(folder: Path) -> bool:
    """Return whether a folder holds safetensors of a model; an index without any shard does not count."""
    return (folder / WEIGHTS_NAME).is_file() or any(folder.glob("model-*-of-*.safetensors"))


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="numpy", backend="pread") as file:
            yield file
    except SafetensorError as error:
        raise InputError(
            f"{path} is not a complete safetensors file ({one_line(str(error))}): download it again"
        ) from error
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error}): check the file") from error


def _check_header(path: Path) -> None:
    """Refuse a header that names a tensor twice; safetensors takes the last one, and other readers the first.

    Lengths, offsets, shapes and types were checked by safetensors when it opened the file.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        parse_json(file.read(length), name=f"the header of {path}")


def _indexed_files(folder: Path, origin: str) -> list[str]:
    """Return the names of the shards in the index, and check that all of them exist."""
    name = f"{INDEX_NAME} of {origin}"
    index = read_json(folder / INDEX_NAME, name=name)
    if index is None:
        raise InputError(_no_weights(folder, origin))
    check_fields(index, _INDEX_FIELDS, name=name, required=("weight_map",))
    names = sorted(set(index["weight_map"].values()))
    if not names:
        raise InputError(f"{name} names no files: download it again")
    absent = [one_line(file) for file in names if not (folder / file).is_file()]
    if absent:
        more = f" and {len(absent) - 3} more" if len(absent) > 3 else ""
        raise InputError(
            f"{origin} lacks {', '.join(absent[:3])}{more}, named in {INDEX_NAME}: download it again"
        )
    return names


_OTHER_WEIGHTS = {
    "pytorch_model*.bin": (
        "pytorch_model.bin, not read because a pickle can run code",
        "transformers' from_pretrained(...).save_pretrained(...)",
    ),
    "tf_model*.h5": (
        "tf_model.h5, which is not read",
        "from_pretrained(..., from_tf=True).save_pretrained(...) of transformers before version 5",
    ),
}
"""Weights in other formats: pattern of their files, name of the format, and how to convert them."""


def other_weights(names: Iterable[str], origin: str) -> str | None:
    """Return a sentence on how to convert weights in another format; None if no file has such weights."""
    names = list(names)
    for pattern, (what, how) in _OTHER_WEIGHTS.items():
        if fnmatch.filter(names, pattern):
            return f"{origin} holds only {what}: convert it to safetensors once, with {how}"
    return None


def _no_weights(folder: Path, origin: str) -> str:
    return other_weights((path.name for path in folder.iterdir()), origin) or (
        f"{origin} holds no {WEIGHTS_NAME}, {INDEX_NAME}, flax_model.msgpack, CTranslate2 model.bin or "
        ".pt file of openai-whisper: is it the folder of a Whisper checkpoint?"
    )

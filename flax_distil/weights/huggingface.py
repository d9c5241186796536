"""Hugging Face checkpoints: safetensors in one file or in shards."""

import contextlib
import dataclasses
import functools
import json
from collections.abc import Mapping
from pathlib import Path

import ml_dtypes  # noqa: F401  (importing it teaches NumPy, and so safetensors, the name bfloat16)
import numpy as np
from safetensors import SafetensorError, safe_open

from flax_distil.core import InputError
from flax_distil.weights.assembly import TensorSource, TensorSpec
from flax_distil.weights.mapping import canonical_name

WEIGHTS_NAME = "model.safetensors"
INDEX_NAME = "model.safetensors.index.json"

_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SafetensorsSource(TensorSource):
    """The tensors of one or several safetensors files, opened but not read.

    Attributes:
        folder: the checkpoint's folder.
        files: its safetensors files.
        origin: what to call the checkpoint in messages.
    """

    folder: Path
    files: tuple[Path, ...]
    origin: str

    @classmethod
    def open(cls, folder: Path, *, origin: str | None = None) -> "SafetensorsSource":
        """Find the weight files of a Hugging Face folder.

        Args:
            folder: holds ``model.safetensors`` or ``model.safetensors.index.json`` and its shards.
            origin: what to call the checkpoint in messages; the folder by default.

        Raises:
            InputError: if there are none, one is missing, or they are PyTorch pickles.
        """
        origin = origin or str(folder)
        index = folder / INDEX_NAME
        if (folder / WEIGHTS_NAME).is_file():
            names = [WEIGHTS_NAME]
        elif index.is_file():
            names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        else:
            raise InputError(_no_weights(folder, origin))
        absent = [name for name in names if not (folder / name).is_file()]
        if absent:
            raise InputError(f"{origin} lacks {', '.join(absent)}, named in {INDEX_NAME}: download it again")
        return cls(folder=folder, files=tuple(folder / name for name in names), origin=origin)

    @functools.cached_property
    def _locations(self) -> dict[str, tuple[Path, str, TensorSpec]]:
        """``{canonical name: (file, name in the file, shape and type)}``."""
        locations = {}
        for path in self.files:
            with _opened(path) as file:
                for name in file.keys():  # noqa: SIM118  (safe_open is no mapping)
                    part = file.get_slice(name)
                    dtype = _DTYPES.get(part.get_dtype(), part.get_dtype())
                    spec = TensorSpec(shape=tuple(part.get_shape()), dtype=dtype)
                    locations[canonical_name(name)] = (path, name, spec)
        return locations

    @property
    def tensors(self) -> Mapping[str, TensorSpec]:
        """Every tensor, under its canonical name."""
        return {name: spec for name, (_, _, spec) in self._locations.items()}

    def read(self, name: str) -> np.ndarray:
        """Return one tensor; no file stays open."""
        path, inner, _ = self._locations[name]
        with _opened(path) as file:
            return file.get_tensor(inner)


def _opened(path: Path) -> contextlib.AbstractContextManager:
    try:
        return safe_open(path, framework="numpy", backend="pread")
    except SafetensorError as error:
        raise InputError(f"{path} is not a complete safetensors file ({error}): download it again") from error


def _no_weights(folder: Path, origin: str) -> str:
    if any(folder.glob("pytorch_model*.bin")):
        return (
            f"{origin} holds only pytorch_model.bin, not read because a pickle can run code: convert "
            "it to safetensors once, with transformers' from_pretrained(...).save_pretrained(...)"
        )
    return (
        f"{origin} holds no {WEIGHTS_NAME}, {INDEX_NAME} or CTranslate2 model.bin: "
        "is it the folder of a Whisper checkpoint?"
    )

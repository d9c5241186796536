"""Read the Flax weights of a Hugging Face folder: ``flax_model.msgpack``, in one file or in several.

The modules have the names of the PyTorch model. Kernels have their axes in the opposite order, and layers may
be stacked, as the original Distil-Whisper saves them for ``load_with_scan_weights``::

    model/decoder/layers/0/self_attn/q_proj/kernel                        [D, D]
    model/decoder/layers/FlaxDecoderScanLayers/self_attn/q_proj/kernel    [L, D, D]

Source: ``FlaxPreTrainedModel.save_pretrained`` of transformers 4, and ``modeling_flax_whisper.py`` of
huggingface/distil-whisper.
"""

import dataclasses
import functools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from flax_distil.checkpoints.formats.archives.msgpack_index import MsgpackError, StoredArray, index_arrays
from flax_distil.checkpoints.formats.mapping import canonical_name
from flax_distil.checkpoints.formats.reader import CheckpointReader, TensorSpec
from flax_distil.core.errors import InputError
from flax_distil.core.fields import one_line

PATTERN = "flax_model*.msgpack"
"""Pattern of the names of its files."""

_SCAN_LAYERS = re.compile(r"/Flax(?:Encoder|Decoder)ScanLayers/")
_MOST_LAYERS = 1024
_LEAVES = {"kernel": "weight", "scale": "weight", "embedding": "weight"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Part:
    """Where a Hugging Face tensor is: the whole array, or one index of its first axis."""

    array: StoredArray
    index: int | None
    is_kernel: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor in the Hugging Face model."""
        shape = self.array.shape if self.index is None else self.array.shape[1:]
        return shape[::-1] if self.is_kernel else shape

    def read(self) -> np.ndarray:
        """Return the tensor with the axes of the Hugging Face model."""
        values = self.array.read(self.index)
        return values.T if self.is_kernel else values


@dataclasses.dataclass(frozen=True, kw_only=True)
class FlaxReader(CheckpointReader):
    """Reads the arrays of Flax files by their Hugging Face names.

    Attributes:
        files: Paths of the files.
        origin: Name of the checkpoint in messages.
    """

    files: tuple[Path, ...]
    origin: str

    @classmethod
    def open(cls, folder: Path, *, origin: str | None = None) -> "FlaxReader":
        """Find the Flax files of a folder and read the lists of their arrays.

        Raises:
            InputError: If a file is damaged.
        """
        reader = cls(files=tuple(sorted(folder.glob(PATTERN))), origin=origin or str(folder))
        _ = reader._parts
        return reader

    @functools.cached_property
    def _parts(self) -> dict[str, _Part]:
        parts: dict[str, _Part] = {}
        for path in self.files:
            for name, part in _parts_of(path):
                if name in parts:
                    raise InputError(f"{self.origin} holds {one_line(name)} twice: download it again")
                parts[name] = part
        return parts

    @property
    def tensors(self) -> Mapping[str, TensorSpec]:
        """Shape and type of each tensor, by canonical name."""
        return {
            name: TensorSpec(shape=part.shape, dtype=part.array.dtype) for name, part in self._parts.items()
        }

    def read(self, name: str) -> np.ndarray:
        """Return one tensor.

        Raises:
            InputError: If the file cannot be read.
        """
        part = self._parts[name]
        try:
            return part.read()
        except OSError as error:
            raise InputError(
                f"{part.array.path} cannot be read ({error.strerror}): check the file"
            ) from error


def has_flax_weights(folder: Path) -> bool:
    """Return whether a folder holds Flax weights."""
    return any(folder.glob(PATTERN))


def _parts_of(path: Path) -> Iterator[tuple[str, _Part]]:
    """Yield the names and parts of a file's arrays, stacks of layers taken apart."""
    try:
        arrays = index_arrays(path)
    except (MsgpackError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} is no complete file of Flax weights: {one_line(str(error))}; download it again"
        ) from error
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): check the file") from error
    for name, array in arrays.items():
        stacked = _SCAN_LAYERS.search(name) is not None and len(array.shape) > 0
        if stacked and array.shape[0] > _MOST_LAYERS:
            raise InputError(f"{one_line(name)} of {path} has {array.shape[0]} layers: download it again")
        for index in range(array.shape[0]) if stacked else (None,):
            single = name if index is None else _SCAN_LAYERS.sub(f"/{index}/", name)
            yield (
                _huggingface_name(single),
                _Part(array=array, index=index, is_kernel=name.endswith("/kernel")),
            )


def _huggingface_name(name: str) -> str:
    module, _, leaf = name.removeprefix("params/").replace("/", ".").rpartition(".")
    return canonical_name(f"{module}.{_LEAVES.get(leaf, leaf)}")

"""Write safetensors files tensor by tensor, so that an export never holds a whole file in memory.

``safetensors.save_file`` needs all tensors of a file at once. The format itself (eight bytes of length, a
JSON header with offsets, the raw data) only needs their shapes first.

Source: the format section of the safetensors README.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from flax_distil.checkpoints.formats.conversion import converted, pieces
from flax_distil.checkpoints.formats.huggingface import INDEX_NAME, WEIGHTS_NAME
from flax_distil.storage.checked_file import checked_file

_DTYPE_NAMES = {
    "float32": "F32", "float16": "F16", "bfloat16": "BF16", "uint32": "U32", "int32": "I32"
}  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class StreamedTensor:
    """A tensor that is made when it is written.

    Attributes:
        shape: Its shape.
        dtype: Its element type.
        pieces: Function that yields its elements in their order, as consecutive pieces of any shape.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    pieces: Callable[[], Iterator[np.ndarray]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shard:
    """One file of a checkpoint: its name, and the shapes of its tensors in order."""

    file_name: str
    shapes: Mapping[str, tuple[int, ...]]

    def byte_count(self, dtype: np.dtype) -> int:
        """Return the size of its tensors in bytes."""
        return sum(_byte_count(shape, dtype) for shape in self.shapes.values())


def plan_shards(
    shapes: Mapping[str, tuple[int, ...]], dtype: np.dtype, *, max_shard_size: int
) -> list[Shard]:
    """Divide tensors into files of at most ``max_shard_size`` bytes; a larger tensor has a file of its own.

    Args:
        shapes: Shapes of the tensors by name.
        dtype: Element type of the files.
        max_shard_size: Maximum number of bytes of a file.

    Returns:
        One shard named ``model.safetensors``, or several named ``model-00001-of-0000N.safetensors``.
    """
    groups: list[dict[str, tuple[int, ...]]] = [{}]
    filled = 0
    for name, shape in sorted(shapes.items()):
        size = _byte_count(shape, dtype)
        if groups[-1] and filled + size > max_shard_size:
            groups.append({})
            filled = 0
        groups[-1][name] = shape
        filled += size
    if len(groups) == 1:
        return [Shard(file_name=WEIGHTS_NAME, shapes=groups[0])]
    return [
        Shard(file_name=f"model-{number:05d}-of-{len(groups):05d}.safetensors", shapes=group)
        for number, group in enumerate(groups, start=1)
    ]


def write_shards(
    folder: Path, shards: Sequence[Shard], dtype: np.dtype, read: Callable[[str], np.ndarray]
) -> list[str]:
    """Write the weight files, and an index if there are several.

    Args:
        folder: An existing folder.
        shards: Result of :func:`plan_shards`.
        dtype: Element type of the files.
        read: Function that returns one tensor with its planned shape, of any floating-point type.

    Returns:
        The names of the written files.

    Raises:
        InputError: If a value does not fit float16.
        OSError: If a file cannot be written, or does not hold what was written when it is read back.
    """
    for shard in shards:
        _write_shard(folder / shard.file_name, shard, dtype, read)
    names = [shard.file_name for shard in shards]
    if len(shards) == 1:
        return names
    index = {
        "metadata": {"total_size": sum(shard.byte_count(dtype) for shard in shards)},
        "weight_map": {name: shard.file_name for shard in shards for name in shard.shapes},
    }
    (folder / INDEX_NAME).write_text(json.dumps(index, indent=2) + "\n")
    return [*names, INDEX_NAME]


def _write_shard(path: Path, shard: Shard, dtype: np.dtype, read: Callable[[str], np.ndarray]) -> None:
    def streamed(name: str, shape: tuple[int, ...]) -> StreamedTensor:
        def made() -> Iterator[np.ndarray]:
            tensor = read(name)
            if tensor.shape != shape:
                raise ValueError(f"{name}: expected the shape {list(shape)}, got {list(tensor.shape)}")
            return (converted(name, piece, dtype) for piece in pieces(tensor))

        return StreamedTensor(shape=shape, dtype=dtype, pieces=made)

    tensors = {name: streamed(name, shape) for name, shape in shard.shapes.items()}
    # transformers refuses files that do not name the framework of their layout.
    write_safetensors(path, tensors, metadata={"format": "pt"})


def write_safetensors(
    path: Path, tensors: Mapping[str, StreamedTensor], *, metadata: Mapping[str, str]
) -> None:
    """Write one file, tensor by tensor and piece by piece.

    Args:
        path: Path of the file.
        tensors: The tensors by name, in their order in the file.
        metadata: Texts for the header.

    Raises:
        OSError: If the file cannot be written, or does not hold what was written when it is read back.
    """
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    offset = 0
    for name, tensor in tensors.items():
        end = offset + _byte_count(tensor.shape, tensor.dtype)
        header[name] = {
            "dtype": _DTYPE_NAMES[tensor.dtype.name],
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with checked_file(path) as write:
        write(len(text).to_bytes(8, "little"))
        write(text)
        for tensor in tensors.values():
            for piece in tensor.pieces():
                write(piece)


def _byte_count(shape: tuple[int, ...], dtype: np.dtype) -> int:
    return math.prod(shape) * dtype.itemsize

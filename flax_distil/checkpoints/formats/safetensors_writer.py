"""Write safetensors files tensor by tensor, so that an export never holds a whole file in memory.

``safetensors.save_file`` needs all tensors of a file at once. The format itself (eight bytes of length, a
JSON header with offsets, the raw data) only needs their shapes first.

Source: the format section of the safetensors README.
"""

import dataclasses
import errno
import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from flax_distil.checkpoints.formats.huggingface import INDEX_NAME, WEIGHTS_NAME

_DTYPE_NAMES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}


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
        read: Function that returns one tensor with this type and its planned shape.

    Returns:
        The names of the written files.

    Raises:
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
    # transformers refuses files that do not name the framework of their layout.
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, shape in shard.shapes.items():
        end = offset + _byte_count(shape, dtype)
        header[name] = {
            "dtype": _DTYPE_NAMES[dtype.name],
            "shape": list(shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()
    with path.open("wb") as file:

        def write(content: bytes | memoryview) -> None:
            digest.update(content)
            file.write(content)

        write(len(text).to_bytes(8, "little"))
        write(text)
        for name, shape in shard.shapes.items():
            tensor = np.ascontiguousarray(read(name))
            if tensor.shape != shape or tensor.dtype != dtype:
                raise ValueError(
                    f"{name}: expected {dtype}{list(shape)}, got {tensor.dtype}{list(tensor.shape)}"
                )
            write(tensor.reshape(-1).view(np.uint8).data)
        file.flush()
        os.fsync(file.fileno())
    _check_written(path, digest.hexdigest())


def _check_written(path: Path, digest: str) -> None:
    """Read a file back from the disk and compare it with the SHA-256 digest of what was to be written.

    Raises:
        OSError: If they differ.
    """
    with path.open("rb") as file:
        if hasattr(os, "posix_fadvise"):  # or else the memory that keeps the written pages would be read
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != digest:
        raise OSError(errno.EIO, "the disk does not hold what was written", str(path))


def _byte_count(shape: tuple[int, ...], dtype: np.dtype) -> int:
    return math.prod(shape) * dtype.itemsize

"""Export a model as a Hugging Face folder, which transformers loads like its own."""

import errno
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from flax_distil.checkpoints.exported_files import exported_files
from flax_distil.checkpoints.formats.files import CheckpointFiles
from flax_distil.checkpoints.formats.mapping import leaf_shapes, tensor_locations
from flax_distil.checkpoints.formats.safetensors_writer import plan_shards, write_shards
from flax_distil.checkpoints.model_config import EXPORT_DTYPES
from flax_distil.core.arrays import Params
from flax_distil.core.errors import InputError
from flax_distil.core.tree import flatten
from flax_distil.model.config import WhisperConfig

DEFAULT_SHARD_SIZE = 5 * 10**9
"""Maximum number of bytes of a weight file, as in transformers."""

_HEADER_ALLOWANCE = 1 << 20  # bytes for headers, index and directory entries when space is checked


def export_checkpoint(
    params: Params,
    config: WhisperConfig,
    output_dir: str | Path,
    *,
    files: CheckpointFiles,
    dtype: DTypeLike = jnp.float16,
    max_shard_size: int = DEFAULT_SHARD_SIZE,
) -> Path:
    """Write a model as a Hugging Face folder with safetensors, configurations and tokenizer.

    Everything is written to a scratch folder, the weights are read back and compared with what was to be
    written, and then it is moved file by file, weights first, so that the folder never holds an incomplete
    file. Weights are copied from the devices one layer at a time.

    Args:
        params: The parameter tree.
        config: Architecture of the model.
        output_dir: Folder of the export, created if absent; files of an earlier export are replaced.
        files: Tokenizer and settings, usually those of the teacher, or of the student that was made from it.
        dtype: Element type of the weights: float16, bfloat16 or float32.
        max_shard_size: Maximum number of bytes per weight file.

    Returns:
        ``output_dir``.

    Raises:
        InputError: If the element type is unknown, the disk is too full, or a value does not fit float16.
        ValueError: If ``params`` does not have the leaves of ``config``.
    """
    return write_checkpoint(
        tensor_reader(params, config),
        config,
        output_dir,
        files=files,
        dtype=dtype,
        max_shard_size=max_shard_size,
    )


def write_checkpoint(
    read: Callable[[str], np.ndarray],
    config: WhisperConfig,
    output_dir: str | Path,
    *,
    files: CheckpointFiles,
    dtype: DTypeLike = jnp.float16,
    max_shard_size: int = DEFAULT_SHARD_SIZE,
) -> Path:
    """Write a Hugging Face folder from tensors that are read one at a time; see :func:`export_checkpoint`.

    Args:
        read: Function that returns one tensor by its Hugging Face name, of any floating-point type.
        config: Architecture of the model.
        output_dir: Folder of the export.
        files: Tokenizer and settings.
        dtype: Element type of the weights.
        max_shard_size: Maximum number of bytes per weight file.

    Returns:
        ``output_dir``.

    Raises:
        InputError: If the element type is unknown, the disk is too full, or a value does not fit float16.
    """
    folder, target = Path(output_dir), np.dtype(dtype)
    if target.name not in EXPORT_DTYPES:
        raise InputError(
            f"cannot export weights as {target.name}: expected one of {', '.join(EXPORT_DTYPES)}"
        )

    shapes = {name: location.shape for name, location in tensor_locations(config).items()}
    shards = plan_shards(shapes, target, max_shard_size=max_shard_size)
    small = exported_files(files, config, target).contents()
    needed = (
        sum(shard.byte_count(target) for shard in shards) + sum(map(len, small.values())) + _HEADER_ALLOWANCE
    )
    folder.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(folder).free < needed:
        raise _disk_full(folder, needed)
    _write_files(folder, small, lambda scratch: write_shards(scratch, shards, target, read), needed)
    return folder


def _check_tree(leaves: Mapping[str, Any], config: WhisperConfig) -> None:
    expected = leaf_shapes(config)
    found = {path: tuple(leaf.shape) for path, leaf in leaves.items()}
    wrong = sorted(path for path in expected | found if expected.get(path) != found.get(path))
    if wrong:
        details = ", ".join(
            f"{path} (expected {expected.get(path)}, got {found.get(path)})" for path in wrong
        )
        raise ValueError(f"the parameters are not those of the configuration: {details}")


def tensor_reader(params: Params, config: WhisperConfig) -> Callable[[str], np.ndarray]:
    """Return a function that copies one Hugging Face tensor from the devices, in its own element type.

    Raises:
        ValueError: If ``params`` does not have the leaves of ``config``.
    """
    leaves, locations = flatten(params), tensor_locations(config)
    _check_tree(leaves, config)

    def read(name: str) -> np.ndarray:
        location = locations[name]
        leaf = leaves[location.mapping.path]
        # The layer is indexed on the device, because copying the whole leaf would leave a copy of it on the
        # host.
        part = jnp.array(leaf, copy=True) if location.layer is None else leaf[location.layer]
        return location.mapping.axes.to_huggingface(np.asarray(jax.device_get(part)))

    return read


def _disk_full(folder: Path, needed: int) -> InputError:
    free = shutil.disk_usage(folder).free
    return InputError(
        f"the export into {folder} needs {math.ceil(needed / 1e6)} MB, but its disk has "
        f"{free // 10**6} MB free: make room or choose another folder"
    )


def _write_files(
    folder: Path, small: Mapping[str, bytes], write_weights: Callable[[Path], list[str]], needed: int
) -> None:
    """Write everything to a scratch folder, then move it into place; ``needed`` bytes are for a message."""
    scratch = Path(tempfile.mkdtemp(prefix=".export-", dir=folder))
    try:
        weights = write_weights(scratch)
        for name, contents in small.items():
            (scratch / name).write_bytes(contents)
        _move_into_place(scratch, folder, weights, list(small))
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise _disk_full(folder, needed) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _move_into_place(scratch: Path, folder: Path, weights: list[str], others: list[str]) -> None:
    """Move file by file: first weights, then old weights are removed, then the other files follow."""
    for name in weights:
        os.replace(scratch / name, folder / name)
    for stale in folder.glob("model*.safetensors*"):
        if stale.name not in weights:
            stale.unlink()
    for name in others:
        os.replace(scratch / name, folder / name)

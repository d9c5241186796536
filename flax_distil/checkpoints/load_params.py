"""Read named tensors from disk into our parameter tree on devices, one leaf at a time."""

import dataclasses
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from jax.sharding import Sharding, SingleDeviceSharding
from jax.typing import DTypeLike

from flax_distil.checkpoints.check_tensors import check_tensors, check_tied_projection
from flax_distil.checkpoints.formats.finite import all_finite
from flax_distil.checkpoints.formats.mapping import PARAM_MAPPINGS, ParamMapping, leaf_shapes
from flax_distil.checkpoints.formats.reader import CheckpointReader
from flax_distil.core.arrays import Params
from flax_distil.core.errors import InputError
from flax_distil.core.tree import unflatten
from flax_distil.model.config import WhisperConfig

_THREADS = 8
"""Number of layers that are read and converted at the same time."""

BRANCHES = ("encoder", "decoder")
"""The two halves of a parameter tree."""

ShardingRule = Callable[[str], Sharding | None]
"""Function that returns the sharding of the leaf at a path; None places it on the default device."""


def load_params(
    source: CheckpointReader,
    config: WhisperConfig,
    *,
    dtype: DTypeLike = jnp.float32,
    sharding: ShardingRule | None = None,
    decoder_only: bool = False,
    branches: Collection[str] = BRANCHES,
) -> Params:
    """Read a checkpoint into our parameter tree on the devices.

    One leaf at a time is assembled on the host, a few layers at once and already in ``dtype``, and only the
    part that the devices of this process hold. So the host needs memory for the largest leaf (or its shard),
    and never for a second copy of the model.

    Args:
        source: The checkpoint.
        config: Architecture of the model.
        dtype: Element type of the leaves.
        sharding: Function that returns the sharding of each leaf; by default all leaves are on the first
            device.
        decoder_only: Whether the checkpoint has no encoder.
        branches: Which of :data:`BRANCHES` to read.

    Returns:
        The nested dictionary that ``flax_distil.model.assembly.whisper_shapes`` describes, with those of
        these branches that the checkpoint has.

    Raises:
        InputError: If :func:`check_tensors` refuses the tensors, or a value is not finite.
    """
    check_tensors(source, config, decoder_only=decoder_only)
    check_tied_projection(source)
    finite = FiniteTensors(source)
    mappings = {mapping.path: mapping for mapping in PARAM_MAPPINGS}
    default = SingleDeviceSharding(jax.devices()[0])
    leaves: dict[str, jax.Array] = {}
    for path, shape in leaf_shapes(config).items():
        branch = path.partition("/")[0]
        if branch not in branches or (decoder_only and branch == "encoder"):
            continue
        place = (sharding(path) if sharding else None) or default
        reader = _LeafReader(source=finite, mapping=mappings[path], shape=shape, dtype=np.dtype(dtype))
        leaves[path] = jax.make_array_from_callback(shape, place, reader)
        # Without waiting, the host buffers of many leaves would be in memory at the same time.
        leaves[path].block_until_ready()
    return unflatten(leaves)


class FiniteTensors:
    """Reads the tensors of a checkpoint, and checks each for NaN and infinity when it is first read."""

    def __init__(self, source: CheckpointReader):
        self._source, self.origin = source, source.origin
        self._checked: set[str] = set()

    def read(self, name: str) -> np.ndarray:
        """Return one tensor.

        Raises:
            InputError: If one of its values is not finite.
        """
        tensor = self._source.read(name)
        if name not in self._checked:
            if not all_finite(tensor):
                count = int(np.count_nonzero(~np.isfinite(tensor)))
                raise InputError(
                    f"{count} of {tensor.size} values of {name} in {self.origin} are NaN or "
                    "infinite: the weights are damaged; fetch or export them again"
                )
            self._checked.add(name)
        return tensor


@dataclasses.dataclass(frozen=True, kw_only=True)
class _LeafReader:
    """Reads the part of one leaf that a device needs."""

    source: "FiniteTensors"
    mapping: ParamMapping
    shape: tuple[int, ...]
    dtype: np.dtype

    def __call__(self, index: tuple[slice, ...] | None) -> np.ndarray:
        index = index or (slice(None),) * len(self.shape)
        if not self.mapping.stacked:
            name = self.mapping.name
            tensor = self.mapping.axes.from_huggingface(self.source.read(name), self.shape)
            return self._in_range(name, tensor[index]).astype(self.dtype)
        layers = range(self.shape[0])[index[0]]
        extent = tuple(len(range(size)[part]) for size, part in zip(self.shape, index, strict=True))
        leaf = np.empty(extent, self.dtype)

        def fill(position: int) -> None:
            name = self.mapping.name.format(i=layers[position])
            tensor = self.mapping.axes.from_huggingface(self.source.read(name), self.shape[1:])
            leaf[position] = self._in_range(name, tensor[index[1:]])

        with ThreadPoolExecutor(_THREADS, thread_name_prefix="weights") as pool:
            list(pool.map(fill, range(len(layers))))
        return leaf

    def _in_range(self, name: str, part: np.ndarray) -> np.ndarray:
        """Return a part of a tensor, after checking that the type of the leaf can hold its values."""
        if ml_dtypes.finfo(self.dtype).max >= ml_dtypes.finfo(part.dtype).max:
            return part
        with np.errstate(over="ignore"):
            converted = part.astype(self.dtype)
        if not all_finite(converted):
            raise InputError(
                f"{name} of {self.source.origin} reaches {float(np.abs(part).max()):g}, more than "
                f"{self.dtype} can hold: choose another dtype"
            )
        return converted

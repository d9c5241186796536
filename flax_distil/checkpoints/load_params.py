"""Read named tensors from disk into our parameter tree on devices, one leaf at a time."""

import abc
import dataclasses
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from jax.sharding import Sharding, SingleDeviceSharding
from jax.typing import DTypeLike

from flax_distil.checkpoints.formats.finite import all_finite
from flax_distil.checkpoints.formats.mapping import (
    IGNORED_TENSORS,
    PARAM_MAPPINGS,
    TIED_PROJECTION,
    TOKEN_EMBEDDING,
    ParamMapping,
    leaf_shapes,
    tensor_locations,
)
from flax_distil.core.arrays import Params
from flax_distil.core.errors import InputError
from flax_distil.core.fields import one_line
from flax_distil.core.tree import unflatten
from flax_distil.model.config import WhisperConfig

_FLOATING = ("float64", "float32", "float16", "bfloat16")

_ENCODER_TENSORS = "model.encoder."

_MOST_NAMED = 20  # maximum number of tensors of a kind that one message names

ShardingRule = Callable[[str], Sharding | None]
"""Function that returns the sharding of the leaf at a path; None places it on the default device."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """Shape and element type of a tensor that has not been read."""

    shape: tuple[int, ...]
    dtype: str


class CheckpointReader(abc.ABC):
    """Reads the tensors of a checkpoint on disk one at a time, by their Hugging Face names."""

    origin: str
    """Name of the checkpoint in messages."""

    @property
    @abc.abstractmethod
    def tensors(self) -> Mapping[str, TensorSpec]:
        """Shape and type of each tensor, by canonical name."""

    @abc.abstractmethod
    def read(self, name: str) -> np.ndarray:
        """Return one tensor, without keeping it."""


def has_no_encoder(source: CheckpointReader) -> bool:
    """Return whether a checkpoint is a decoder only, as ``WhisperForCausalLM`` of transformers saves it."""
    return TOKEN_EMBEDDING in source.tensors and not any(
        name.startswith(_ENCODER_TENSORS) for name in source.tensors
    )


def check_tensors(source: CheckpointReader, config: WhisperConfig, *, decoder_only: bool = False) -> None:
    """Compare the names and shapes of a checkpoint's tensors with its configuration; values are not read.

    Args:
        source: The checkpoint.
        config: Architecture of the model.
        decoder_only: Whether the checkpoint has no encoder.

    Raises:
        InputError: If tensors are missing, unexpected or of the wrong shape; the message names all of them.
    """
    found = source.tensors
    _check_table_sizes(source, config)
    locations = {
        name: place
        for name, place in tensor_locations(config).items()
        if not (decoder_only and name.startswith(_ENCODER_TENSORS))
    }
    wanted = {name: spec for name, spec in found.items() if name in locations}
    missing = [name for name in locations if name not in found]
    unexpected = [name for name in found if name not in locations and name not in IGNORED_TENSORS]
    unfit = [
        f"{name} (expected {list(locations[name].shape)}, got {list(spec.shape)})"
        for name, spec in wanted.items()
        if spec.shape != locations[name].shape
    ]
    unreadable = [f"{name} ({spec.dtype})" for name, spec in wanted.items() if spec.dtype not in _FLOATING]
    if TIED_PROJECTION in found and found[TIED_PROJECTION].dtype not in _FLOATING:
        unreadable.append(f"{TIED_PROJECTION} ({found[TIED_PROJECTION].dtype})")
    problems = [
        f"{len(names)} {what}: {_listed(names)}"
        for what, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", unfit),
            ("not of a floating-point type", unreadable),
        )
        if names
    ]
    if problems:
        raise InputError(
            f"the tensors of {source.origin} do not fit its configuration "
            f"(is config.json that of these weights?): {'; '.join(problems)}"
        )


def _check_table_sizes(source: CheckpointReader, config: WhisperConfig) -> None:
    """Compare the sizes of the embedding tables first, because shapes of a far too large model take long."""
    for name, size in (
        (TOKEN_EMBEDDING, config.vocab_size),
        ("model.encoder.embed_positions.weight", config.max_source_positions),
        ("model.decoder.embed_positions.weight", config.max_target_positions),
    ):
        spec, expected = source.tensors.get(name), (size, config.d_model)
        if spec is not None and spec.shape != expected:
            raise InputError(
                f"{name} of {source.origin} has shape {list(spec.shape)}, but its configuration asks for "
                f"{list(expected)}: is config.json that of these weights?"
            )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(map(one_line, names[:_MOST_NAMED])) + more


def _check_tied_projection(source: CheckpointReader) -> None:
    if TIED_PROJECTION in source.tensors and not np.array_equal(
        source.read(TIED_PROJECTION), source.read(TOKEN_EMBEDDING)
    ):
        raise InputError(
            f"{TIED_PROJECTION} of {source.origin} differs from {TOKEN_EMBEDDING}: "
            "Whisper ties the two, and this model has no separate output projection"
        )


def assemble(
    source: CheckpointReader,
    config: WhisperConfig,
    *,
    dtype: DTypeLike = jnp.float32,
    sharding: ShardingRule | None = None,
    decoder_only: bool = False,
) -> Params:
    """Read a checkpoint into our parameter tree on the devices.

    One leaf at a time is assembled on the host, layer by layer and already in ``dtype``, and only the part
    that the devices of this process hold. So the host needs memory for the largest leaf (or its shard), and
    never for a second copy of the model.

    Args:
        source: The checkpoint.
        config: Architecture of the model.
        dtype: Element type of the leaves.
        sharding: Function that returns the sharding of each leaf; by default all leaves are on the first
            device.
        decoder_only: Whether to read no encoder.

    Returns:
        The nested dictionary that ``flax_distil.model.assembly.whisper_shapes`` describes; for a decoder
        only, without the branch ``encoder``.

    Raises:
        InputError: If :func:`check_tensors` refuses the tensors, or a value is not finite.
    """
    check_tensors(source, config, decoder_only=decoder_only)
    _check_tied_projection(source)
    finite = FiniteTensors(source)
    mappings = {mapping.path: mapping for mapping in PARAM_MAPPINGS}
    default = SingleDeviceSharding(jax.devices()[0])
    leaves: dict[str, jax.Array] = {}
    for path, shape in leaf_shapes(config).items():
        if decoder_only and path.startswith("encoder/"):
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
        for position, layer in enumerate(layers):
            name = self.mapping.name.format(i=layer)
            tensor = self.mapping.axes.from_huggingface(self.source.read(name), self.shape[1:])
            leaf[position] = self._in_range(name, tensor[index[1:]])
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

"""The table of parameters: our leaves and their tensors in Hugging Face checkpoints.

Reading and writing use the same rows, so a wrong name or axis can be in one place only, and a round trip
tests the table.
"""

import dataclasses
import math
from typing import Any

import numpy as np

from flax_distil.core.tree import flatten
from flax_distil.model.assembly import whisper_shapes
from flax_distil.model.config import WhisperConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class AxisMap:
    """How the axes of one tensor differ between PyTorch and this package.

    Attributes:
        reverse: Whether PyTorch has the axes in the opposite order (``[out, in]`` for ``[in, out]``).
        groups: For each axis of PyTorch's tensor (after reversing), our axes that it merges. With ``((0,),
            (1, 2))``, PyTorch has one axis for our last two, such as those of heads and their features.
    """

    reverse: bool
    groups: tuple[tuple[int, ...], ...]

    def huggingface_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape in PyTorch of a tensor (one layer) that has ``shape`` in this package."""
        merged = tuple(math.prod(shape[axis] for axis in group) for group in self.groups)
        return merged[::-1] if self.reverse else merged

    def from_huggingface(self, tensor: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Return a tensor of PyTorch in our axis order with shape ``shape``, as a view."""
        return (tensor.T if self.reverse else tensor).reshape(shape)

    def to_huggingface(self, array: np.ndarray) -> np.ndarray:
        """Invert :meth:`from_huggingface`; the result is a view."""
        shape = self.huggingface_shape(array.shape)
        return array.reshape(shape[::-1]).T if self.reverse else array.reshape(shape)


VECTOR = AxisMap(reverse=False, groups=((0,),))  # [D]
TABLE = AxisMap(reverse=False, groups=((0,), (1,)))  # embeddings: [V, D] on both sides
MATRIX = AxisMap(reverse=True, groups=((0,), (1,)))  # [in, out] from [out, in]
CONVOLUTION = AxisMap(reverse=True, groups=((0,), (1,), (2,)))  # [3, in, out] from [out, in, 3]
TO_HEADS = AxisMap(reverse=True, groups=((0,), (1, 2)))  # [D, N, H] from [N·H, D]
FROM_HEADS = AxisMap(reverse=True, groups=((0, 1), (2,)))  # [N, H, D] from [D, N·H]
HEADS = AxisMap(reverse=False, groups=((0, 1),))  # [N, H] from [N·H]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ParamMapping:
    """One row of the table: a leaf, the tensors that it is made of, and the order of their axes.

    Attributes:
        path: Path of our leaf, such as ``encoder/conv1/kernel``.
        name: Name of the Hugging Face tensor; with ``{i}``, there is one for each entry of the leaf's leading
            axis L.
        axes: How the axes of one tensor become those of one layer of the leaf.
    """

    path: str
    name: str
    axes: AxisMap

    @property
    def stacked(self) -> bool:
        """Whether the leaf stacks the tensors of all layers."""
        return "{i}" in self.name


_Rows = tuple[tuple[str, str, AxisMap], ...]  # (our leaf, their tensor, axes)
_Part = tuple[str, str, _Rows]  # (our branch, their module, its rows)

_ATTENTION: _Rows = (
    ("query/kernel", "q_proj.weight", TO_HEADS),
    ("query/bias", "q_proj.bias", HEADS),
    ("key/kernel", "k_proj.weight", TO_HEADS),
    ("value/kernel", "v_proj.weight", TO_HEADS),
    ("value/bias", "v_proj.bias", HEADS),
    ("out/kernel", "out_proj.weight", FROM_HEADS),
    ("out/bias", "out_proj.bias", VECTOR),
)
_NORM: _Rows = (("scale", "weight", VECTOR), ("bias", "bias", VECTOR))
_LINEAR: _Rows = (("kernel", "weight", MATRIX), ("bias", "bias", VECTOR))
_CONVOLUTION: _Rows = (("kernel", "weight", CONVOLUTION), ("bias", "bias", VECTOR))
_EMBEDDING: _Rows = (("embedding", "weight", TABLE),)

_ENCODER_LAYER: tuple[_Part, ...] = (
    ("self_attention", "self_attn", _ATTENTION),
    ("self_attention_norm", "self_attn_layer_norm", _NORM),
    ("fc1", "fc1", _LINEAR),
    ("fc2", "fc2", _LINEAR),
    ("final_norm", "final_layer_norm", _NORM),
)
_DECODER_LAYER: tuple[_Part, ...] = (
    *_ENCODER_LAYER,
    ("cross_attention", "encoder_attn", _ATTENTION),
    ("cross_attention_norm", "encoder_attn_layer_norm", _NORM),
)


def _layer_parts(side: str, parts: tuple[_Part, ...]) -> list[_Part]:
    return [
        (f"{side}/layers/{ours}", f"model.{side}.layers.{{i}}.{theirs}", rows) for ours, theirs, rows in parts
    ]


_PARTS: tuple[_Part, ...] = (
    ("encoder/conv1", "model.encoder.conv1", _CONVOLUTION),
    ("encoder/conv2", "model.encoder.conv2", _CONVOLUTION),
    ("encoder/position_embedding", "model.encoder.embed_positions", _EMBEDDING),
    *_layer_parts("encoder", _ENCODER_LAYER),
    ("encoder/norm", "model.encoder.layer_norm", _NORM),
    ("decoder/token_embedding", "model.decoder.embed_tokens", _EMBEDDING),
    ("decoder/position_embedding", "model.decoder.embed_positions", _EMBEDDING),
    *_layer_parts("decoder", _DECODER_LAYER),
    ("decoder/norm", "model.decoder.layer_norm", _NORM),
)

PARAM_MAPPINGS: tuple[ParamMapping, ...] = tuple(
    ParamMapping(path=f"{ours}/{leaf}", name=f"{theirs}.{tensor}", axes=axes)
    for ours, theirs, rows in _PARTS
    for leaf, tensor, axes in rows
)
"""The table: one row per leaf of ``flax_distil.model.assembly.whisper_shapes``."""

TIED_PROJECTION = "proj_out.weight"
"""The output projection, a second name of the token embedding; it is read if present, and never written."""

TOKEN_EMBEDDING = "model.decoder.embed_tokens.weight"
"""The tensor to which :data:`TIED_PROJECTION` must be equal."""

IGNORED_TENSORS = frozenset({TIED_PROJECTION, "model.encoder.version", "model.decoder.version"})
"""Tensors of old checkpoints that are not parameters."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TensorLocation:
    """Where one Hugging Face tensor of a given model is in our parameter tree.

    Attributes:
        mapping: Row of :data:`PARAM_MAPPINGS` that describes it.
        layer: Index on the leaf's leading axis; None if the leaf is not stacked.
        shape: Shape in the Hugging Face checkpoint.
    """

    mapping: ParamMapping
    layer: int | None
    shape: tuple[int, ...]


def leaf_shapes(config: WhisperConfig) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the leaves of our parameter tree by path, in the order of the model."""
    return {path: tuple(leaf.shape) for path, leaf in flatten(whisper_shapes(config)).items()}


def tensor_locations(config: WhisperConfig) -> dict[str, TensorLocation]:
    """Expand :data:`PARAM_MAPPINGS` for one model to the location and shape of every Hugging Face tensor.

    Args:
        config: The architecture.

    Returns:
        Locations by name of the tensor, in the order of the table.
    """
    shapes = leaf_shapes(config)
    locations: dict[str, TensorLocation] = {}
    for mapping in PARAM_MAPPINGS:
        shape = shapes[mapping.path]
        layers: tuple[Any, ...] = tuple(range(shape[0])) if mapping.stacked else (None,)
        single = mapping.axes.huggingface_shape(shape[1:] if mapping.stacked else shape)
        for layer in layers:
            locations[mapping.name.format(i=layer)] = TensorLocation(
                mapping=mapping, layer=layer, shape=single
            )
    return locations


def canonical_name(name: str) -> str:
    """Return the name of a tensor in ``WhisperForConditionalGeneration``.

    In checkpoints of a bare ``WhisperModel``, names lack the leading ``model.``.
    """
    return f"model.{name}" if name.startswith(("encoder.", "decoder.")) else name

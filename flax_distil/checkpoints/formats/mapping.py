"""Names of Whisper's tensors in Hugging Face checkpoints, as one table read in both directions.

Reading and writing go through the same rows, so a name or an axis can be wrong in
one place only, and a round trip proves the table.
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
    """How the axes of one tensor differ between PyTorch's order and ours.

    Attributes:
        reverse: PyTorch keeps the axes in the opposite order (``[out, in]`` for ``[in, out]``).
        groups: For each axis of the tensor (after reversing), our axes that it merges:
            ``((0,), (1, 2))`` says that PyTorch has one axis for our last two, as for heads.
    """

    reverse: bool
    groups: tuple[tuple[int, ...], ...]

    def huggingface_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return PyTorch's shape of a tensor (one layer) that has ``shape`` here."""
        merged = tuple(math.prod(shape[axis] for axis in group) for group in self.groups)
        return merged[::-1] if self.reverse else merged

    def from_huggingface(self, tensor: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Return PyTorch's tensor in our axis order and ``shape``, as a view."""
        return (tensor.T if self.reverse else tensor).reshape(shape)

    def to_huggingface(self, array: np.ndarray) -> np.ndarray:
        """Invert :meth:`from_huggingface`, as a view."""
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
    """One row of the table: our leaf, the tensors it is made of, the order of their axes.

    Attributes:
        path: Our leaf, ``encoder/conv1/kernel``.
        name: The Hugging Face tensor; with ``{i}``, one for each entry of the leaf's leading axis L.
        axes: How one tensor becomes one layer of the leaf.
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
"""The output projection: the token embedding under a second name; read if present, never written."""

TOKEN_EMBEDDING = "model.decoder.embed_tokens.weight"
"""The tensor that :data:`TIED_PROJECTION` must equal."""

IGNORED_TENSORS = frozenset({TIED_PROJECTION, "model.encoder.version", "model.decoder.version"})
"""Tensors that old checkpoints carry beside the parameters."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TensorLocation:
    """Where one Hugging Face tensor of a given model lives in our tree.

    Attributes:
        mapping: The row of :data:`PARAM_MAPPINGS` it follows.
        layer: Its entry on the leaf's leading axis, ``None`` if the leaf is not stacked.
        shape: Its shape in the Hugging Face checkpoint.
    """

    mapping: ParamMapping
    layer: int | None
    shape: tuple[int, ...]


def leaf_shapes(config: WhisperConfig) -> dict[str, tuple[int, ...]]:
    """Return ``{path: shape}`` of our parameter tree, in the order of the model."""
    return {path: tuple(leaf.shape) for path, leaf in flatten(whisper_shapes(config)).items()}


def tensor_locations(config: WhisperConfig) -> dict[str, TensorLocation]:
    """Expand :data:`PARAM_MAPPINGS` for one model: every Hugging Face tensor, where it goes and its shape.

    Args:
        config: The architecture.

    Returns:
        ``{tensor name: location}`` in the order of the table.
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
    """Return a tensor's name as ``WhisperForConditionalGeneration`` has it.

    Checkpoints of the bare ``WhisperModel`` leave the leading ``model.`` away.
    """
    return f"model.{name}" if name.startswith(("encoder.", "decoder.")) else name

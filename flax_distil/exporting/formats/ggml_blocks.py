"""Quantize matrices to the blocks of ggml: 32 neighboring weights of a row share one scale.

A block holds its scale ``d`` (and, in the ``_1`` types, its minimum ``m``) as float16, then the weights as
small integers. Types with 4 and 5 bits keep the low four bits of the weights ``j`` and ``j + 16`` in one
byte, and types with 5 bits the fifth bits of all weights in four bytes before them::

    q8_0   d  qs[32]                w = d * q                q in -127 ... 127
    q5_0   d  qh[4] qs[16]          w = d * (q - 16)         q in 0 ... 31
    q5_1   d  m  qh[4] qs[16]       w = d * q + m
    q4_0   d  qs[16]                w = d * (q - 8)          q in 0 ... 15
    q4_1   d  m  qs[16]             w = d * q + m

Source: ``ggml-common.h`` and the reference quantizers in ``ggml-quants.c`` of ggml.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from flax_distil.core.arrays import Float, UInt

BLOCK_SIZE = 32


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlockType:
    """A quantized element type of ggml.

    Attributes:
        type_id: Its number among the element types of tensors (``enum ggml_type``).
        file_type: Its number among the types of whole files (``enum ggml_ftype``).
        bits: Number of bits of a weight.
        has_minimum: Whether a block has a minimum beside its scale.
    """

    type_id: int
    file_type: int
    bits: int
    has_minimum: bool = False

    @property
    def block_bytes(self) -> int:
        """Number of bytes of a block."""
        return 2 + 2 * self.has_minimum + BLOCK_SIZE * self.bits // 8


BLOCK_TYPES: Mapping[str, BlockType] = {
    "q8_0": BlockType(type_id=8, file_type=7, bits=8),
    "q5_0": BlockType(type_id=6, file_type=8, bits=5),
    "q5_1": BlockType(type_id=7, file_type=9, bits=5, has_minimum=True),
    "q4_0": BlockType(type_id=2, file_type=2, bits=4),
    "q4_1": BlockType(type_id=3, file_type=3, bits=4, has_minimum=True),
}
"""The types by their names in whisper.cpp."""


def quantize_blocks(
    values_RD: Float[np.ndarray, "R D"], block_type: BlockType
) -> UInt[np.ndarray, "blocks bytes"]:
    """Quantize rows of a matrix.

    Args:
        values_RD: float32 or float16; D is a multiple of :data:`BLOCK_SIZE`.
        block_type: The type of the blocks.

    Returns:
        The bytes of the blocks, row after row.

    Raises:
        ValueError: If D is no multiple of :data:`BLOCK_SIZE`.
    """
    if values_RD.shape[-1] % BLOCK_SIZE:
        raise ValueError(f"expected rows of a multiple of {BLOCK_SIZE} values, got {values_RD.shape[-1]}")
    blocks = values_RD.astype(np.float32).reshape(-1, BLOCK_SIZE)
    if block_type.bits == 8:
        scale, levels = _eight_bits(blocks)
        return _joined(scale, levels.view(np.uint8))
    quantize = _with_minimum if block_type.has_minimum else _around_zero
    heads, levels = quantize(blocks, block_type.bits)
    packed = (levels[:, :16] & 0x0F) | ((levels[:, 16:] & 0x0F) << 4)
    if block_type.bits == 5:
        return _joined(heads, np.packbits(levels >> 4, axis=1, bitorder="little"), packed)
    return _joined(heads, packed)


def _eight_bits(blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return scales and levels from -127 to 127, of which the largest magnitude has 127."""
    scale = np.abs(blocks).max(axis=1, keepdims=True) / np.float32(127)
    scaled = blocks * _inverse(scale)
    whole = np.trunc(scaled)
    # C's roundf takes halves away from zero; NumPy's rint takes them to even numbers.
    levels = whole + np.copysign(np.abs(scaled - whole) >= np.float32(0.5), scaled)
    return scale, levels.astype(np.int8)


def _around_zero(blocks: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Return scales and levels around the middle one; the value of largest magnitude has level 0."""
    middle = 1 << (bits - 1)
    places = np.abs(blocks).argmax(axis=1)[:, None]
    scale = np.take_along_axis(blocks, places, axis=1) / np.float32(-middle)
    levels = blocks * _inverse(scale) + np.float32(middle + 0.5)
    return scale, np.minimum(levels, 2 * middle - 1).astype(np.uint8)


def _with_minimum(blocks: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Return scales and minima side by side, and levels from 0 for the minimum to the highest."""
    highest = (1 << bits) - 1
    low = blocks.min(axis=1, keepdims=True)
    scale = (blocks.max(axis=1, keepdims=True) - low) / np.float32(highest)
    levels = (blocks - low) * _inverse(scale) + np.float32(0.5)
    return np.concatenate([scale, low], axis=1), np.minimum(levels, highest).astype(np.uint8)


def _inverse(scale: np.ndarray) -> np.ndarray:
    return np.divide(np.float32(1), scale, out=np.zeros_like(scale), where=scale != 0)


def _joined(heads: np.ndarray, *parts: np.ndarray) -> np.ndarray:
    """Join float16 heads and the bytes after them to the bytes of each block."""
    with np.errstate(over="ignore"):  # the writer checks the values before
        halves = np.ascontiguousarray(heads.astype("<f2")).view(np.uint8)
    return np.concatenate([halves, *parts], axis=1)

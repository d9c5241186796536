"""Weights of an ONNX graph: made of a checkpoint's tensors block by block, when a file is written.

A matrix is stored as ``[in, out]``, the transpose of Hugging Face's, because ONNX multiplies from the left.
No second copy of a tensor is ever held: blocks of it are transposed and converted one after the other.
"""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

from flax_distil.checkpoints.formats.conversion import converted
from flax_distil.exporting.onnx.precision import Precision
from flax_distil.exporting.source import ExportSource

_BLOCK_ELEMENTS = 1 << 20
"""Number of elements that are converted at a time."""

ZERO_POINT = 128
"""The integer that stands for zero in quantized weights and activations.

They are unsigned, because CPUs without VNNI instructions add pairs of products of unsigned and signed bytes
in 16 bits, which overflows silently.
"""

LEVELS = 127
"""Number of integers on either side of :data:`ZERO_POINT`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Initializer:
    """One stored tensor of an ONNX graph, whose values are not in memory.

    Attributes:
        name: Name in the graph.
        shape: Shape in the graph.
        dtype: Element type in the graph.
        blocks: Function that returns the values in row-major order, as arrays of ``dtype``.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    blocks: Callable[[], Iterator[np.ndarray]] = dataclasses.field(repr=False)

    @property
    def byte_count(self) -> int:
        """Size of the values in bytes."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


def constant(name: str, array: np.ndarray) -> Initializer:
    """Return an initializer with the values of a small array."""
    return Initializer(name=name, shape=array.shape, dtype=array.dtype, blocks=lambda: iter([array]))


@dataclasses.dataclass(frozen=True, kw_only=True)
class WeightStore:
    """Makes initializers of the tensors of one checkpoint.

    Attributes:
        source: The checkpoint.
        precision: How floating-point numbers are stored.
    """

    source: ExportSource
    precision: Precision

    def plain(self, name: str) -> Initializer:
        """Return a tensor with the shape that it has in the checkpoint."""

        def blocks() -> Iterator[np.ndarray]:
            tensor = self.source.read(name)
            rows = tensor.reshape(len(tensor), -1)
            for part in _parts(*rows.shape):
                yield converted(name, rows[part], self.precision.dtype)

        shape = tuple(self.source.shapes[name])
        return Initializer(name=name, shape=shape, dtype=self.precision.dtype, blocks=blocks)

    def matrix(self, name: str) -> Initializer:
        """Return a matrix ``[out, in]`` of the checkpoint as ``[in, out]``."""

        def blocks() -> Iterator[np.ndarray]:
            tensor = self.source.read(name)
            for part in _parts(*tensor.shape[::-1]):
                yield converted(name, np.ascontiguousarray(tensor[:, part].T), self.precision.dtype)

        outputs, inputs = self.source.shapes[name]
        return Initializer(name=name, shape=(inputs, outputs), dtype=self.precision.dtype, blocks=blocks)

    def quantized_matrix(self, name: str) -> tuple[Initializer, Initializer]:
        """Return a matrix ``[out, in]`` as integers ``[in, out]``, and the scale of each output ``[out]``.

        A weight is ``(integer - ZERO_POINT) * scale``, where the scale is the largest absolute value of its
        column divided by 127, as in ``onnxruntime.quantization.quantize_dynamic(per_channel=True)`` with
        symmetric weights.
        """

        def scales() -> Iterator[np.ndarray]:
            yield _row_scales(self.source.read(name))

        def blocks() -> Iterator[np.ndarray]:
            tensor = self.source.read(name)
            scales_O = _row_scales(tensor)
            for part in _parts(*tensor.shape[::-1]):
                steps_IO = tensor[:, part].T.astype(np.float32) / scales_O
                yield (np.rint(steps_IO) + ZERO_POINT).astype(np.uint8)

        outputs, inputs = self.source.shapes[name]
        return (
            Initializer(
                name=f"{name}_quantized", shape=(inputs, outputs), dtype=np.dtype(np.uint8), blocks=blocks
            ),
            Initializer(name=f"{name}_scale", shape=(outputs,), dtype=np.dtype(np.float32), blocks=scales),
        )


def _parts(rows: int, columns: int) -> Iterator[slice]:
    """Divide the rows of a matrix into blocks of about ``_BLOCK_ELEMENTS`` elements."""
    step = max(1, _BLOCK_ELEMENTS // columns)
    return (slice(start, start + step) for start in range(0, rows, step))


def _row_scales(tensor_OI: np.ndarray) -> np.ndarray:
    """Return the scale of each row; rows of zeros have scale 1."""
    largest = [np.abs(tensor_OI[part]).max(axis=1) for part in _parts(*tensor_OI.shape)]
    scales_O = np.concatenate(largest).astype(np.float32) / LEVELS
    return np.where(scales_O == 0, np.float32(1), scales_O)

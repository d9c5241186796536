"""The arrays of a CTranslate2 model, made from Hugging Face tensors a few megabytes at a time.

Source: ``ctranslate2/specs/model_spec.py`` (quantization) and ``ctranslate2/converters/utils.py`` (fused
projections) of CTranslate2 4.8.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import ml_dtypes
import numpy as np

from flax_distil.checkpoints.formats.conversion import converted, pieces
from flax_distil.checkpoints.formats.ctranslate2 import possible_parts
from flax_distil.exporting.source import ExportSource

_FLOAT = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}
_INT8 = np.dtype(np.int8)
_SMALLEST_ROW = np.float32(127) / np.finfo(np.float32).max  # below it a scale is no float32


@dataclasses.dataclass(frozen=True, kw_only=True)
class Array:
    """An array of a ``model.bin``, made when it is written.

    Attributes:
        shape: Its shape.
        dtype: Its element type.
        tensors: Names of the Hugging Face tensors whose rows follow each other in it; None stands for zeros.
        source: The checkpoint.
        scales: Scales of the rows of an int8 array, once its rows were made.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    tensors: tuple[str | None, ...]
    source: ExportSource = dataclasses.field(repr=False)
    scales: list[np.ndarray] = dataclasses.field(default_factory=list, repr=False)

    def pieces(self) -> Iterator[np.ndarray]:
        """Yield its rows, a few at a time."""
        for name in self.tensors:
            if name is None:
                yield np.zeros(self.shape[0] // len(self.tensors), self.dtype)
                continue
            for piece in pieces(self.source.read(name)):
                if self.dtype == _INT8:
                    values, scales = _quantized(piece)
                    self.scales.append(scales)
                    yield values
                else:
                    yield converted(name, piece, self.dtype)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScaleArray:
    """The float32 scales of an int8 array, which a file holds behind it: they are made with its rows."""

    rows: Array

    @property
    def shape(self) -> tuple[int, ...]:
        """One scale for each row."""
        return self.rows.shape[:1]

    @property
    def dtype(self) -> np.dtype:
        """float32."""
        return _FLOAT["float32"]

    def pieces(self) -> Iterator[np.ndarray]:
        """Yield the scales, after :attr:`rows` yielded its rows."""
        if not self.rows.scales:
            raise ValueError("scales are written behind the rows that they belong to")
        yield from self.rows.scales


def whisper_arrays(source: ExportSource, quantization: str) -> dict[str, Array | ScaleArray]:
    """Return every array of a Whisper model by its name, those of scales included.

    Args:
        source: The checkpoint.
        quantization: One of the format's quantizations. With ``int8_float16``, matrices are int8 and all
            else is float16; with ``int8``, all else is float32.
    """
    first, _, rest = quantization.partition("_")
    quantized = first == "int8"
    kind = _FLOAT[(rest or "float32") if quantized else first]
    arrays: dict[str, Array | ScaleArray] = {}
    for name, tensors in _tensors(source).items():
        shape = _joined_shape(source, tensors)
        is_matrix = name.endswith("/weight")
        dtype = _INT8 if quantized and is_matrix else kind
        arrays[name] = rows = Array(shape=shape, dtype=dtype, tensors=tensors, source=source)
        if dtype == _INT8:
            arrays[f"{name}_scale"] = ScaleArray(rows=rows)
    return arrays


def _tensors(source: ExportSource) -> Mapping[str, tuple[str | None, ...]]:
    """Return the names of the tensors that make each array; None for the bias that Whisper's keys lack."""
    config = source.config
    layers = {"encoder": config.encoder_layers, "decoder": config.decoder_layers}
    found: dict[str, list[str | None]] = {}
    for name, part in possible_parts(layers):
        is_norm = part.variable.endswith(("/gamma", "/beta"))
        if name in source.shapes and is_norm == ("layer_norm" in name):
            found.setdefault(part.variable, [None] * part.count)[part.index] = name
    return {name: tuple(tensors) for name, tensors in found.items()}


def _joined_shape(source: ExportSource, tensors: Sequence[str | None]) -> tuple[int, ...]:
    rows, *rest = next(source.shapes[name] for name in tensors if name is not None)
    return (rows * len(tensors), *rest)


def _quantized(piece: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return rows as int8, and the float32 scale of each: 127 over the largest magnitude in the row."""
    rows = piece.astype(np.float32).reshape(len(piece), -1)
    largest = np.abs(rows).max(axis=1)
    largest[largest == 0] = 127
    scales = np.float32(127) / np.maximum(largest, _SMALLEST_ROW)
    rows *= scales[:, None]
    return np.rint(rows, out=rows).astype(np.int8), scales

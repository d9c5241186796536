"""The precisions of an ONNX export, with the names and the file suffixes of Transformers.js."""

import dataclasses
from pathlib import Path

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class Precision:
    """How the numbers of one ONNX file are stored and computed.

    Attributes:
        suffix: What the names of its files have before ``.onnx``.
        dtype: Type of floating-point weights, activations and the key/value cache.
        quantized: Whether the matrices of linear layers and the token embedding are eight-bit integers.
    """

    suffix: str
    dtype: np.dtype
    quantized: bool = False


PRECISIONS: dict[str, Precision] = {
    "fp32": Precision(suffix="", dtype=np.dtype(np.float32)),
    "fp16": Precision(suffix="_fp16", dtype=np.dtype(np.float16)),
    "q8": Precision(suffix="_quantized", dtype=np.dtype(np.float32), quantized=True),
}
"""Precisions by the ``dtype`` of Transformers.js that loads them.

Source: ``DEFAULT_DTYPE_SUFFIX_MAPPING`` of @huggingface/transformers.
"""


def model_paths(folder: Path, precision: Precision) -> tuple[Path, Path]:
    """Return the files of the encoder and of the decoder of an export."""
    encoder, decoder = (
        folder / "onnx" / f"{stem}{precision.suffix}.onnx"
        for stem in ("encoder_model", "decoder_model_merged")
    )
    return encoder, decoder

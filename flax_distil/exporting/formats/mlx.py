"""Write a folder for mlx-whisper, which runs on Apple's processors.

The weights have OpenAI's names, kernels of convolutions have their inputs last, and a quantized matrix is
three tensors. mlx itself is not needed to write them.

Source: ``load_models.py`` and ``whisper.py`` of mlx-whisper 0.4; ``mlx.core.quantize``.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import ml_dtypes
import numpy as np

from flax_distil.checkpoints.alignment_heads import valid_alignment_heads
from flax_distil.checkpoints.formats.conversion import converted, pieces
from flax_distil.checkpoints.formats.openai.names import to_openai
from flax_distil.checkpoints.formats.safetensors_writer import StreamedTensor, write_safetensors
from flax_distil.core.errors import InputError
from flax_distil.exporting.formats.openai_architecture import check_openai_architecture
from flax_distil.exporting.source import ExportSource
from flax_distil.exporting.vocabulary import json_file

QUANTIZATIONS = ("float16", "float32", "bfloat16", "q8", "q4")
"""Types of the weights, the default first; where matrices are quantized, all else is float16."""

_BITS = {"q8": 8, "q4": 4}
_GROUP = 64  # elements of a row that share a scale and a bias
_DTYPES = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}
_UINT32 = np.dtype(np.uint32)
_SMALLEST_SCALE = np.float32(1e-7)

_ENCODER_POSITIONS = "model.encoder.embed_positions.weight"
_POSITION_TOLERANCE = 0.01  # bfloat16 rounds numbers around 1 by 0.004
_VOCABULARIES = (51864, 51865, 51866)

Convert = Callable[[np.ndarray], np.ndarray]


def write(source: ExportSource, folder: Path, *, quantization: str) -> None:
    """Write ``weights.safetensors`` and ``config.json``; the tokenizer is that of mlx-whisper.

    Args:
        source: The checkpoint.
        folder: An empty folder.
        quantization: One of :data:`QUANTIZATIONS`.

    Raises:
        InputError: If mlx-whisper cannot run the architecture, or a value does not fit float16.
    """
    _check_model(source)
    bits = _BITS.get(quantization)
    dtype = _DTYPES.get(quantization, _DTYPES["float16"])
    tensors: dict[str, StreamedTensor] = {}
    for name in source.shapes:
        if name != _ENCODER_POSITIONS:  # computed when the model is made
            tensors |= _streamed(source, name, dtype, bits)
    heads = valid_alignment_heads(source.files.generation_config, source.config).get("alignment_heads")
    if heads:
        tensors["alignment_heads"] = _constant(np.asarray(heads, np.int32))
    write_safetensors(folder / "weights.safetensors", tensors, metadata={"format": "mlx"})
    (folder / "config.json").write_bytes(json_file(_dimensions(source, bits)))


def _check_model(source: ExportSource) -> None:
    config = source.config
    check_openai_architecture(config, "mlx-whisper")
    if config.vocab_size not in _VOCABULARIES:
        raise InputError(
            f"mlx-whisper brings the tokenizers of OpenAI's models, of {_VOCABULARIES} tokens, and this "
            f"model has {config.vocab_size}: export it to another format"
        )
    found = source.read(_ENCODER_POSITIONS).astype(np.float32)
    if np.abs(found - _sinusoids(*found.shape)).max() > _POSITION_TOLERANCE:
        raise InputError(
            "mlx-whisper computes the positions of the encoder, and those of this model were trained: "
            "export it to another format"
        )


def _sinusoids(length: int, width: int) -> np.ndarray:
    """Return the encoder positions of Whisper as [length, width] float32.

    Source: ``whisper/model.py`` of openai/whisper.
    """
    rates = np.exp(-np.log(10000) / (width // 2 - 1) * np.arange(width // 2))
    angles = np.arange(length)[:, None] * rates
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)


def _streamed(
    source: ExportSource, name: str, dtype: np.dtype, bits: int | None
) -> dict[str, StreamedTensor]:
    """Return the tensors of a file that one Hugging Face tensor becomes."""
    shape = source.shapes[name]
    target = to_openai(name).replace("mlp.0", "mlp1").replace("mlp.2", "mlp2")

    def made(shape: tuple[int, ...], kind: np.dtype, convert: Convert) -> StreamedTensor:
        def stream() -> Iterator[np.ndarray]:
            return (convert(converted(name, piece, dtype)) for piece in pieces(source.read(name)))

        return StreamedTensor(shape=shape, dtype=kind, pieces=stream)

    if len(shape) == 3:  # [out, in, time] to [out, time, in]
        out, channels, width = shape
        return {target: made((out, width, channels), dtype, lambda piece: piece.transpose(0, 2, 1))}
    # A table of positions is no module that mlx would quantize.
    if bits is None or len(shape) != 2 or target.endswith("positional_embedding"):
        return {target: made(shape, dtype, lambda piece: piece)}
    rows, columns = shape
    module = target.removesuffix(".weight")
    return {
        target: made((rows, columns * bits // 32), _UINT32, lambda piece: _quantized(piece, bits)[0]),
        f"{module}.scales": made((rows, columns // _GROUP), dtype, lambda piece: _quantized(piece, bits)[1]),
        f"{module}.biases": made((rows, columns // _GROUP), dtype, lambda piece: _quantized(piece, bits)[2]),
    }


def _quantized(matrix: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Quantize the rows of a matrix as ``mlx.core.quantize`` does, bit by bit.

    Args:
        matrix: [R, C] floats, C divisible by 64.
        bits: 4 or 8 bits per element.

    Returns:
        Packed elements [R, C·bits/32] uint32, the first element in the lowest bits; scales and biases
        [R, C/64] in the type of the matrix: an element is ``scale · number + bias``.
    """
    groups = matrix.astype(np.float32).reshape(len(matrix), -1, _GROUP)
    high, low = groups.max(-1, keepdims=True), groups.min(-1, keepdims=True)
    most = np.float32(2**bits - 1)
    low_is_larger = np.abs(low) > np.abs(high)
    scale = np.maximum((high - low) / most, _SMALLEST_SCALE)
    scale = np.where(low_is_larger, scale, -scale)
    edge = np.where(low_is_larger, low, high)
    # The end of the range that is farther from zero is met exactly, and zero too.
    steps = np.rint(edge / scale)
    scale = np.where(steps == 0, scale, edge / np.where(steps == 0, 1, steps))
    bias = np.where(steps == 0, 0, edge)
    numbers = np.clip(np.rint((groups - bias) / scale), 0, most).astype(np.uint32)
    shifts = np.arange(32 // bits, dtype=np.uint32) * np.uint32(bits)
    packed = (numbers.reshape(len(matrix), -1, 32 // bits) << shifts).sum(-1, dtype=np.uint32)
    return packed, scale[..., 0].astype(matrix.dtype), bias[..., 0].astype(matrix.dtype)


def _constant(array: np.ndarray) -> StreamedTensor:
    return StreamedTensor(shape=array.shape, dtype=array.dtype, pieces=lambda: iter((array,)))


def _dimensions(source: ExportSource, bits: int | None) -> dict[str, object]:
    config = source.config
    dimensions: dict[str, object] = {
        "model_type": "whisper",
        "n_mels": config.num_mel_bins,
        "n_audio_ctx": config.max_source_positions,
        "n_audio_state": config.d_model,
        "n_audio_head": config.encoder_attention_heads,
        "n_audio_layer": config.encoder_layers,
        "n_vocab": config.vocab_size,
        "n_text_ctx": config.max_target_positions,
        "n_text_state": config.d_model,
        "n_text_head": config.decoder_attention_heads,
        "n_text_layer": config.decoder_layers,
    }
    return dimensions if bits is None else dimensions | {"quantization": {"group_size": _GROUP, "bits": bits}}

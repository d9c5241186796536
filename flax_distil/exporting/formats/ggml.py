"""Write the ggml file that whisper.cpp loads.

One file holds everything: sizes, the mel filters, the bytes of the text tokens, and the tensors one after
the other, each behind its own small header. All numbers are little-endian. whisper.cpp expects fixed element
types: vectors and position tables are float32, convolutions float16 (float32 in a float32 file), and matrices
have the type of the file. Float32 files are run by whisper.cpp from version 1.9.2 on: before, ggml asserted
that kernels of convolutions are float16, and ended the process.

Source: ``whisper_model_load`` of whisper.cpp, and its ``models/README.md``.
"""

import math
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from flax_distil.audio.mel import mel_filters
from flax_distil.checkpoints.formats.conversion import converted, pieces
from flax_distil.checkpoints.formats.openai.names import to_openai
from flax_distil.core.errors import InputError
from flax_distil.exporting.formats.ggml_blocks import BLOCK_SIZE, BLOCK_TYPES, quantize_blocks
from flax_distil.exporting.formats.openai_architecture import check_openai_architecture
from flax_distil.exporting.source import ExportSource
from flax_distil.exporting.vocabulary import text_tokens
from flax_distil.model.config import WhisperConfig
from flax_distil.storage.checked_file import Write, checked_file
from flax_distil.text.special_tokens import SpecialTokens

QUANTIZATIONS = ("f16", "f32", *BLOCK_TYPES)
"""Types of the matrices of a file."""

_MAGIC = 0x67676D6C  # "ggml"
_QUANTIZATION_VERSION = 2  # GGML_QNT_VERSION; files have it in front of their type, times 1000
_F32, _F16 = 0, 1  # both the types of tensors and those of files

_POSITION_TABLES = ("encoder.positional_embedding", "decoder.positional_embedding")


def write(source: ExportSource, folder: Path, *, quantization: str) -> None:
    """Write ``ggml-model.bin``, with the type in its name unless that is float16.

    Args:
        source: The checkpoint.
        folder: An existing folder.
        quantization: One of :data:`QUANTIZATIONS`.

    Raises:
        InputError: If whisper.cpp cannot run the architecture or the vocabulary, or a value does not fit
            float16.
    """
    check_openai_architecture(source.config, "whisper.cpp")
    _check_blocks(source.config, quantization)
    special, tokens = text_tokens(source.files)
    _check_vocabulary(source, special)
    with checked_file(folder / file_name(quantization)) as append:
        append(_header(source.config, quantization))
        append(_filters(source.config.num_mel_bins))
        append(_vocabulary(tokens))
        # The largest comes first: what the allocator keeps of others would be in memory beside it.
        for name in sorted(source.shapes, key=lambda name: -math.prod(source.shapes[name])):
            _append_tensor(append, to_openai(name), source.read(name), quantization)


def file_name(quantization: str) -> str:
    """Return the name of the file of a type, as in the models that whisper.cpp publishes."""
    return "ggml-model.bin" if quantization == "f16" else f"ggml-model-{quantization}.bin"


def _check_blocks(config: WhisperConfig, quantization: str) -> None:
    if quantization in BLOCK_TYPES and config.d_model % BLOCK_SIZE:
        raise InputError(
            f"ggml quantizes {BLOCK_SIZE} weights of a row together, and d_model {config.d_model} is no "
            "multiple of that: choose ggml:f16"
        )


def _check_vocabulary(source: ExportSource, special: SpecialTokens) -> None:
    """Compare the special tokens with those that whisper.cpp computes from the size of the vocabulary."""
    size = source.config.vocab_size
    multilingual = size >= 51865
    end, first_timestamp = (50257, size - 1501) if multilingual else (50256, 50363)
    found, expected = (special.eot, special.sot, special.timestamp_begin), (end, end + 1, first_timestamp)
    if found != expected or size < 51864:
        raise InputError(
            f"whisper.cpp computes the ids of special tokens from vocab_size {size}, and would take "
            f"<|endoftext|>, <|startoftranscript|> and <|0.00|> for {list(expected)}; the tokenizer of "
            f"{source.files.origin} has {list(found)}, so export this model to another format"
        )


def _header(config: WhisperConfig, quantization: str) -> bytes:
    block_type = BLOCK_TYPES.get(quantization)
    if block_type is None:
        file_type = _F32 if quantization == "f32" else _F16
    else:
        file_type = _QUANTIZATION_VERSION * 1000 + block_type.file_type
    return struct.pack(
        "<12i",
        _MAGIC,
        config.vocab_size,
        config.max_source_positions,
        config.d_model,
        config.encoder_attention_heads,
        config.encoder_layers,
        config.max_target_positions,
        config.d_model,
        config.decoder_attention_heads,
        config.decoder_layers,
        config.num_mel_bins,
        file_type,
    )


def _filters(num_mel_bins: int) -> bytes:
    filters_MF = mel_filters(num_mel_bins).T
    return struct.pack("<2i", *filters_MF.shape) + np.ascontiguousarray(filters_MF, "<f4").tobytes()


def _vocabulary(tokens: Sequence[bytes]) -> bytes:
    """Return the list of the tokens of text; whisper.cpp names the special tokens after them itself."""
    listed = (struct.pack("<i", len(token)) + token for token in tokens)
    return struct.pack("<i", len(tokens)) + b"".join(listed)


def _append_tensor(append: Write, name: str, tensor: np.ndarray, quantization: str) -> None:
    """Append a tensor's header (axes, length of the name, type, sizes from the last axis on) and its data."""
    kind = _element_type(name, tensor.ndim, quantization)
    # There, the biases of the convolutions are matrices of one column.
    shape = (*tensor.shape, 1) if name.startswith("encoder.conv") and tensor.ndim == 1 else tensor.shape
    type_id = BLOCK_TYPES[kind].type_id if kind in BLOCK_TYPES else {"f32": _F32, "f16": _F16}[kind]
    encoded = name.encode()
    append(struct.pack("<3i", len(shape), len(encoded), type_id))
    append(struct.pack(f"<{len(shape)}i", *reversed(shape)) + encoded)
    for rows in pieces(tensor):
        append(_encoded(name, rows, kind))


def _element_type(name: str, rank: int, quantization: str) -> str:
    """Return the type that whisper.cpp expects of a tensor in a file of a type."""
    if rank == 1 or name in _POSITION_TABLES:
        return "f32"
    if rank == 3 and quantization in BLOCK_TYPES:
        return "f16"
    return quantization


def _encoded(name: str, rows: np.ndarray, kind: str) -> np.ndarray:
    if kind == "f32":
        return rows.astype("<f4")
    halves = converted(name, rows, np.dtype("<f2"))
    return halves if kind == "f16" else quantize_blocks(rows, BLOCK_TYPES[kind])

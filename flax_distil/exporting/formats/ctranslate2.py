"""Write a CTranslate2 folder, which faster-whisper loads.

The package's own specification says which arrays a model has. Its converter is not used: it needs torch and
transformers, and holds the whole model in memory.
"""

import math
import struct
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flax_distil.checkpoints.alignment_heads import valid_alignment_heads
from flax_distil.checkpoints.exported_files import exported_files
from flax_distil.checkpoints.formats.ctranslate2 import MODEL_NAME
from flax_distil.exporting.formats.ctranslate2_arrays import Array, ScaleArray, whisper_arrays
from flax_distil.exporting.source import ExportSource
from flax_distil.exporting.vocabulary import json_file, special_tokens, token_texts, tokenizer_json
from flax_distil.model.config import WhisperConfig
from flax_distil.storage.checked_file import checked_file
from flax_distil.text.generation_settings import default_alignment_heads

QUANTIZATIONS = (
    "float16", "float32", "bfloat16", "int8", "int8_float16", "int8_bfloat16", "int8_float32",
)  # fmt: skip
"""Types of the weights, the default first; any of them runs on any device, converted when it is loaded."""

_EMBEDDING = "decoder/embeddings/weight"
"""The array whose other name is the output projection."""

_TYPES = ("float32", "int8", "int16", "int32", "float16", "bfloat16")
"""Element types of a ``model.bin`` in the order of their numbers."""


def write(source: ExportSource, folder: Path, *, quantization: str) -> None:
    """Write ``model.bin``, its configuration and vocabulary, tokenizer and settings of the features.

    Args:
        source: The checkpoint; it has a tokenizer.
        folder: An empty folder.
        quantization: One of :data:`QUANTIZATIONS`.

    Raises:
        InputError: If a value does not fit float16, or a file of the tokenizer is damaged.
    """
    config, files = source.config, exported_files(source.files, source.config, np.dtype(np.float32))
    # Before the tokenizer is parsed, so that the memory for that is not there beside the largest tensor's.
    _write_model(folder / MODEL_NAME, _filled_spec(config, whisper_arrays(source, quantization)))
    documents = {
        "config.json": _settings(source),
        "vocabulary.json": token_texts(source.files, config.vocab_size),
        "preprocessor_config.json": files.preprocessor_config,
    }
    for name, document in documents.items():
        (folder / name).write_bytes(json_file(document))
    (folder / "tokenizer.json").write_bytes(tokenizer_json(source.files))


def _settings(source: ExportSource) -> dict[str, Any]:
    """Return ``config.json``: suppressed tokens, languages and alignment heads."""
    config, special = source.config, special_tokens(source.files)
    generation = valid_alignment_heads(source.files.generation_config, config)
    languages = generation.get("lang_to_id") or {}
    default = default_alignment_heads(config.decoder_layers, config.decoder_attention_heads)
    return {
        "alignment_heads": generation.get("alignment_heads") or default,
        # Tokens of languages stand between the start of a transcript and the tasks; English-only vocabularies
        # have them too.
        "lang_ids": sorted(languages.values()) or list(range(special.sot + 1, special.sot_prev - 3)),
        "suppress_ids": generation.get("suppress_tokens") or [],
        "suppress_ids_begin": generation.get("begin_suppress_tokens") or [],
    }


def _filled_spec(config: WhisperConfig, arrays: Mapping[str, Array | ScaleArray]) -> Any:
    """Return the package's specification of the model, with its arrays.

    The specification refuses an array that it does not know, and one that is missing. Its modules import
    torch where that is installed, which takes seconds and hundreds of megabytes and is not needed here. They
    are forgotten again, so that whoever wants the package's converters gets them with torch.
    """
    hides_torch = "torch" not in sys.modules
    if hides_torch:
        sys.modules["torch"] = None  # type: ignore[assignment]  # importing it is an ImportError
    try:
        from ctranslate2.specs.model_spec import index_spec
        from ctranslate2.specs.whisper_spec import WhisperSpec
    finally:
        if hides_torch:
            del sys.modules["torch"]
            for name in [name for name in sys.modules if name.startswith("ctranslate2.specs")]:
                del sys.modules[name]
            vars(sys.modules["ctranslate2"]).pop("specs", None)
    spec = WhisperSpec(
        config.encoder_layers,
        config.encoder_attention_heads,
        config.decoder_layers,
        config.decoder_attention_heads,
    )
    for name, array in arrays.items():
        scope, _, attribute = name.rpartition("/")
        setattr(index_spec(spec, scope), attribute, array)
    spec.decoder.projection.weight = arrays[_EMBEDDING]
    spec.register_vocabulary([""] * config.vocab_size)  # it counts the tokens
    spec.validate()
    spec.decoder.projection.weight = _EMBEDDING  # a name stands for an alias
    return spec


def _write_model(path: Path, spec: Any) -> None:
    """Write the arrays and numbers of a specification, sorted by name.

    The form is described in ``checkpoints/formats/ctranslate2_index.py``.
    """
    variables = dict(spec.variables(ordered=True))
    aliases = {name: value for name, value in variables.items() if isinstance(value, str)}
    arrays = {name: value for name, value in variables.items() if name not in aliases}
    with checked_file(path) as write:
        write(struct.pack("<I", 6) + _string(spec.name) + struct.pack("<II", spec.revision, len(arrays)))
        for name, value in arrays.items():
            dtype, shape = np.dtype(value.dtype), tuple(value.shape)
            size = math.prod(shape) * dtype.itemsize
            write(_string(name) + struct.pack(f"<B{len(shape)}I", len(shape), *shape))
            write(struct.pack("<BI", _TYPES.index(dtype.name), size))
            for piece in value.pieces() if isinstance(value, Array | ScaleArray) else (value.numpy(),):
                write(np.asarray(piece))
        write(struct.pack("<I", len(aliases)))
        for alias, name in aliases.items():
            write(_string(alias) + _string(name))


def _string(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack("<H", len(encoded) + 1) + encoded + b"\0"

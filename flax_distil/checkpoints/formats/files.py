"""Read and write the small files of a checkpoint: configurations and tokenizer."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flax_distil.core.errors import InputError
from flax_distil.core.fields import Fields, check_fields, list_of, of_type, one_of, whole_number
from flax_distil.core.json_files import read_bounded, read_json

TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "normalizer.json",
    "added_tokens.json",
    "special_tokens_map.json",
)
"""Files that the Whisper tokenizer of transformers reads; they are kept byte for byte."""

SMALL_FILES = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer_config.json",
    "adapter_config.json",
    *TOKENIZER_FILES,
)
"""All files beside the weights that :func:`read_files` reads."""

_GENERATION_KEYS = ("suppress_tokens", "begin_suppress_tokens", "max_length", "forced_decoder_ids")
"""Generation settings that old checkpoints, without ``generation_config.json``, keep in ``config.json``."""

_GENERATION_FIELDS: Fields = {
    "alignment_heads": list_of(list_of(whole_number(0, 2**16), length=2)),
}
"""Fields of a ``generation_config.json`` that are needed here; tokens are checked with the tokenizer."""

_PREPROCESSOR_FIELDS: Fields = {
    "feature_size": one_of(80, 128),
    "sampling_rate": one_of(16000),
    "n_fft": one_of(400),
    "hop_length": one_of(160),
    "chunk_length": whole_number(1, 30),
}
"""Settings of the features that this package computes; models that were trained on others are refused."""

SPECIAL_IDS = ("decoder_start_token_id", "bos_token_id", "eos_token_id", "pad_token_id")

POSITIONS_PER_SECOND = 50
"""Number of encoder positions in one second of audio."""

_PREPROCESSOR: Mapping[str, Any] = {
    "chunk_length": 30,
    "dither": 0.0,
    "feature_extractor_type": "WhisperFeatureExtractor",
    "hop_length": 160,
    "n_fft": 400,
    "n_samples": 480000,
    "nb_max_frames": 3000,
    "padding_side": "right",
    "padding_value": 0.0,
    "return_attention_mask": False,
    "sampling_rate": 16000,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointFiles:
    """The files of a checkpoint beside its weights, in the form of Hugging Face.

    Attributes:
        origin: Folder or Hub id from which they were read, for messages and model cards.
        config: Contents of ``config.json``, including keys that this package does not use.
        generation_config: Contents of ``generation_config.json``.
        preprocessor_config: Contents of ``preprocessor_config.json``.
        tokenizer_config: Contents of ``tokenizer_config.json``.
        tokenizer: Contents of the tokenizer's files by name; empty if the checkpoint has no tokenizer.
    """

    origin: str
    config: dict[str, Any]
    generation_config: dict[str, Any]
    preprocessor_config: dict[str, Any]
    tokenizer_config: dict[str, Any]
    tokenizer: dict[str, bytes] = dataclasses.field(repr=False)

    def contents(self) -> dict[str, bytes]:
        """Return the contents of all files by name, as in a Hugging Face folder."""
        documents = {
            "generation_config.json": self.generation_config,
            "preprocessor_config.json": self.preprocessor_config,
            "tokenizer_config.json": self.tokenizer_config,
            "config.json": self.config,
        }
        written = {
            name: (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()
            for name, document in documents.items()
            if document
        }
        return dict(self.tokenizer) | written

    def write(self, folder: Path) -> None:
        """Write the files into a folder, which is created if absent."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, contents in self.contents().items():
            (folder / name).write_bytes(contents)


def read_files(folder: Path, *, origin: str) -> CheckpointFiles:
    """Read the small files of a Hugging Face folder; all except ``config.json`` may be absent.

    A missing ``generation_config.json`` is replaced by the settings that old checkpoints keep in
    ``config.json``, and a missing ``preprocessor_config.json`` by the constants of Whisper.

    Args:
        folder: The checkpoint.
        origin: Name of the checkpoint in messages.

    Returns:
        The files.

    Raises:
        InputError: If ``config.json`` is missing, or a file is not JSON or has a field that cannot be used.
    """
    config = read_small_file(folder, "config.json", origin=origin)
    if config is None:
        raise InputError(f"{origin} holds no config.json: is it a Whisper checkpoint?")
    generation = read_small_file(folder, "generation_config.json", origin=origin)
    if generation is None:
        generation = {
            key: config[key] for key in (*_GENERATION_KEYS, *SPECIAL_IDS) if config.get(key) is not None
        }
    return CheckpointFiles(
        origin=origin,
        config=config,
        generation_config=generation,
        preprocessor_config=read_preprocessor(folder, config.get("num_mel_bins", 80), origin=origin),
        tokenizer_config=read_small_file(folder, "tokenizer_config.json", origin=origin) or {},
        tokenizer=read_tokenizer_files(folder, origin=origin),
    )


def read_tokenizer_files(folder: Path, *, origin: str) -> dict[str, bytes]:
    """Return the contents of those :data:`TOKENIZER_FILES` that a folder has, by name."""
    found = {name: read_bounded(folder / name, name=f"{name} of {origin}") for name in TOKENIZER_FILES}
    return {name: contents for name, contents in found.items() if contents is not None}


def read_small_file(folder: Path, file_name: str, *, origin: str) -> dict[str, Any] | None:
    """Read one JSON file of a checkpoint and check its fields; None if there is no such file.

    Raises:
        InputError: If ``read_json`` refuses the file, or a field cannot be used.
    """
    name = f"{file_name} of {origin}"
    document = read_json(folder / file_name, name=name)
    if document is not None:
        check_fields(document, _FIELDS.get(file_name, {}), name=name)
    return document


def read_preprocessor(folder: Path, num_mel_bins: Any, *, origin: str) -> dict[str, Any]:
    """Return the preprocessor config from the file that has it; by default that of the published models.

    Raises:
        InputError: If :func:`read_small_file` refuses a file.
    """
    # Since version 5, transformers saves the feature extractor inside processor_config.json.
    processor = read_small_file(folder, "processor_config.json", origin=origin) or {}
    inner = processor.get("feature_extractor") or {}
    check_fields(inner, _PREPROCESSOR_FIELDS, name=f"feature_extractor in processor_config.json of {origin}")
    return (
        read_small_file(folder, "preprocessor_config.json", origin=origin)
        or inner
        or default_preprocessor(num_mel_bins)
    )


def default_preprocessor(num_mel_bins: int) -> dict[str, Any]:
    """Return the preprocessor config of a published Whisper with ``num_mel_bins`` mel bins."""
    return {**_PREPROCESSOR, "feature_size": num_mel_bins}


def preprocessor_window(max_source_positions: int) -> dict[str, int]:
    """Return the entries of a preprocessor config that give the length of the encoder's window.

    There are none if the window is not a number of whole seconds, because the feature extractor of
    transformers has no others.
    """
    seconds, rest = divmod(max_source_positions, POSITIONS_PER_SECOND)
    if rest:
        return {}
    rate, hop = int(_PREPROCESSOR["sampling_rate"]), int(_PREPROCESSOR["hop_length"])
    return {"chunk_length": seconds, "n_samples": seconds * rate, "nb_max_frames": seconds * rate // hop}


_FIELDS: Mapping[str, Fields] = {
    "config.json": _GENERATION_FIELDS,  # older checkpoints and CTranslate2 keep generation settings here
    "generation_config.json": _GENERATION_FIELDS,
    "preprocessor_config.json": _PREPROCESSOR_FIELDS,
    "processor_config.json": {"feature_extractor": of_type(dict, "an object")},
}

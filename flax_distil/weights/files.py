"""The small files around the weights: configurations and tokenizer, read and written."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flax_distil.core import InputError

TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "normalizer.json",
    "added_tokens.json",
    "special_tokens_map.json",
)
"""What transformers' Whisper tokenizer reads, kept byte for byte."""

SMALL_FILES = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer_config.json",
    *TOKENIZER_FILES,
)
"""Everything beside the weights that :func:`read_files` looks at."""

_GENERATION_KEYS = ("suppress_tokens", "begin_suppress_tokens", "max_length", "forced_decoder_ids")
"""Generation settings that checkpoints from before ``generation_config.json`` keep in ``config.json``."""

SPECIAL_IDS = ("decoder_start_token_id", "bos_token_id", "eos_token_id", "pad_token_id")

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
    """What a checkpoint holds beside its weights, in the terms of Hugging Face.

    Attributes:
        origin: the folder or Hub id it was read from, for messages and model cards.
        config: ``config.json``, with keys this project does not use.
        generation_config: ``generation_config.json``.
        preprocessor_config: ``preprocessor_config.json``.
        tokenizer_config: ``tokenizer_config.json``.
        tokenizer: ``{file name: contents}`` of the tokenizer; empty if the checkpoint has none.
    """

    origin: str
    config: dict[str, Any]
    generation_config: dict[str, Any]
    preprocessor_config: dict[str, Any]
    tokenizer_config: dict[str, Any]
    tokenizer: dict[str, bytes] = dataclasses.field(repr=False)

    def contents(self) -> dict[str, bytes]:
        """Return ``{file name: contents}``, as a Hugging Face folder has them."""
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
        """Write them into ``folder`` (made if absent), as ``transformers`` and ``text`` read them."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, contents in self.contents().items():
            (folder / name).write_bytes(contents)


def read_files(folder: Path, *, origin: str) -> CheckpointFiles:
    """Read the small files of a Hugging Face folder; all but ``config.json`` may be absent.

    Settings that an old checkpoint keeps in ``config.json`` stand in for a missing
    ``generation_config.json``, and Whisper's constants for a missing ``preprocessor_config.json``.

    Args:
        folder: the checkpoint.
        origin: what to call it.

    Returns:
        Its files.

    Raises:
        InputError: if ``config.json`` is missing or a file is not JSON.
    """
    config = read_json(folder / "config.json")
    if config is None:
        raise InputError(f"{origin} holds no config.json: is it a Whisper checkpoint?")
    generation = read_json(folder / "generation_config.json")
    if generation is None:
        generation = {
            key: config[key] for key in (*_GENERATION_KEYS, *SPECIAL_IDS) if config.get(key) is not None
        }
    # Since version 5, transformers saves the feature extractor inside processor_config.json.
    processor = read_json(folder / "processor_config.json") or {}
    preprocessor = read_json(folder / "preprocessor_config.json") or processor.get("feature_extractor")
    return CheckpointFiles(
        origin=origin,
        config=config,
        generation_config=generation,
        preprocessor_config=preprocessor or default_preprocessor(config.get("num_mel_bins", 80)),
        tokenizer_config=read_json(folder / "tokenizer_config.json") or {},
        tokenizer={
            name: (folder / name).read_bytes() for name in TOKENIZER_FILES if (folder / name).is_file()
        },
    )


def default_preprocessor(num_mel_bins: int) -> dict[str, Any]:
    """Return ``preprocessor_config.json`` of a published Whisper with so many mel bins."""
    return {**_PREPROCESSOR, "feature_size": num_mel_bins}


def read_json(path: Path) -> dict[str, Any] | None:
    """Return a JSON object from a file, ``None`` if there is no such file.

    Raises:
        InputError: if the file is not a JSON object.
    """
    if not path.is_file():
        return None
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON ({error})") from error
    if not isinstance(document, dict):
        raise InputError(f"{path} is not a JSON object: got a {type(document).__name__}")
    return document

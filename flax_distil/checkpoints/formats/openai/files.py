"""The tokenizer and the settings of a model of openai/whisper, whose file holds neither."""

import importlib.util
import tempfile
from pathlib import Path
from typing import Any

from flax_distil.checkpoints.alignment_heads import with_alignment_heads
from flax_distil.checkpoints.formats.ctranslate2_files import default_tokenizer_config, huggingface_config
from flax_distil.checkpoints.formats.files import (
    SPECIAL_IDS,
    CheckpointFiles,
    read_preprocessor,
    read_small_file,
    read_tokenizer_files,
)
from flax_distil.checkpoints.formats.openai.vocabulary import suppressed_tokens, tokenizer_json
from flax_distil.core.errors import InputError
from flax_distil.core.json_files import parse_json, read_bounded
from flax_distil.model.config import WhisperConfig
from flax_distil.text.generation_settings import GenerationSettings
from flax_distil.text.tokenizer import WhisperTokenizer

_ENGLISH_ONLY, _MULTILINGUAL, _LARGE_V3 = 51864, 51865, 51866
_PUBLISHED = {_ENGLISH_ONLY: "tiny.en", _MULTILINGUAL: "tiny", _LARGE_V3: "large-v3"}
"""A model of each vocabulary, by the number of its tokens."""


def read_openai_files(folder: Path, model: WhisperConfig, *, origin: str) -> CheckpointFiles:
    """Return the files that a Hugging Face folder of a model of openai/whisper would have.

    The tokenizer is that of the files beside the model, or else that of the package openai-whisper, which is
    read and not imported. Suppressed tokens are those of openai/whisper. Alignment heads are unknown.

    Args:
        folder: Folder of the ``.pt`` file.
        model: Architecture of the model.
        origin: Name of the checkpoint in messages.

    Returns:
        The files.

    Raises:
        InputError: If there is no tokenizer, or it is damaged.
    """
    tokenizer = read_tokenizer_files(folder, origin=origin)
    tokenizer = tokenizer or _packaged_tokenizer(model.vocab_size, folder, origin)
    with tempfile.TemporaryDirectory() as scratch:
        for name, contents in tokenizer.items():
            (Path(scratch) / name).write_bytes(contents)
        opened = WhisperTokenizer.from_pretrained(scratch, origin=origin)
    special = opened.special
    ids = dict.fromkeys(SPECIAL_IDS, special.eot) | {"decoder_start_token_id": special.sot}
    return CheckpointFiles(
        origin=origin,
        config=huggingface_config(model, ids),
        generation_config=read_small_file(folder, "generation_config.json", origin=origin)
        or _generation_config(opened),
        preprocessor_config=read_preprocessor(folder, model.num_mel_bins, origin=origin),
        tokenizer_config=read_small_file(folder, "tokenizer_config.json", origin=origin)
        or default_tokenizer_config(_special_texts(tokenizer)),
        tokenizer=tokenizer,
    )


def _packaged_tokenizer(vocab_size: int, folder: Path, origin: str) -> dict[str, bytes]:
    """Return the tokenizer of the package openai-whisper."""
    if vocab_size not in _PUBLISHED:
        raise InputError(
            f"{origin} has {vocab_size} tokens and no tokenizer beside it, and openai-whisper has no such "
            "vocabulary: copy its tokenizer.json there"
        )
    name = "gpt2" if vocab_size == _ENGLISH_ONLY else "multilingual"
    spec = importlib.util.find_spec("whisper")
    path = Path(spec.origin).parent / "assets" / f"{name}.tiktoken" if spec and spec.origin else None
    contents = None if path is None else read_bounded(path, name=str(path))
    if contents is None:
        published = f"openai/whisper-{_PUBLISHED[vocab_size]}"
        raise InputError(
            f"{origin} holds no tokenizer, as no file of openai-whisper does: run pip install "
            "openai-whisper, whose vocabulary is then read, or put one beside it with hf download "
            f"{published} tokenizer.json --local-dir {folder}"
        )
    languages = 100 if vocab_size == _LARGE_V3 else 99
    return {"tokenizer.json": tokenizer_json(contents, language_count=languages, name=str(path))}


def _generation_config(tokenizer: WhisperTokenizer) -> dict[str, Any]:
    special = tokenizer.special
    settings = GenerationSettings(
        suppress_tokens=tuple(suppressed_tokens(tokenizer)),
        begin_suppress_tokens=(*tokenizer.encode(" "), special.eot),
        is_multilingual=special.is_multilingual,
    )
    return with_alignment_heads(settings.to_dict(special), [])


def _special_texts(tokenizer: dict[str, bytes]) -> list[str]:
    if "tokenizer.json" not in tokenizer:
        return []
    document = parse_json(tokenizer["tokenizer.json"], name="tokenizer.json")
    return [token["content"] for token in document["added_tokens"] if token["special"]]

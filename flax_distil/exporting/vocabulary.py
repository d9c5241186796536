"""The tokenizer of an export: its file, and the text of every token."""

import contextlib
import ctypes
import json
import tempfile
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from flax_distil.checkpoints.formats.files import CheckpointFiles
from flax_distil.core.json_files import parse_json
from flax_distil.text.special_tokens import SpecialTokens
from flax_distil.text.tokenizer import WhisperTokenizer
from flax_distil.text.tokenizer_files import open_tokenizer


def tokenizer_json(files: CheckpointFiles) -> bytes:
    """Return ``tokenizer.json``, as published, or made from the older files of the checkpoint.

    Raises:
        InputError: If the checkpoint has no tokenizer, or it is damaged.
    """
    if "tokenizer.json" in files.tokenizer:
        return files.tokenizer["tokenizer.json"]
    backend, _ = _opened(files)
    return backend.to_str().encode()


def special_tokens(files: CheckpointFiles) -> SpecialTokens:
    """Return the special tokens of a checkpoint.

    Raises:
        InputError: If the checkpoint has no tokenizer, or it is not Whisper's.
    """
    return _opened(files)[1]


def text_tokens(files: CheckpointFiles) -> tuple[SpecialTokens, list[bytes]]:
    """Return the special tokens of a checkpoint, and the bytes of each token of text, by id.

    The tokenizer itself, of 40 MB, is not in memory any more afterwards.

    Raises:
        InputError: If the checkpoint has no tokenizer, or it is not Whisper's.
    """
    backend, special = _opened(files)
    tokens = WhisperTokenizer(backend, special).text_bytes()
    del backend
    _release_freed_memory()
    return special, tokens


def token_texts(files: CheckpointFiles, vocab_size: int) -> list[str]:
    """Return the text of every token, in the byte alphabet of ``vocab.json`` where it is no special token.

    Args:
        files: Files of a checkpoint with a tokenizer.
        vocab_size: Number of tokens of the model. Timestamps that the tokenizer leaves out are there; a
            token that has no text is ``<|extra_N|>``.

    Raises:
        InputError: If the checkpoint has no tokenizer, or it is damaged.
    """
    document: dict[str, Any] = parse_json(tokenizer_json(files), name=f"tokenizer.json of {files.origin}")
    begin = special_tokens(files).timestamp_begin
    texts = {begin + index: f"<|{index * 0.02:.2f}|>" for index in range(1501)}
    texts |= {token: text for text, token in document["model"]["vocab"].items()}
    texts |= {token["id"]: token["content"] for token in document["added_tokens"]}
    return [texts.get(token, f"<|extra_{token}|>") for token in range(vocab_size)]


def _opened(files: CheckpointFiles) -> tuple[Tokenizer, SpecialTokens]:
    with tempfile.TemporaryDirectory() as scratch:
        files.write(Path(scratch))
        return open_tokenizer(Path(scratch), origin=files.origin)


def _release_freed_memory() -> None:
    """Return to the system what glibc keeps of freed memory, most of which is a tokenizer's small pieces."""
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def json_file(document: Any) -> bytes:
    """Return the contents of a JSON file."""
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()

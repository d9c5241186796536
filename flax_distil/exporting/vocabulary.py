"""The tokenizer of an export: its file, and the text of every token."""

import json
import tempfile
from pathlib import Path
from typing import Any

from flax_distil.checkpoints.formats.files import CheckpointFiles
from flax_distil.core.json_files import parse_json
from flax_distil.text.special_tokens import SpecialTokens
from flax_distil.text.tokenizer_files import open_tokenizer


def tokenizer_json(files: CheckpointFiles) -> bytes:
    """Return ``tokenizer.json``, as published, or made from the older files of the checkpoint.

    Raises:
        InputError: If the checkpoint has no tokenizer, or it is damaged.
    """
    if "tokenizer.json" in files.tokenizer:
        return files.tokenizer["tokenizer.json"]
    with tempfile.TemporaryDirectory() as scratch:
        files.write(Path(scratch))
        backend, _ = open_tokenizer(Path(scratch), origin=files.origin)
    return backend.to_str().encode()


def special_tokens(files: CheckpointFiles) -> SpecialTokens:
    """Return the special tokens of a checkpoint.

    Raises:
        InputError: If the checkpoint has no tokenizer, or it is not Whisper's.
    """
    with tempfile.TemporaryDirectory() as scratch:
        files.write(Path(scratch))
        _, special = open_tokenizer(Path(scratch), origin=files.origin)
    return special


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


def json_file(document: Any) -> bytes:
    """Return the contents of a JSON file."""
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()

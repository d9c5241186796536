"""The tokenizers of openai/whisper, which its package holds as lists of byte pieces by rank.

Such a list has no merges. But a piece was once made by merging two pieces of lower rank, and which two they
were is found by encoding it with those alone.

Source: ``whisper/tokenizer.py`` of openai/whisper, and ``_educational.py`` of openai/tiktoken.
"""

import base64
import binascii
import functools
import itertools
import json
from collections.abc import Mapping
from typing import Any

from flax_distil.core.errors import InputError
from flax_distil.text.byte_level import from_bytes
from flax_distil.text.languages import LANGUAGES
from flax_distil.text.special_tokens import TIMESTAMP_COUNT
from flax_distil.text.tokenizer import WhisperTokenizer

_SYMBOLS = (
    *'"#()*+/:;<=>@[\\]^_`{|}~「」『』',
    *("<<", ">>", "<<<", ">>>", "--", "---", "-(", "-[", "('", '("', "((", "))", "(((", ")))"),
    *("[[", "]]", "{{", "}}", "♪♪", "♪♪♪"),
)
_NOTES = "♩♪♫♬♭♮♯"
"""Symbols and notes that a transcript of speech does not have; of notes, the first piece is enough."""


def read_ranks(contents: bytes, *, name: str) -> dict[bytes, int]:
    """Read a list of pieces: in each line a piece in base64, and its rank, which is its id.

    Args:
        contents: The file.
        name: Its name in messages.

    Raises:
        InputError: If a line is something else.
    """
    ranks: dict[bytes, int] = {}
    for line in filter(None, contents.splitlines()):
        try:
            piece, rank = line.split()
            ranks[base64.b64decode(piece)] = int(rank)
        except (ValueError, binascii.Error) as error:
            raise InputError(
                f"{name} is no list of tokens in base64 with their ids: install it again"
            ) from error
    return ranks


@functools.lru_cache(maxsize=2)  # it takes seconds, and a command reads a checkpoint more than once
def tokenizer_json(contents: bytes, *, language_count: int, name: str) -> bytes:
    """Return the contents of ``tokenizer.json`` for a list of pieces.

    Args:
        contents: The list, as :func:`read_ranks` reads it.
        language_count: Number of languages: 99, or 100 since large-v3.
        name: Name of the list in messages.

    Raises:
        InputError: If it is no such list.
    """
    document = _document(read_ranks(contents, name=name), language_count)
    return json.dumps(document, ensure_ascii=False).encode()


def _document(ranks: Mapping[bytes, int], language_count: int) -> dict[str, Any]:
    vocabulary = {from_bytes(piece): rank for piece, rank in ranks.items()}
    end = max(ranks.values()) + 1
    added = [_added_token(end + place, text) for place, text in enumerate(_special_texts(language_count))]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {
            "type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True,
        },
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "vocab": vocabulary | {added[0]["content"]: end},
            "merges": [[from_bytes(part) for part in pair] for pair in _merges(ranks)],
        },
    }  # fmt: skip


def suppressed_tokens(tokenizer: WhisperTokenizer) -> list[int]:
    """Return the ids that openai/whisper suppresses by default: no speech, and special tokens but the end.

    Source: ``Tokenizer.non_speech_tokens`` and ``DecodingTask._get_suppress_tokens`` of openai/whisper.
    """
    special = tokenizer.special
    found = {tokenizer.encode(text)[0] for text in (" -", " '")}
    for symbol in (*_SYMBOLS, *_NOTES):
        for tokens in (tokenizer.encode(symbol), tokenizer.encode(f" {symbol}")):
            if len(tokens) == 1 or symbol in _NOTES:
                found.add(tokens[0])
    # <|translate|>, <|transcribe|>, <|startoflm|>, <|startofprev|> and <|nospeech|> precede <|notimestamps|>.
    return sorted(found | {special.sot, *range(special.no_timestamps - 5, special.no_timestamps)})


def _special_texts(language_count: int) -> list[str]:
    languages = list(LANGUAGES)[:language_count]
    names = ["endoftext", "startoftranscript", *languages, "translate", "transcribe", "startoflm"]
    names += ["startofprev", "nospeech", "notimestamps"]
    times = [f"{index * 0.02:.2f}" for index in range(TIMESTAMP_COUNT)]
    return [f"<|{name}|>" for name in (*names, *times)]


def _added_token(token: int, text: str) -> dict[str, Any]:
    is_time = text[2].isdigit()
    return {
        "id": token,
        "content": text,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": is_time,
        "special": not is_time,
    }


def _merges(ranks: Mapping[bytes, int]) -> list[list[bytes]]:
    """Return the two pieces that each longer one was made of, in the order of their ranks."""
    longer = sorted((piece for piece in ranks if len(piece) > 1), key=ranks.__getitem__)
    pairs = (_encoded_below(piece, ranks) for piece in longer)
    return [pair for pair in pairs if len(pair) == 2]


def _encoded_below(piece: bytes, ranks: Mapping[bytes, int]) -> list[bytes]:
    """Encode a piece with the merges of lower rank than its own."""
    limit, parts = ranks[piece], [bytes([byte]) for byte in piece]
    while len(parts) > 2:
        found = [ranks.get(left + right, limit) for left, right in itertools.pairwise(parts)]
        lowest = min(found)
        if lowest >= limit:
            break
        place = found.index(lowest)
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    return parts

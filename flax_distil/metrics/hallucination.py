"""Signs of invented or looping text: repeated text compresses well and repeats its n-grams."""

import zlib
from collections import Counter
from collections.abc import Iterable
from itertools import islice
from typing import SupportsIndex


def compression_ratio(text: str) -> float:
    """Return the compression ratio of a text: its UTF-8 bytes over the bytes of zlib.

    Whisper treats a ratio above 2.4 as a loop. Very short texts have ratios below 1; an empty text has 0.

    Source: openai/whisper.
    """
    return _ratio(text.encode("utf-8"))


def token_compression_ratio(tokens: Iterable[SupportsIndex], *, vocab_size: int) -> float:
    """Return the compression ratio of ids, each written in the fewest bytes that hold any id.

    The published threshold here is 1.35, since ids are themselves a compression of text.

    Args:
        tokens: Ids, special tokens left out.
        vocab_size: Number of ids; 3 bytes from 65,536 on, 2 for every published model.

    Raises:
        OverflowError: If an id is negative or needs more bytes than the vocabulary.

    Source: transformers, Whisper's long-form generation.
    """
    width = (vocab_size.bit_length() + 7) // 8
    return _ratio(b"".join(token.__index__().to_bytes(width, "little") for token in tokens))


def repeated_ngrams(text: str, n: int = 5) -> int:
    """Count the n-grams of words that occurred before in the same text ("5-dup" for n = 5).

    Words are separated by white space: normalize the text first.

    Source: arXiv 2311.00430, section on hallucination.
    """
    if n < 1:
        raise ValueError(f"expected runs of at least 1 word, got n = {n}")
    words = text.split()
    runs = Counter(zip(*(islice(words, start, None) for start in range(n)), strict=False))
    return sum(runs.values()) - len(runs)


def _ratio(data: bytes) -> float:
    return len(data) / len(zlib.compress(data))

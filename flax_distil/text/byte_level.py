"""The characters that byte-level pair encoding writes for bytes: GPT-2's vocabulary is text made of them.

Bytes that are printable in Latin-1 stand for themselves, and the others, in order, for the characters from
U+0100 on. So ``Ġ`` is a space, and ``Ċ`` a line feed.

Source: ``bytes_to_unicode`` of openai/gpt-2.
"""

from collections.abc import Iterable
from itertools import chain

_PRINTABLE = tuple(chain(range(0x21, 0x7F), range(0xA1, 0xAD), range(0xAE, 0x100)))
_OTHERS = tuple(byte for byte in range(256) if byte not in _PRINTABLE)

_BYTES = {chr(byte): byte for byte in _PRINTABLE} | {chr(256 + i): byte for i, byte in enumerate(_OTHERS)}
_CHARACTERS = {byte: character for character, byte in _BYTES.items()}


def to_bytes(piece: str) -> bytes:
    """Return the bytes that a piece of the vocabulary stands for.

    Raises:
        KeyError: If a character stands for no byte.
    """
    return bytes(_BYTES[character] for character in piece)


def from_bytes(contents: Iterable[int]) -> str:
    """Invert :func:`to_bytes`."""
    return "".join(_CHARACTERS[byte] for byte in contents)

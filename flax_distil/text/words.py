"""Split token ids into words, as ``split_to_word_tokens`` of openai/whisper does for word timestamps."""

import string
from collections.abc import Sequence
from typing import NamedTuple

from flax_distil.text.languages import LANGUAGES_WITHOUT_SPACES
from flax_distil.text.tokenizer import WhisperTokenizer

_INCOMPLETE = "\ufffd"


class TokenWord(NamedTuple):
    """A word and its ids."""

    text: str
    tokens: tuple[int, ...]


def split_words(tokens: Sequence[int], tokenizer: WhisperTokenizer, *, language: str) -> list[TokenWord]:
    """Split ids of text into words.

    A word begins with a space, or consists of punctuation only. In languages that are written without spaces,
    the tokens of one character form a word.

    Args:
        tokens: Ids of text only.
        tokenizer: Tokenizer of the checkpoint.
        language: Code of the language.

    Source: openai/whisper, ``Tokenizer.split_to_word_tokens``.
    """
    characters = _split_characters(tokens, tokenizer)
    if language in LANGUAGES_WITHOUT_SPACES:
        return characters
    words: list[TokenWord] = []
    for character in characters:
        begins = character.text.startswith(" ") or character.text.strip() in string.punctuation
        if begins or not words:
            words.append(character)
        else:
            words[-1] = _join(words[-1], character)
    return words


def _split_characters(tokens: Sequence[int], tokenizer: WhisperTokenizer) -> list[TokenWord]:
    """Split ids wherever they form whole characters."""
    whole = tokenizer.decode(tokens, with_timestamps=True)
    found: list[TokenWord] = []
    length = 0
    pending: list[int] = []
    for token in tokens:
        pending.append(token)
        text = tokenizer.decode(pending, with_timestamps=True)
        hole = text.find(_INCOMPLETE)
        # A replacement character that the whole text has too is not an incomplete character.
        if hole < 0 or whole[length + hole : length + hole + 1] == _INCOMPLETE:
            found.append(TokenWord(text, tuple(pending)))
            length += len(text)
            pending = []
    if pending:
        rest = TokenWord(tokenizer.decode(pending, with_timestamps=True), tuple(pending))
        found = [*found[:-1], _join(found[-1], rest)] if found else [rest]
    return found


def _join(one: TokenWord, other: TokenWord) -> TokenWord:
    return TokenWord(one.text + other.text, one.tokens + other.tokens)

"""Normalize texts as the Open ASR Leaderboard does, so that word error rates can stand beside its own.

Its rules for English are Whisper's with another list of fillers and contractions, and with one spelling for
some names, split compounds and spelled-out abbreviations. They are made here of Whisper's own rules (package
``whisper-normalizer``) and of the differences in :mod:`flax_distil.text.leaderboard_words`.
"""

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache

from flax_distil.core.errors import InputError
from flax_distil.text.leaderboard_words import (
    COMPOUNDS,
    EXPANSIONS_NOT_MADE,
    FILLERS,
    NAMES,
    SPELLINGS,
    WORDS_BEFORE_IS,
)

_EVERY_IS = r"'s\b"
"""Pattern of Whisper's rules that takes every ``'s`` for "is"."""

_COMPOUNDS = [
    (re.compile(r"\b" + r"\s+".join(parts) + r"\b"), word)
    for word, *parts in (line.split() for line in COMPOUNDS)
]

_NOT_SCORED = "ignore time segment in scoring"
"""Reference of stretches of a recording that nobody transcribed."""

_NAMES = {other: name for name, *others in (line.split() for line in NAMES) for other in others}


@dataclass(frozen=True)
class LeaderboardNormalizer:
    """A function object that normalizes text of one language as the leaderboard's scorer does.

    Attributes:
        language: Whisper's language code. English has rules of its own; for every other language texts become
            lower case without brackets, marks and punctuation, and whole numbers are written as words.
    """

    language: str

    def __call__(self, text: str) -> str:
        """Return normalized text, words separated by single spaces.

        Raises:
            InputError: If the text has a number, the language is not English, and num2words is not installed.
        """
        rules = _english_rules() if self.language == "en" else _rules_of_others()
        words = " ".join(rules(text).split())
        return words if self.language == "en" else _spell_numbers(words, self.language)

    def is_scored(self, reference: str) -> bool:
        """Return whether a recording is scored: something must be said in it."""
        said = self(reference) if self.language == "en" else reference.strip()
        return said not in ("", _NOT_SCORED)


@cache
def _english_rules() -> Callable[[str], str]:
    from whisper_normalizer.english import EnglishTextNormalizer

    rules = EnglishTextNormalizer()
    numbers, spellings = rules.standardize_numbers, rules.standardize_spellings
    changed = {**spellings.mapping, **SPELLINGS}
    spellings.mapping = {word: spelling for word, spelling in changed.items() if spelling is not None}
    rules.ignore_patterns = rf"\b({'|'.join(FILLERS)})\b"
    rules.replacers = dict(_expansions(rules.replacers))
    # Compounds are joined before numbers are read, names and letters after spellings are changed.
    rules.standardize_numbers = lambda text: numbers(_join_compounds(text))
    rules.standardize_spellings = lambda text: _join_letters(
        _NAMES.get(word, word) for word in spellings(text).split()
    )
    english: Callable[[str], str] = rules
    return english


def _expansions(patterns: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the patterns of contractions and what each becomes, in the order in which they are applied."""
    left_out = {rf"\b{word}\b" for word in EXPANSIONS_NOT_MADE}
    for pattern, expansion in patterns.items():
        if pattern == _EVERY_IS:
            yield rf"\b({'|'.join(WORDS_BEFORE_IS)}){_EVERY_IS}", rf"\1{expansion}"
        elif pattern not in left_out:
            yield pattern, expansion


def _join_compounds(text: str) -> str:
    for pattern, word in _COMPOUNDS:
        text = pattern.sub(word, text)
    return text


def _join_letters(words: Iterable[str]) -> str:
    """Join runs of single letters and digits: ``b b c`` becomes ``bbc``.

    "a" and "i" are words as well, so a run with one of them needs three characters.
    """
    joined: list[str] = []
    for is_letter, run in itertools.groupby(words, lambda word: len(word) == 1 and word.isalnum()):
        part = list(run)
        needed = 3 if {"a", "i"} & set(part) else 2
        joined += ["".join(part)] if is_letter and len(part) >= needed else part
    return " ".join(joined)


@cache
def _rules_of_others() -> Callable[[str], str]:
    from whisper_normalizer.basic import BasicTextNormalizer

    basic: Callable[[str], str] = BasicTextNormalizer()
    return lambda text: re.sub(r"[^\w\s]", "", basic(text))


def _spell_numbers(text: str, language: str) -> str:
    """Write whole numbers as words; ``10 000`` is one number."""

    def spell(number: re.Match[str]) -> str:
        words = _number_words(language)
        try:
            return words(int(number[0]), lang=language)
        except Exception:  # of whatever type: what num2words cannot write stays in digits
            return number[0]

    return re.sub(r"\d+", spell, re.sub(r"(\d)\s+(\d{3})\b", r"\1\2", text))


def _number_words(language: str) -> Callable[..., str]:
    try:
        from num2words import num2words
    except ImportError as error:
        raise InputError(
            f"the Open ASR Leaderboard compares numbers in language {language!r} as words, and num2words, "
            "which writes them, is not installed: pip install 'flax-distil[leaderboard]'"
        ) from error
    words: Callable[..., str] = num2words
    return words

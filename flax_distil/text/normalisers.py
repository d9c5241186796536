"""Text as it is compared: the normalisers of the Whisper paper, and orthographic text.

Word error rates are only comparable under the same normaliser, so the rules are those of
the reference implementation (package ``whisper-normalizer``), chosen by language.
"""

import string
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from flax_distil.text.languages import LANGUAGES_WITHOUT_SPACES, language_code


@dataclass(frozen=True)
class Normaliser:
    """A normaliser of text, for one language; call it.

    It can be pickled (data workers need it); the tables behind it are loaded once per process.

    Attributes:
        language: Whisper's language code, or None for the rules that suit any language.
    """

    language: str | None

    def __call__(self, text: str) -> str:
        """Return normalised text, words separated by single spaces, none at either end.

        Text without a letter or digit is empty: the reference rules for English leave a full
        stop of "...", which would count as a word.
        """
        normalised = _rules(_kind(self.language))(text).strip()
        return normalised if any(map(str.isalnum, normalised)) else ""


@cache
def normaliser(language: str | None) -> Normaliser:
    """Return the normaliser under which transcripts of a language are compared.

    English has its own rules (contractions, numbers, spelling, fillers). Every other
    language: lower case, brackets and their content removed, symbols, marks and punctuation
    replaced by spaces. Languages written without spaces get a space between characters, so
    that their word error rate is a character error rate.

    Args:
        language: name or code; None for an unknown language or a mixture of several.

    Raises:
        InputError: if the language is unknown.

    Source: arXiv 2212.04356, appendix C.
    """
    return Normaliser(None if language is None else language_code(language))


def orthographic(text: str) -> str:
    """Return text with casing and punctuation kept and every mark standing as a word of its own.

    For orthographic word error rates: ``"Well, yes."`` becomes ``"Well , yes ."``, so a missing
    comma costs one deletion instead of turning ``Well,`` into a wrong word. Apostrophes stay
    where they are: ``don't`` is one word.

    Source: arXiv 2210.13352 (ESB), section on orthographic WER.
    """
    spaced = "".join(f" {character} " if _is_mark(character) else character for character in text)
    return " ".join(spaced.split())


def _is_mark(character: str) -> bool:
    if character in "'’":
        return False
    return character in string.punctuation or unicodedata.category(character).startswith("P")


def _kind(language: str | None) -> str:
    if language == "en":
        return "english"
    return "characters" if language in LANGUAGES_WITHOUT_SPACES else "words"


@cache
def _rules(kind: str) -> Callable[[str], str]:
    # Imported here: its tables are only wanted once something is scored.
    from whisper_normalizer.basic import BasicTextNormalizer
    from whisper_normalizer.english import EnglishTextNormalizer

    rules: Callable[[str], str]
    if kind == "english":
        rules = EnglishTextNormalizer()
    else:
        rules = BasicTextNormalizer(split_letters=kind == "characters")
    return rules

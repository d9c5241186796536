"""Normalize texts before they are compared, by the rules of the Whisper paper or by others.

Word error rates are only comparable under the same normalizer, so the rules are by default those of
the reference implementation (package ``whisper-normalizer``), chosen by language.
"""

import importlib
import logging
import string
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal, get_args

import regex

from flax_distil.core.errors import InputError
from flax_distil.text.languages import LANGUAGES, LANGUAGES_WITHOUT_SPACES, language_code

log = logging.getLogger(__name__)

NormalizerName = Literal["whisper", "basic_keep_marks", "indic", "none"]

NORMALIZERS: tuple[NormalizerName, ...] = get_args(NormalizerName)

INDIC_CLASSES = {
    "as": "BengaliNormalizer", "bn": "BengaliNormalizer", "gu": "GujaratiNormalizer",
    "hi": "HindiNormalizer", "kn": "KannadaNormalizer", "ml": "MalayalamNormalizer",
    "mr": "DevanagariNormalizer", "ne": "DevanagariNormalizer", "or": "OdiaNormalizer",
    "pa": "PunjabiNormalizer", "sa": "DevanagariNormalizer", "ta": "TamilNormalizer",
    "te": "TeluguNormalizer",
}  # fmt: skip
"""Names of the classes of ``whisper_normalizer.indic``, by language code."""

LANGUAGES_WITH_VOWEL_SIGNS = frozenset(INDIC_CLASSES) | {"bo", "km", "lo", "my", "si", "th"}
"""Languages with vowel signs, which are marks in Unicode and which Whisper's rules replace by spaces."""

_DOTTED = str.maketrans({"I": "ı", "İ": "i"})
"""Lower case of Turkish and Azerbaijani, which have an i with a dot and one without, in both cases."""

_GRAPHEME = regex.compile(r"\X")


@dataclass(frozen=True)
class Normalizer:
    """A function object that normalizes text of one language.

    It can be pickled, which data workers need; its tables are loaded once per process.

    Attributes:
        language: Whisper's language code; None for the rules that suit any language.
        name: Name of the rules, one of ``NORMALIZERS``.
    """

    language: str | None
    name: NormalizerName = "whisper"

    def __call__(self, text: str) -> str:
        """Return normalized text, words separated by single spaces, none at either end.

        Text without a letter or digit is empty: the reference rules for English leave a full
        stop of "...", which would count as a word.
        """
        normalized = _rules(self.language, self.name)(text).strip()
        return normalized if any(map(str.isalnum, normalized)) else ""

    @property
    def description(self) -> str:
        """Name of the rules in reports."""
        of = LANGUAGES.get(self.language or "", self.language or "any language").capitalize()
        return {
            "whisper": f"Whisper's rules for {of if self.language else 'any language'}",
            "basic_keep_marks": "Whisper's rules for any language, with vowel signs and other marks kept",
            "indic": f"the rules of whisper_normalizer for {of}",
            "none": "no rules, so that every difference counts",
        }[self.name]


@cache
def get_normalizer(language: str | None, name: str = "whisper") -> Normalizer:
    """Return the normalizer under which transcripts of a language are compared.

    * ``whisper``: English has its own rules (contractions, numbers, spelling, fillers). Every other
      language: lower case, brackets and their content removed, symbols, marks and punctuation
      replaced by spaces. Published word error rates are counted so.
    * ``basic_keep_marks``: the rules for other languages, for all of them; marks stay, such as the vowel
      signs of Hindi and Tamil, and Turkish and Azerbaijani have their own lower case.
    * ``indic``: one spelling for what Unicode writes in several ways and numbers in words, by
      ``whisper_normalizer.indic``, and then ``basic_keep_marks``.
    * ``none``: nothing is changed.

    Languages written without spaces get a space between characters, so that their word error rate is a
    character error rate.

    Args:
        language: Name or code; None for an unknown language or a mixture of several.
        name: Name of the rules, one of ``NORMALIZERS``.

    Raises:
        InputError: If the language or the rules are unknown, or there are no such rules for the language.

    Source: arXiv 2212.04356, appendix C.
    """
    code = None if language is None else language_code(language)
    for known in NORMALIZERS:
        if known == name:
            break
    else:
        raise InputError(f"normalizer {name!r} is unknown: expected one of {', '.join(NORMALIZERS)}")
    if known == "indic" and code not in INDIC_CLASSES:
        what = "no language is given" if code is None else f"the language is {code}"
        raise InputError(
            f"normalizer indic has rules for {', '.join(INDIC_CLASSES)}, and {what}: "
            "take basic_keep_marks or whisper"
        )
    if known == "whisper" and code in LANGUAGES_WITH_VOWEL_SIGNS:
        log.warning(
            "texts in %s are compared by Whisper's rules, as published figures are: vowel signs become "
            "spaces, and wrong ones do not count; normalizer basic_keep_marks keeps them",
            LANGUAGES.get(code or "", code),
        )
    return Normalizer(code, known)


def get_model_normalizer(
    language: str | None, task: str | None, *, is_multilingual: bool, name: str = "whisper"
) -> Normalizer:
    """Return the normalizer for the text of a model: English where it translates, or is English-only.

    Args:
        language: Language of the speech, name or code; None if it is unknown.
        task: ``"translate"`` writes English, whatever is spoken.
        is_multilingual: Whether the model knows more than English.
        name: Name of the rules, one of ``NORMALIZERS``.

    Raises:
        InputError: If :func:`get_normalizer` raises it.
    """
    return get_normalizer("en" if task == "translate" or not is_multilingual else language, name)


def orthographic(text: str, language: str | None = None) -> str:
    """Return text with casing and punctuation kept and every mark standing as a word of its own.

    For orthographic word error rates: ``"Well, yes."`` becomes ``"Well , yes ."``, so a missing
    comma costs one deletion instead of turning ``Well,`` into a wrong word. Apostrophes stay
    where they are: ``don't`` is one word. In languages written without spaces every character is a
    word of its own, as it is where texts are normalized.

    Args:
        text: The text.
        language: Whisper's code; None where it is unknown.

    Source: arXiv 2210.13352 (ESB), section on orthographic WER.
    """
    if language in LANGUAGES_WITHOUT_SPACES:
        return _split_characters(text)
    spaced = "".join(f" {character} " if _is_mark(character) else character for character in text)
    return " ".join(spaced.split())


def _is_mark(character: str) -> bool:
    if character in "'’":
        return False
    return character in string.punctuation or unicodedata.category(character).startswith("P")


def _split_characters(text: str) -> str:
    return " ".join(" ".join(_GRAPHEME.findall(text)).split())


@cache
def _rules(language: str | None, name: NormalizerName) -> Callable[[str], str]:
    if name == "none":
        unchanged = _split_characters if language in LANGUAGES_WITHOUT_SPACES else str
        return lambda text: " ".join(unchanged(text).split())
    # Imported here: their tables are only wanted once something is scored.
    from whisper_normalizer.basic import BasicTextNormalizer
    from whisper_normalizer.english import EnglishTextNormalizer

    if name == "whisper" and language == "en":
        english: Callable[[str], str] = EnglishTextNormalizer()
        return english
    rules: Callable[[str], str] = BasicTextNormalizer(
        split_letters=language in LANGUAGES_WITHOUT_SPACES, preserve_marks=name != "whisper"
    )
    if name == "whisper":
        return rules
    if language in ("tr", "az"):
        return lambda text: rules(unicodedata.normalize("NFC", text).translate(_DOTTED))
    if name == "indic":
        spelling = _indic(language or "")
        return lambda text: rules(spelling(text))
    return rules


def _indic(language: str) -> Callable[[str], str]:
    module = importlib.import_module("whisper_normalizer.indic")
    chosen = getattr(module, INDIC_CLASSES[language])
    rules: Callable[[str], str] = chosen(lang=language) if language != "as" else chosen()
    return rules


def check_normalizer(name: str) -> None:
    """Raise ``InputError`` if the name of a normalizer is unknown."""
    if name not in NORMALIZERS:
        raise InputError(f"normalizer {name!r} is unknown: expected one of {', '.join(NORMALIZERS)}")

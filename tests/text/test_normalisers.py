import pickle
from collections import Counter

import pytest
from transformers.models.whisper.english_normalizer import BasicTextNormalizer, EnglishTextNormalizer
from whisper_normalizer.english import EnglishSpellingNormalizer

from flax_distil.core import InputError
from flax_distil.text import normaliser, orthographic

ENGLISH = [
    "Let's go; I can't, won't and shouldn't've!",
    "Mr. Park visited assoc. prof. Kim Jr.",
    "He paid twenty-one dollars and fifty cents, i.e. $21.50, on the 3rd of May 1999.",
    "Um, the colour of [noise] her (laughs) neighbour's café — hmm.",
    "One hundred and five point two percent",
]
OTHERS = ["¡Hola! ¿Qué tal?", "Ça va, l'été (rires) [bruit] ?", "ПРИВЕТ, мир...", "Straße № 5"]


@pytest.mark.parametrize("text", ENGLISH)
def test_english_rules_are_those_of_the_reference(text: str):
    reference = EnglishTextNormalizer(EnglishSpellingNormalizer().mapping)
    assert normaliser("en")(text) == reference(text).strip()


@pytest.mark.parametrize("language", ["fr", None])
@pytest.mark.parametrize("text", OTHERS)
def test_other_rules_are_those_of_the_reference(text: str, language: str | None):
    assert normaliser(language)(text) == BasicTextNormalizer()(text).strip()


@pytest.mark.parametrize("language", ["zh", "ja", "th", "lo", "my", "yue", "Mandarin"])
def test_languages_without_spaces_are_split_into_characters(language: str):
    assert normaliser(language)("你好，世界！") == "你 好 世 界"


def test_korean_and_vietnamese_keep_their_words():
    assert normaliser("ko")("안녕 하세요.") == "안녕 하세요"
    assert normaliser("vi")("Xin chào") == "xin chào"


@pytest.mark.parametrize("language", ["en", "de", "ja", None])
@pytest.mark.parametrize("text", ["", "  ", "...", "[tone]", "(silence) ?!"])
def test_text_without_words_normalises_to_nothing(language: str | None, text: str):
    assert normaliser(language)(text) == ""


def test_the_normaliser_of_a_language_is_made_once_and_can_be_pickled():
    assert normaliser("english") is normaliser("english")
    assert normaliser("english") == normaliser("en")
    copy = pickle.loads(pickle.dumps(normaliser("en")))
    assert copy("It's COLOUR") == "it is color"


def test_an_unknown_language_has_no_normaliser():
    with pytest.raises(InputError, match="unknown language 'elvish'"):
        normaliser("elvish")


@pytest.mark.parametrize(
    ("text", "spaced"),
    [
        ("Well, yes.", "Well , yes ."),
        ("Don't (ever) stop...", "Don't ( ever ) stop . . ."),
        ("It’s 3.5% – “fine”", "It’s 3 . 5 % – “ fine ”"),
        ("¿Qué? 你好，世界。", "¿ Qué ? 你好 ， 世界 。"),
        ("already , spaced  .", "already , spaced ."),
        ("", ""),
    ],
)
def test_orthographic_text_spaces_every_mark_and_keeps_casing(text: str, spaced: str):
    assert orthographic(text) == spaced


@pytest.mark.parametrize("text", [*ENGLISH, *OTHERS])
def test_orthographic_spacing_adds_and_loses_nothing_and_happens_once(text: str):
    spaced = orthographic(text)
    assert Counter(spaced.replace(" ", "")) == Counter(text.replace(" ", ""))
    assert orthographic(spaced) == spaced

import functools
import pickle
import unicodedata
from collections import Counter

import pytest
from transformers.models.whisper.english_normalizer import BasicTextNormalizer, EnglishTextNormalizer
from whisper_normalizer.english import EnglishSpellingNormalizer

from flax_distil.core.errors import InputError
from flax_distil.metrics.word_errors import word_errors
from flax_distil.text.normalizers import get_model_normalizer, get_normalizer, orthographic

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
    assert get_normalizer("en")(text) == reference(text).strip()


@pytest.mark.parametrize("language", ["fr", None])
@pytest.mark.parametrize("text", OTHERS)
def test_other_rules_are_those_of_the_reference(text: str, language: str | None):
    assert get_normalizer(language)(text) == BasicTextNormalizer()(text).strip()


@pytest.mark.parametrize("language", ["zh", "ja", "th", "lo", "my", "yue", "Mandarin"])
def test_languages_without_spaces_are_split_into_characters(language: str):
    assert get_normalizer(language)("你好，世界！") == "你 好 世 界"


def test_korean_and_vietnamese_keep_their_words():
    assert get_normalizer("ko")("안녕 하세요.") == "안녕 하세요"
    assert get_normalizer("vi")("Xin chào") == "xin chào"


@pytest.mark.parametrize("language", ["en", "de", "ja", None])
@pytest.mark.parametrize("text", ["", "  ", "...", "[tone]", "(silence) ?!"])
def test_text_without_words_normalizes_to_nothing(language: str | None, text: str):
    assert get_normalizer(language)(text) == ""


def test_the_normalizer_of_a_language_is_made_once_and_can_be_pickled():
    assert get_normalizer("english") is get_normalizer("english")
    assert get_normalizer("english") == get_normalizer("en")
    copy = pickle.loads(pickle.dumps(get_normalizer("en")))
    assert copy("It's COLOUR") == "it is color"


def test_an_unknown_language_has_no_normalizer():
    with pytest.raises(InputError, match="unknown language 'elvish'"):
        get_normalizer("elvish")


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


HINDI = "मैं घर जा रहा"
HINDI_WITH_WRONG_VOWELS = "मो घर जी रही"


@pytest.mark.parametrize("name", ["basic_keep_marks", "indic", "none"])
def test_wrong_vowel_signs_are_errors_where_marks_are_kept(name: str):
    normalize = get_normalizer("hi", name)
    assert word_errors([HINDI], [HINDI_WITH_WRONG_VOWELS], normalize).substitutions == 3
    assert word_errors([HINDI], [HINDI_WITH_WRONG_VOWELS], get_normalizer("hi")).wer == 0
    assert word_errors([HINDI], [HINDI], normalize).wer == 0


def test_whispers_rules_do_not_see_vowel_signs_and_that_is_told_once(caplog: pytest.LogCaptureFixture):
    get_normalizer.cache_clear()
    for _ in range(2):
        assert get_normalizer("ta")("பூனை") == BasicTextNormalizer()("பூனை").strip()
    assert len(caplog.records) == 1
    assert "basic_keep_marks" in caplog.text


@pytest.mark.parametrize(
    ("language", "text", "normalized"),
    [
        ("hi", "नमस्ते, दुनिया! (शोर)", "नमस्ते दुनिया"),
        ("ar", "كَتَبَ؟", "كَتَبَ"),
        ("he", "שָׁלוֹם!", "שָׁלוֹם"),
        ("th", "ที่นี่ดี", "ที่ นี่ ดี"),
        ("tr", "IŞIK ve İzmir'de", "ışık ve izmir de"),
        ("de", "Straße, Äpfel", "straße äpfel"),
        ("en", "It's colour", "it s colour"),
    ],
)
def test_marks_are_kept_by_name(language: str, text: str, normalized: str):
    normalized = unicodedata.normalize("NFKC", normalized)
    assert get_normalizer(language, "basic_keep_marks")(text) == normalized
    assert get_normalizer(language, "basic_keep_marks")(unicodedata.normalize("NFD", text)) == normalized


def test_turkish_in_capitals_is_the_same_text_where_marks_are_kept():
    capitals = "IĞDIR'IN İKLİMİ"
    assert get_normalizer("tr", "basic_keep_marks")(capitals) == "ığdır ın iklimi"
    assert get_normalizer("tr")(capitals) == BasicTextNormalizer()(capitals).strip()


def test_indic_rules_write_numbers_in_words_and_one_spelling():
    normalize = get_normalizer("hi", "indic")
    assert normalize("25 क़दम") == normalize("पच्चीस क\u093cदम")


def test_without_rules_every_difference_counts():
    assert get_normalizer("en", "none")(" It's  COLOUR, [noise] ") == "It's COLOUR, [noise]"
    assert get_normalizer("ja", "none")("今日は。") == "今 日 は 。"


def test_rules_that_there_are_not_are_refused():
    with pytest.raises(InputError, match="normalizer 'whispered' is unknown: expected one of whisper, basic"):
        get_normalizer("en", "whispered")
    with pytest.raises(InputError, match=r"normalizer indic has rules for .*, and the language is de"):
        get_normalizer("de", "indic")
    with pytest.raises(InputError, match="no language is given"):
        get_normalizer(None, "indic")


def test_what_a_model_writes_decides_the_rules():
    assert get_model_normalizer("zh", "translate", is_multilingual=True) == get_normalizer("en")
    assert get_model_normalizer("zh", "transcribe", is_multilingual=True) == get_normalizer("zh")
    assert get_model_normalizer(None, None, is_multilingual=True) == get_normalizer(None)
    assert get_model_normalizer(None, None, is_multilingual=False) == get_normalizer("en")


@pytest.mark.parametrize(("language", "text"), [("zh", "你好，世界"), ("th", "ที่นี่ดี"), ("ja", "今日は。")])
def test_orthographic_text_without_spaces_is_split_into_characters(language: str, text: str):
    right = functools.partial(orthographic, language=language)
    counts = word_errors([text], ["X" + text[1:]], right)
    assert counts.substitutions == 1
    assert counts.wer == pytest.approx(100 / counts.reference_words)
    assert counts.reference_words > 2
    assert "".join(right(text).split()) == text

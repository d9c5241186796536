"""Ids are cut into words exactly as OpenAI's tokenizer cuts them, and none is lost."""

import numpy as np
import pytest
from whisper.tokenizer import get_tokenizer

from flax_distil.text.tokenizer import WhisperTokenizer
from flax_distil.text.words import split_words

pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # of OpenAI's tokenizer

SENTENCES = {
    "en": " Hello, world! \"It's\" 12:30 ... (the co-op) costs $5.00 -- don't [you] think?",
    "de": " Grüße aus Zürich, Straße 5; „Ja!“ sagte Jürgen.",
    "fr": " L’été, c’est « naïf » : où êtes-vous ?",
    "ru": " Привет, как дела? Всё хорошо!",
    "el": " Καλημέρα κόσμε.",
    "ar": " مرحبا بالعالم، كيف حالك؟",
    "hi": " नमस्ते दुनिया, आप कैसे हैं?",
    "ko": " 안녕하세요, 반갑습니다.",
    "zh": "你好,世界!今天天气很好。",
    "ja": "こんにちは、世界。今日はいい天気ですね!",
    "th": "สวัสดีชาวโลก",
    "lo": "ສະບາຍດີ",
    "my": "မင်္ဂလာပါ",
    "yue": "你食咗飯未呀?",
    "vi": " Xin chào thế giới, hôm nay trời đẹp quá 😀👍🏽!",
}


@pytest.fixture(scope="module")
def tokenizer(base_dir) -> WhisperTokenizer:
    return WhisperTokenizer.from_pretrained(base_dir)


def their_words(tokens: list[int], language: str) -> list[tuple[str, tuple[int, ...]]]:
    theirs = get_tokenizer(True, num_languages=100, language=language, task="transcribe")
    words, ids = theirs.split_to_word_tokens([*tokens, theirs.eot])
    return [(word, tuple(own)) for word, own in zip(words, ids, strict=True)][:-1]


@pytest.mark.parametrize("language", SENTENCES)
def test_sentences_are_cut_as_openai_cuts_them(language, tokenizer):
    tokens = tokenizer.encode(SENTENCES[language])
    words = split_words(tokens, tokenizer, language=language)
    assert words == their_words(tokens, language)
    assert "".join(word.text for word in words) == SENTENCES[language]


@pytest.mark.parametrize("language", ["en", "ja"])
def test_no_token_is_lost_whatever_the_ids(language, tokenizer):
    """Most such texts hold halves of characters; OpenAI's code gives up on those that end with one."""
    rng = np.random.default_rng(0)
    agreeing = 0
    for _ in range(200):
        tokens = rng.choice([rng.integers(0, 256, 12), rng.integers(0, 50257, 12)]).tolist()
        words = split_words(tokens, tokenizer, language=language)
        assert [token for word in words for token in word.tokens] == tokens
        theirs = their_words(tokens, language)
        if [token for _, own in theirs for token in own] == tokens:
            assert words == theirs
            agreeing += 1
    assert agreeing > 100


def test_no_ids_are_no_words(tokenizer):
    assert split_words([], tokenizer, language="en") == []

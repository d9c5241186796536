import zlib

import pytest

from flax_distil.metrics.hallucination import compression_ratio, repeated_ngrams, token_compression_ratio


def test_compression_ratio_is_bytes_over_compressed_bytes():
    text = "Größe " * 30
    assert compression_ratio(text) == len(text.encode()) / len(zlib.compress(text.encode()))


def test_a_loop_compresses_beyond_whispers_threshold_and_speech_does_not():
    assert compression_ratio(" Thank you for watching." * 20) > 2.4
    assert compression_ratio(" And so, my fellow Americans, ask not what your country can do for you.") < 2.4
    assert compression_ratio("") == 0.0


@pytest.mark.parametrize("vocab_size", [200, 256, 51865, 65535, 65536, 100_000])
def test_token_compression_ratio_equals_that_of_transformers(vocab_size: int):
    import torch
    from transformers.models.whisper.generation_whisper import WhisperGenerationMixin

    tokens = [3, 1, 4, 1, 5, 9, 2, 6] * 9 + [vocab_size - 1]
    expected = WhisperGenerationMixin._retrieve_compression_ratio(torch.tensor(tokens), vocab_size)
    assert token_compression_ratio(tokens, vocab_size=vocab_size) == expected


def test_a_token_that_does_not_fit_the_vocabulary_is_refused():
    with pytest.raises(OverflowError):
        token_compression_ratio([70_000], vocab_size=51865)


@pytest.mark.parametrize(
    ("text", "n", "expected"),
    [
        ("a b c d e", 5, 0),
        ("a b c d e a b c d e", 5, 1),
        ("a a a a a a a", 5, 2),  # three runs of five, one distinct
        ("a b a b a", 2, 2),  # ab ba ab ba: two distinct
        ("a b", 5, 0),
        ("", 5, 0),
        ("a b a", 1, 1),
    ],
)
def test_repeated_runs_of_words_are_counted_after_the_first(text: str, n: int, expected: int):
    assert repeated_ngrams(text, n) == expected


def test_runs_of_no_words_are_refused():
    with pytest.raises(ValueError, match="at least 1 word"):
        repeated_ngrams("a b", 0)

import math
import random
import string

import jiwer
import pytest

from flax_distil.metrics.word_errors import ErrorCounts, sample_wer, word_errors

WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "slept"]


def lower(text: str) -> str:
    return text.lower()


def spaced_characters(text: str) -> str:
    return " ".join(text.replace(" ", ""))


def random_corpus(seed: int, size: int = 30) -> tuple[list[str], list[str]]:
    generator = random.Random(seed)
    sentence = lambda: " ".join(generator.choices(WORDS, k=generator.randint(0, 9)))  # noqa: E731
    return [sentence() for _ in range(size)], [sentence() for _ in range(size)]


def test_errors_counted_by_hand():
    # sat -> sit substituted, "the" deleted, "today" inserted
    counts = word_errors(["The cat sat on the mat we own"], ["the cat sit on mat we today own"], lower)
    assert (counts.hits, counts.substitutions, counts.deletions, counts.insertions) == (6, 1, 1, 1)
    assert counts.reference_words == 8
    assert counts.wer == 37.5
    assert counts.substitution_rate == counts.deletion_rate == counts.insertion_rate == 12.5


def test_characters_counted_by_hand():
    # "abcd" -> "abxd" one substitution; "ef" -> "efg" one insertion; "hi" -> "h" one deletion: 3 of 8
    counts = word_errors(["ab cd", "ef", "hi"], ["ab xd", "efg", "h"], lower)
    assert (counts.character_hits, counts.character_substitutions) == (6, 1)
    assert (counts.character_insertions, counts.character_deletions) == (1, 1)
    assert counts.reference_characters == 8
    assert counts.cer == pytest.approx(37.5)


def test_spaces_between_all_characters_leave_the_character_error_rate_alone():
    plain = word_errors(["你好世界"], ["你号世界"], lower)
    split = word_errors(["你好世界"], ["你号世界"], spaced_characters)
    assert plain.cer == split.cer == split.wer == 25.0
    assert plain.wer == 100.0


def test_nothing_predicted_is_all_deletions_and_a_loop_exceeds_a_hundred_percent():
    silent = word_errors(["one two three"], [""], lower)
    assert (silent.wer, silent.deletion_rate, silent.cer) == (100.0, 100.0, 100.0)
    loop = word_errors(["one"], ["one one one one"], lower)
    assert (loop.wer, loop.insertion_rate) == (300.0, 300.0)


def test_references_that_normalize_to_nothing_are_left_out_and_counted():
    without = word_errors(["one two"], ["one too"], lower)
    counts = word_errors(
        ["one two", "...", ""], ["one too", "invented words", ""], lambda text: text.strip(".")
    )
    assert (counts.samples, counts.skipped) == (1, 2)
    assert counts.wer == without.wer == 50.0


def test_rates_are_not_a_number_without_references():
    for counts in (ErrorCounts(), word_errors([], [], lower), word_errors([""], ["x"], lower)):
        assert math.isnan(counts.wer)
        assert math.isnan(counts.cer)
        assert math.isnan(counts.insertion_rate)


@pytest.mark.parametrize("seed", range(5))
def test_counts_of_the_parts_add_up_to_the_whole(seed: int):
    references, predictions = random_corpus(seed)
    whole = word_errors(references, predictions, lower)
    parts = ErrorCounts()
    for start in range(0, len(references), 7):
        parts += word_errors(references[start : start + 7], predictions[start : start + 7], lower)
    assert parts == whole
    assert whole.samples + whole.skipped == len(references)


@pytest.mark.parametrize("seed", range(5))
def test_rates_are_those_of_jiwer_over_the_whole_corpus(seed: int):
    references, predictions = random_corpus(seed)
    counts = word_errors(references, predictions, lower)
    scored = [pair for pair in zip(references, predictions, strict=True) if pair[0]]
    assert counts.wer == pytest.approx(100 * jiwer.wer([r for r, _ in scored], [p for _, p in scored]))
    joined = [(r.replace(" ", ""), p.replace(" ", "")) for r, p in scored]
    assert counts.cer == pytest.approx(100 * jiwer.cer([r for r, _ in joined], [p for _, p in joined]))


@pytest.mark.parametrize("seed", range(5))
def test_swapping_reference_and_prediction_swaps_deletions_and_insertions(seed: int):
    references, predictions = random_corpus(seed)
    pairs = [(r, p) for r, p in zip(references, predictions, strict=True) if r and p]
    forth = word_errors([r for r, _ in pairs], [p for _, p in pairs], lower)
    back = word_errors([p for _, p in pairs], [r for r, _ in pairs], lower)
    # An alignment of least cost need not be unique, but this difference and the cost are.
    assert forth.insertions - forth.deletions == back.deletions - back.insertions
    assert forth.wer * forth.reference_words == pytest.approx(back.wer * back.reference_words)


def test_any_white_space_separates_words():
    assert word_errors(["one\ttwo\nthree "], ["  one two three"], lower).wer == 0.0


def test_long_references_are_scored_to_their_end():
    reference = " ".join(f"{letter}{number}" for number in range(100) for letter in string.ascii_lowercase)
    counts = word_errors([reference], [reference.rpartition(" ")[0]], lower)
    assert (counts.hits, counts.deletions) == (2599, 1)


def test_every_reference_needs_a_prediction():
    with pytest.raises(ValueError, match="got 1 for 2"):
        word_errors(["a", "b"], ["a"], lower)


def test_the_rate_of_one_sample_is_in_percent_and_absent_without_reference():
    assert sample_wer("one two", "one", lower) == 50.0
    assert sample_wer("...", "one", lambda text: text.strip(".")) is None

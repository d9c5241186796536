"""Chunks that overlap become one transcript by the words that both heard; no model is needed."""

import random
from pathlib import Path

import pytest

from flax_distil.text.tokenizer import WhisperTokenizer
from flax_distil.transcription.chunked.timestamp_merging import TimestampMerger
from flax_distil.transcription.results import TranscribedSegment, Word


@pytest.fixture(scope="module")
def tokenizer(tiny_en_dir: Path) -> WhisperTokenizer:
    return WhisperTokenizer.from_pretrained(tiny_en_dir)


def kept(
    tokenizer: WhisperTokenizer, start: float, end: float, text: str, *, words: object = None
) -> TranscribedSegment:
    """Return a segment as a chunk keeps it: with the timestamps around its tokens."""
    ids = tuple(tokenizer.encode(text))
    special = tokenizer.special
    placed = words and tuple(Word(text=t, start=s, end=e, probability=0.9) for t, s, e in words)
    tokens = (special.timestamp_begin, *ids, special.timestamp_begin + 50)
    return TranscribedSegment(
        start=start, end=end, text=text, tokens=ids, avg_logprob=-0.2, no_speech_prob=0.1, temperature=0.0,
        words=placed, kept_tokens=tokens, kept_logprobs=(-0.1,) * len(tokens),
    )  # fmt: skip


def merged(tokenizer: WhisperTokenizer, *chunks: list[tuple], language: str = "en") -> list[tuple]:
    """Merge chunks of 30 s that share 10; times are those of the recording."""
    merger = TimestampMerger(tokenizer, language=language)
    for number, chunk in enumerate(chunks):
        merger.add([kept(tokenizer, *one[:3], words=one[3] if len(one) > 3 else None) for one in chunk],
                   start=20.0 * number, middle=20.0 * number + 5.0 * bool(number))  # fmt: skip
    found = merger.fixed(None)
    for one in found:
        assert len(one.kept_tokens) == len(one.kept_logprobs)
        assert one.kept_tokens == one.tokens
        assert tokenizer.decode(one.tokens) == one.text
    return [(one.start, one.end, one.text) for one in found]


def test_segments_that_both_heard_are_there_once(tokenizer):
    assert merged(
        tokenizer,
        [(0.0, 19.0, " Before."), (21.0, 23.0, " One two three."), (24.0, 27.0, " Four five six.")],
        [(20.6, 23.0, " one, two three"), (23.9, 27.1, " Four five six."), (30.0, 33.0, " Behind.")],
    ) == [
        (0.0, 19.0, " Before."), (21.0, 23.0, " One two three."), (24.0, 27.1, " Four five six."),
        (30.0, 33.0, " Behind."),
    ]  # fmt: skip


def test_a_segment_cut_by_the_end_of_a_chunk_goes_on_in_the_next(tokenizer):
    assert merged(
        tokenizer,
        [(22.0, 30.0, " You have reached the number of")],
        [(20.0, 33.0, " reached the number of my office.")],
    ) == [(22.0, 33.0, " You have reached the number of my office.")]


def test_text_that_one_chunk_missed_is_kept(tokenizer):
    assert merged(tokenizer, [(0.0, 18.0, " Before.")], [(20.5, 22.0, " Heard."), (26.0, 28.0, " Too.")]) == [
        (0.0, 18.0, " Before."), (20.5, 22.0, " Heard."), (26.0, 28.0, " Too."),
    ]  # fmt: skip


def test_where_no_word_is_shared_the_middle_decides(tokenizer):
    assert merged(
        tokenizer,
        [(20.5, 24.0, " Apples."), (24.0, 29.0, " Pears.")],
        [(20.5, 24.5, " Stones."), (24.5, 29.0, " Bricks.")],
    ) == [(20.5, 24.0, " Apples."), (24.5, 29.0, " Bricks.")]  # fmt: skip


def test_the_same_words_said_again_later_are_said_twice(tokenizer):
    """Times tell a repetition from what both chunks heard."""
    again = merged(
        tokenizer,
        [(20.0, 21.0, " Goodbye."), (28.0, 29.0, " Goodbye.")],
        [(20.1, 21.0, " Goodbye."), (28.1, 29.0, " Goodbye."), (40.0, 41.0, " Goodbye.")],
    )
    assert [text for _, _, text in again] == [" Goodbye."] * 3


def test_words_found_a_little_earlier_by_the_next_chunk_are_the_same(tokenizer):
    """As in ``_find_longest_common_sequence`` of transformers, where it counts as none, and doubles."""
    left = [(" press", 24.4, 24.8), (" one", 24.8, 25.2), (" now", 25.2, 25.6)]
    right = [(text, start - 0.02, end - 0.02) for text, start, end in left]
    text = " press one now"
    found = merged(
        tokenizer,
        [(24.4, 25.6, text, left)],
        [(24.38, 25.58, text, right), (31.0, 32.0, " Yes", [(" Yes", 31.0, 32.0)])],
    )
    assert [one[2] for one in found] == [text, " Yes"]


def test_words_keep_their_times_when_a_segment_is_joined(tokenizer):
    merger = TimestampMerger(tokenizer, language="en")
    left = [(" Please", 23.0, 23.4), (" hold,", 23.4, 24.0), (" thank", 24.5, 25.0)]
    right = [(" hold", 23.4, 23.9), (" thank", 24.5, 24.9), (" you.", 25.0, 25.5)]
    merger.add([kept(tokenizer, 23.0, 25.0, " Please hold, thank", words=left)], start=0.0, middle=0.0)
    merger.add([kept(tokenizer, 23.4, 25.5, " hold thank you.", words=right)], start=20.0, middle=25.0)
    [one] = merger.fixed(None)
    assert [(w.text, w.start, w.end) for w in one.words] == [*left, right[-1]]


def test_languages_without_spaces_are_merged_by_characters(base_dir):
    tokenizer = WhisperTokenizer.from_pretrained(base_dir)
    assert merged(
        tokenizer, [(22.0, 28.0, "今日は天気が")], [(22.0, 30.0, "は天気がいいです")], language="ja"
    ) == [(22.0, 30.0, "今日は天気がいいです")]


def test_what_ends_before_the_next_chunk_is_fixed(tokenizer):
    merger = TimestampMerger(tokenizer, language="en")
    merger.add(
        [kept(tokenizer, 0.0, 19.0, " One."), kept(tokenizer, 19.0, 21.0, " Two.")], start=0.0, middle=0.0
    )
    assert [one.text for one in merger.fixed(20.0)] == [" One."]


VOCABULARY = (
    " one",
    " two",
    " three",
    " go",
    " stop",
    " left",
    " right",
    " again",
    " yes",
    " no",
    " please",
    " hold",
)


def spoken(draw: random.Random, seconds: float) -> list[tuple[str, float, float]]:
    """Return words without end, with pauses, many of them said twice."""
    words, now = [], 0.0
    while now < seconds:
        length = round(draw.uniform(0.2, 0.6), 2)
        words.append((draw.choice(VOCABULARY), round(now, 2), round(now + length, 2)))
        now += length + draw.choice([0.0, 0.0, 0.1, 0.8])
    return words


def heard(
    draw: random.Random, words: list[tuple[str, float, float]], start: float, stop: float, *, times: bool
) -> list[tuple]:
    """Return the segments of a chunk: its words up to its end, found a little off their places."""
    inside = [word for word in words if word[1] >= start and word[2] <= stop]
    segments: list[tuple] = []
    while inside:
        count = draw.randrange(3, 9)
        own, inside = inside[:count], inside[count:]
        placed = [(text, s + draw.uniform(-0.1, 0.1), e) for text, s, e in own]
        text = "".join(word[0] for word in own)
        segments.append((own[0][1], own[-1][2], text, placed) if times else (own[0][1], own[-1][2], text))
    return segments


@pytest.mark.parametrize("times", [False, True])
def test_what_all_chunks_heard_is_the_transcript_word_by_word(tokenizer, times):
    draw = random.Random(str(times))
    for _ in range(30):
        words = spoken(draw, 65.0)
        chunks = [heard(draw, words, start, start + 30.0, times=times) for start in (0.0, 20.0, 40.0)]
        found = "".join(text for _, _, text in merged(tokenizer, *chunks))
        assert found == "".join(word[0] for word in words if word[2] <= 70.0)

"""Times lie within their recording, and words follow each other; no model is needed."""

import itertools
import random

from flax_distil.transcription.recording_times import keep_within, put_in_order
from flax_distil.transcription.results import TranscribedSegment, Word


def segment(
    start: float, end: float | None, text: str = " Text.", words: object = None
) -> TranscribedSegment:
    return TranscribedSegment(
        start=start, end=end, text=text, tokens=(1,), avg_logprob=-0.1, no_speech_prob=0.0, temperature=0.0,
        words=words,
    )  # fmt: skip


def word(start: float, end: float) -> Word:
    return Word(text=" w", start=start, end=end, probability=0.5)


def spans(segments: object) -> list[tuple[float, float | None]]:
    return [(one.start, one.end) for one in segments]


def test_times_end_with_the_recording_and_no_text_is_lost():
    given = [segment(0.0, 0.6), segment(0.6, 20.56), segment(20.56, 28.0), segment(28.0, None)]
    kept = keep_within(given, begin=0.0, end=0.9)
    assert spans(kept) == [(0.0, 0.6), (0.6, 0.9), (0.9, 0.9), (0.9, None)]
    assert [one.text for one in kept] == [one.text for one in given]


def test_a_segment_that_opens_behind_the_end_begins_where_the_text_before_it_ends():
    assert spans(keep_within([segment(1.0, 2.0)], begin=0.3, end=0.9)) == [(0.3, 0.9)]
    assert spans(keep_within([segment(0.0, 0.5), segment(1.0, 2.0)], begin=0.0, end=0.9))[1] == (0.5, 0.9)


def test_times_inside_stay_as_they_are():
    given = [segment(0.0, 1.5, words=(word(0.1, 0.6), word(0.6, 1.5))), segment(2.0, 3.0, words=())]
    assert list(keep_within(given, begin=0.0, end=3.0)) == given


def test_words_have_a_length_and_end_where_the_next_begins_at_most():
    placed = put_in_order(
        [word(1.0, 1.0), word(1.0, 1.4), word(1.2, 1.9), word(3.0, 3.5)], begin=0.0, end=3.2
    )
    assert spans(placed) == [(1.0, 1.02), (1.02, 1.2), (1.2, 1.9), (3.0, 3.2)]


def test_however_words_are_given_they_follow_each_other_within_the_recording():
    draw = random.Random(0)
    for _ in range(200):
        end = round(draw.random() * 5 + 0.1, 2)
        starts = [draw.random() * 8 for _ in range(draw.randrange(1, 60))]
        placed = put_in_order(
            [word(start, start + draw.choice([0.0, 0.2, -1.0])) for start in starts], begin=0.0, end=end
        )
        assert all(0 <= one.start < one.end <= end for one in placed)
        assert all(one.end <= other.start for one, other in itertools.pairwise(placed))


def test_a_segment_holds_its_words():
    given = [segment(0.5, 1.0, words=(word(0.2, 0.6), word(0.6, 1.3)))]
    assert spans(keep_within(given, begin=0.0, end=2.0)) == [(0.2, 1.3)]

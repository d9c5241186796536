"""Words that nobody says are told by their times and probabilities, as openai/whisper tells them."""

import pytest

from flax_distil.transcription.results import TranscribedSegment, Word
from flax_distil.transcription.sequential.hallucinations import (
    KeptPart,
    WindowPlace,
    skip_hallucinations,
)

PLACE = WindowPlace(
    seek=1000, frames=3000, recording_frames=9000, single_timestamp_ending=False, last_speech=9.0
)
"""From 10 s to 40 s of 90 s."""


def segment(start: float, end: float, *, words: int = 3, probability: float = 0.9) -> TranscribedSegment:
    """Return a segment of words of the same length."""
    length = (end - start) / words
    found = tuple(
        Word(text=" word", start=start + number * length, end=start + (number + 1) * length,
             probability=probability)
        for number in range(words)
    )  # fmt: skip
    return TranscribedSegment(
        start=start, end=end, text=" word" * words, tokens=(5,) * words, avg_logprob=-0.3,
        no_speech_prob=0.1, temperature=0.0, words=found,
    )  # fmt: skip


SAID = segment(12.0, 14.0)
UNLIKELY = {"words": 2, "probability": 0.1}


@pytest.mark.parametrize(
    ("segments", "heard"),
    [
        # All is said: the next window begins at the last word if a long silence follows, ...
        ([SAID], KeptPart(segments=1, seek=1400)),
        # ... or else behind this one.
        ([SAID, segment(36.0, 39.5)], KeptPart(segments=2, seek=4000)),
        # Improbable words first: the silence before them is skipped, and they are heard again.
        ([segment(13.0, 14.0, **UNLIKELY), SAID], KeptPart(segments=None, seek=1300)),
        # Improbable words between silences: dropped with what follows, and heard again.
        ([SAID, segment(20.0, 21.0, **UNLIKELY), segment(30.0, 32.0)], KeptPart(segments=1, seek=2000)),
        # The same without a silence before them is kept.
        ([SAID, segment(14.5, 15.5, **UNLIKELY), segment(30.0, 32.0)], KeptPart(segments=3, seek=3200)),
        # Words of 0.05 s count as improbable: 3 of them make 3 * 15 * 0.083 = 3.7.
        ([SAID, segment(20.0, 20.15), segment(30.0, 32.0)], KeptPart(segments=1, seek=2000)),
        # So does a word of 5 s, of 3 for the whole segment.
        ([SAID, segment(20.0, 25.0, words=1), segment(30.0, 32.0)], KeptPart(segments=1, seek=2000)),
        # A segment without words is neither.
        ([SAID, segment(20.0, 21.0, words=1)], KeptPart(segments=2, seek=2100)),
    ],
)  # fmt: skip
def test_what_stands_alone_between_silences_is_left_out(segments, heard):
    assert skip_hallucinations(segments, PLACE, seek=1234, threshold=1.0) == heard


def test_near_the_end_of_the_recording_nothing_is_heard_again():
    place = WindowPlace(
        seek=1000, frames=3000, recording_frames=4000, single_timestamp_ending=True, last_speech=9.0
    )
    segments = [SAID, segment(37.0, 38.5, **UNLIKELY)]
    assert skip_hallucinations(segments, place, seek=4000, threshold=2.0) == KeptPart(segments=1, seek=4000)
    assert skip_hallucinations(segments, place, seek=4000, threshold=1.4) == KeptPart(segments=1, seek=3700)


def test_a_window_that_is_heard_out_is_followed_by_the_next():
    place = WindowPlace(
        seek=1000, frames=3000, recording_frames=9000, single_timestamp_ending=True, last_speech=9.0
    )
    assert skip_hallucinations([SAID], place, seek=4000, threshold=1.0) == KeptPart(segments=1, seek=4000)

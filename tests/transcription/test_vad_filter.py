"""Silence is cut out, and times are those of the recording all the same."""

import numpy as np
import pytest

from flax_distil.audio.constants import SAMPLING_RATE
from flax_distil.audio.voice_activity import VoiceActivity
from flax_distil.transcription.results import TranscribedSegment, Word
from flax_distil.transcription.sequential.vad_filter import SpeechTimestampsMap, collect_speech
from tests.long_recording import long_recording

TIMES = SpeechTimestampsMap(kept=(0.0, 10.0, 12.0), original=(5.0, 60.0, 100.0))


def segment(start: float, end: float, words: tuple[Word, ...] | None = None) -> TranscribedSegment:
    scores = dict.fromkeys(("avg_logprob", "no_speech_prob", "temperature"), 0.0)
    return TranscribedSegment(start=start, end=end, text="", tokens=(), words=words, **scores)


@pytest.mark.parametrize(
    ("kept", "original"),
    [
        ((0.0, 4.0), (5.0, 9.0)),
        ((9.5, 10.0), (14.5, 15.0)),
        ((10.0, 12.0), (60.0, 62.0)),
        ((9.0, 10.3), (14.0, 15.0)),  # a little too long
        ((9.8, 10.9), (60.0, 60.9)),  # a little too early
        ((9.0, 11.0), (14.0, 61.0)),  # over the silence
        ((9.0, 13.0), (14.0, 101.0)),
        ((12.0, 90.0), (100.0, 178.0)),
    ],
)
def test_segments_keep_to_one_region_unless_they_reach_far_into_the_next(kept, original):
    restored = TIMES.restore(segment(*kept))
    assert (restored.start, restored.end) == original


def test_a_word_lies_where_its_middle_does():
    words = (
        Word(text=" a", start=9.2, end=9.6, probability=1.0),
        Word(text=" b", start=9.9, end=10.5, probability=1.0),
    )
    restored = TIMES.restore(segment(9.0, 10.5, words))
    assert [(word.start, word.end) for word in restored.words] == [(14.2, 14.6), (59.9, 60.5)]
    assert (restored.start, restored.end) == (14.2, 60.5)


@pytest.mark.parametrize("vad", ["energy", "silero"])
def test_speech_is_kept_with_short_pauses_and_long_silences_are_not(vad):
    speech, _ = long_recording(20)
    silence = np.zeros(30 * SAMPLING_RATE, np.float32)
    recording = np.concatenate([silence, speech, silence, speech, silence])
    kept, times = collect_speech(recording, VoiceActivity(vad))
    starts = [30.0, 60 + len(speech) / SAMPLING_RATE]
    assert len(times.kept) == 2
    np.testing.assert_allclose(times.original, starts, atol=0.8)
    assert 2 * len(speech) - 2 * SAMPLING_RATE <= len(kept) <= 2 * len(speech) + 2 * SAMPLING_RATE
    for start, original in zip(times.kept, times.original, strict=True):
        cut, whole = (round(time * SAMPLING_RATE) for time in (start, original))
        np.testing.assert_array_equal(kept[cut : cut + 1000], recording[whole : whole + 1000])


@pytest.mark.parametrize("seconds", [0, 10])
def test_of_silence_nothing_is_left(seconds):
    kept, times = collect_speech(np.zeros(seconds * SAMPLING_RATE, np.float32), VoiceActivity("energy"))
    assert (len(kept), times.original) == (0, ())

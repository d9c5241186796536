"""Finds text that a model emits in silence, by its words: they are too long, too short, or unlikely.

Source: ``hallucination_silence_threshold`` in ``transcribe`` of openai/whisper.
"""

import dataclasses
from collections.abc import Sequence

from flax_distil.audio.constants import CHUNK_FRAMES
from flax_distil.transcription.results import TranscribedSegment, Word
from flax_distil.transcription.sequential.split_by_timestamps import FRAMES_PER_SECOND

_PUNCTUATION = "\"'“¿([{-\"'.。,，!！?？:：”)]}、"
_WORDS_LOOKED_AT = 8
_LEAST_PROBABILITY = 0.15
_SHORTEST_SECONDS, _LONGEST_SECONDS = 0.133, 2.0
_NEAR_SECONDS = 2.0
"""Within this distance of the beginning or the end of a window, silence is assumed."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class WindowPlace:
    """Where a window lies.

    Attributes:
        seek: Its first frame in the recording.
        frames: Number of its frames that belong to the recording.
        most_frames: Number of frames of a whole window of the model.
        recording_frames: Number of frames of the recording.
        single_timestamp_ending: It ends with a single timestamp: nothing is said behind it.
        last_speech: Seconds from the beginning of the recording to the end of the last word before it.
    """

    seek: int
    frames: int
    most_frames: int = CHUNK_FRAMES
    recording_frames: int
    single_timestamp_ending: bool
    last_speech: float

    @property
    def start(self) -> float:
        """Seconds from the beginning of the recording."""
        return self.seek / FRAMES_PER_SECOND

    @property
    def end(self) -> float:
        """Seconds to its end, whether or not the recording lasts so long."""
        return (self.seek + self.most_frames) / FRAMES_PER_SECOND


@dataclasses.dataclass(frozen=True, kw_only=True)
class KeptPart:
    """What is kept of a window.

    Attributes:
        segments: How many segments are kept; None if none counts and decoding goes on from ``seek``.
        seek: First frame of the next window.
    """

    segments: int | None
    seek: int


def skip_hallucinations(
    segments: Sequence[TranscribedSegment], place: WindowPlace, *, seek: int, threshold: float
) -> KeptPart:
    """Leave out text between silences that was probably not spoken.

    Args:
        segments: The segments of a window, with words.
        place: Where the window lies.
        seek: First frame of the next window as it would be otherwise.
        threshold: Seconds; no shorter silence is skipped.
    """
    last_end = last_word_end(segments)
    if last_end is not None and last_end > place.start and not place.single_timestamp_ending:
        follows = place.end - last_end > threshold
        seek = round(last_end * FRAMES_PER_SECOND) if follows else place.seek + place.frames
    first = _first_with_words(segments)
    if first is not None and _is_anomalous(first):
        silence = first.start - place.start
        if silence > threshold:
            return KeptPart(segments=None, seek=place.seek + round(silence * FRAMES_PER_SECOND))
    last_end = place.last_speech
    for number, segment in enumerate(segments):
        if not segment.words:
            continue
        following = _first_with_words(segments[number + 1 :])
        if _is_anomalous(segment) and _is_alone(segment, following, place, last_end, threshold):
            return KeptPart(segments=number, seek=_seek_behind(segment, place, threshold))
        last_end = _end(segment)
    return KeptPart(segments=len(segments), seek=seek)


def last_word_end(segments: Sequence[TranscribedSegment]) -> float | None:
    """Return where the last word ends, without words where the last segment ends; None without segments."""
    ends = [word.end for segment in segments for word in segment.words or ()]
    return ends[-1] if ends else _end(segments[-1]) if segments else None


def _is_alone(
    segment: TranscribedSegment,
    following: TranscribedSegment | None,
    place: WindowPlace,
    last_end: float,
    threshold: float,
) -> bool:
    """Say whether there is silence, or other such words, on both sides of a segment."""
    window_end = (place.seek + place.frames) / FRAMES_PER_SECOND
    next_start = following.words[0].start if following is not None and following.words else window_end
    silence_before = (
        segment.start - last_end > threshold
        or segment.start < threshold
        or segment.start - place.start < _NEAR_SECONDS
    )
    silence_after = (
        next_start - _end(segment) > threshold
        or (following is not None and _is_anomalous(following))
        or place.end - _end(segment) < _NEAR_SECONDS
    )
    return silence_before and silence_after


def _seek_behind(segment: TranscribedSegment, place: WindowPlace, threshold: float) -> int:
    """Return where to go on after a hallucination: at it, or at the end if little is left behind it."""
    if place.recording_frames / FRAMES_PER_SECOND - _end(segment) < threshold:
        return place.recording_frames
    return round(max(place.start + 1, segment.start) * FRAMES_PER_SECOND)


def _first_with_words(segments: Sequence[TranscribedSegment]) -> TranscribedSegment | None:
    return next((segment for segment in segments if segment.words), None)


def _is_anomalous(segment: TranscribedSegment) -> bool:
    """Say whether the first words of a segment are unlikely to be spoken."""
    words = [word for word in segment.words or () if word.text not in _PUNCTUATION][:_WORDS_LOOKED_AT]
    score = sum(map(_anomaly, words))
    return score >= 3 or score + 0.01 >= len(words)


def _anomaly(word: Word) -> float:
    duration = word.end - word.start
    return (
        (1.0 if word.probability < _LEAST_PROBABILITY else 0.0)
        + max(0.0, _SHORTEST_SECONDS - duration) * 15
        + max(0.0, duration - _LONGEST_SECONDS)
    )


def _end(segment: TranscribedSegment) -> float:
    assert segment.end is not None  # only the last of chunks merged without timestamps has none
    return segment.end

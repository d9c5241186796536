"""Assigns the words of a window to its segments, and corrects the times of both.

A word at the edge of a pause may get the length of the pause. This follows openai/whisper step by step, so
that the times are the same.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from flax_distil.transcription.options import APPEND_PUNCTUATIONS, PREPEND_PUNCTUATIONS
from flax_distil.transcription.results import AlignedWord, TranscribedSegment, Word

_SENTENCE_ENDS = ".。!！?？"

_LONGEST_MEDIAN_SECONDS = 0.7
_SEGMENT_MARGIN_SECONDS = 0.5
"""A word that begins this much before its segment, or ends this much after it, is shortened."""


@dataclasses.dataclass
class _Timing:
    """A word whose text and times may change; seconds."""

    text: str
    tokens: int
    start: float
    end: float
    probability: float

    @property
    def duration(self) -> float:
        return self.end - self.start


def attach_words(
    segments: Sequence[TranscribedSegment],
    words: Sequence[AlignedWord],
    *,
    last_speech_timestamp: float,
    offset: float,
    punctuations: tuple[str, str] = (PREPEND_PUNCTUATIONS, APPEND_PUNCTUATIONS),
) -> tuple[tuple[TranscribedSegment, ...], float]:
    """Give the segments of a window their words, and the times of their first and last word.

    Punctuation is joined to the word it belongs to.

    Args:
        segments: The segments of one window in order; seconds from the beginning of the recording.
        words: The words of all their tokens, as :class:`WordAligner` found them.
        last_speech_timestamp: When the last word before the window ended.
        offset: Seconds of the window from the beginning of the recording.
        punctuations: Marks that belong to the word behind them, and those that belong to the one before.

    Returns:
        The segments, and when the last word has ended.

    Source: ``timing.add_word_timestamps`` of openai/whisper.
    """
    timings = [_Timing(word.text, len(word.tokens), word.start, word.end, word.probability) for word in words]
    durations = [timing.duration for timing in timings if timing.duration]
    median = min(_LONGEST_MEDIAN_SECONDS, float(np.median(durations)) if durations else 0.0)
    if durations:
        _shorten_around_sentence_ends(timings, 2 * median)
    _merge_punctuation(timings, *punctuations)
    rest = iter(timings)
    with_words = []
    for segment in segments:
        own = _take_words_of(segment, rest, offset)
        if own:
            _shorten_after_pause(own, last_speech_timestamp, median)
            segment = _reconcile(segment, own, median)
            assert segment.end is not None
            last_speech_timestamp = segment.end
        given = tuple(Word(text=t.text, start=t.start, end=t.end, probability=t.probability) for t in own)
        with_words.append(dataclasses.replace(segment, words=given))
    return tuple(with_words), last_speech_timestamp


def _shorten_around_sentence_ends(timings: Sequence[_Timing], longest: float) -> None:
    for before, timing in itertools.pairwise(timings):
        if timing.duration > longest:
            if timing.text in _SENTENCE_ENDS:
                timing.end = timing.start + longest
            elif before.text in _SENTENCE_ENDS:
                timing.start = timing.end - longest


def _merge_punctuation(timings: Sequence[_Timing], prepended: str, appended: str) -> None:
    """Move opening marks to the next word and closing ones to the last; what is left of them is empty."""
    following = len(timings) - 1
    for index in range(len(timings) - 2, -1, -1):
        mark = timings[index]
        if mark.text.startswith(" ") and mark.text.strip() in prepended:
            _move(mark, timings[following], before=True)
        else:
            following = index
    previous = 0
    for index in range(1, len(timings)):
        mark = timings[index]
        if not timings[previous].text.endswith(" ") and mark.text in appended:
            _move(mark, timings[previous], before=False)
        else:
            previous = index


def _move(mark: _Timing, word: _Timing, *, before: bool) -> None:
    word.text = mark.text + word.text if before else word.text + mark.text
    word.tokens += mark.tokens
    mark.text, mark.tokens = "", 0


def _take_words_of(segment: TranscribedSegment, rest: Iterator[_Timing], offset: float) -> list[_Timing]:
    """Take words until the segment's tokens are used up; their times become those of the recording."""
    own: list[_Timing] = []
    taken = 0
    while taken < len(segment.tokens) and (timing := next(rest, None)):
        taken += timing.tokens
        if timing.text:
            start, end = round(offset + timing.start, 2), round(offset + timing.end, 2)
            own.append(dataclasses.replace(timing, start=start, end=end))
    return own


def _shorten_after_pause(words: Sequence[_Timing], last_speech_timestamp: float, median: float) -> None:
    """Shorten the first two words if they include the pause before them."""
    longest = 2 * median
    first, second = words[0], words[1] if len(words) > 1 else None
    if first.end - last_speech_timestamp <= 2 * longest:
        return
    if first.duration > longest or (second is not None and second.end - first.start > 2 * longest):
        if second is not None and second.duration > longest:
            first.end = second.start = max(second.end / 2, second.end - longest)
        first.start = max(0, first.end - longest)


def _reconcile(segment: TranscribedSegment, words: Sequence[_Timing], median: float) -> TranscribedSegment:
    """Shorten words that reach far beyond their segment; otherwise the segment takes their times."""
    first, last = words[0], words[-1]
    start, end = segment.start, segment.end
    if start < first.end and start - _SEGMENT_MARGIN_SECONDS > first.start:
        first.start = max(0, min(first.end - median, start))
    else:
        start = first.start
    if end is not None and end > last.start and end + _SEGMENT_MARGIN_SECONDS < last.end:
        last.end = max(last.start + median, end)
    else:
        end = last.end
    return dataclasses.replace(segment, start=start, end=end)

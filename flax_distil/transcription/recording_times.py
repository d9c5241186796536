"""Keeps the times of segments and words within their recording, and words in order."""

import dataclasses
import itertools
from collections.abc import Sequence

from flax_distil.transcription.results import TranscribedSegment, Word

SHORTEST_WORD_MS = 20
"""The grid of word times, and the length of a word for which no time was found."""


def keep_within(
    segments: Sequence[TranscribedSegment], *, begin: float, end: float
) -> tuple[TranscribedSegment, ...]:
    """Return segments whose times, and those of their words, lie within a stretch of a recording.

    A segment that begins beyond the end begins where the one before it ends. Words follow each other: each
    has a length, and ends at the next one's start at most.

    Args:
        segments: The segments in order; seconds from the beginning of the recording.
        begin: Seconds to the end of the text before them; no word is earlier.
        end: Seconds to the end of the recording; no time is later.
    """
    spans = []
    last = min(begin, end)
    for segment in segments:
        start = last if segment.start >= end else segment.start
        last = end if segment.end is None else max(start, min(segment.end, end))
        spans.append((start, None if segment.end is None else last))
    words = iter(put_in_order(
        [word for segment in segments for word in segment.words or ()], begin=begin, end=end
    ))  # fmt: skip
    kept = []
    for segment, (start, stop) in zip(segments, spans, strict=True):
        own = None if segment.words is None else tuple(itertools.islice(words, len(segment.words)))
        if own:
            start = min(start, own[0].start)
            stop = own[-1].end if stop is None else max(stop, own[-1].end)
        kept.append(dataclasses.replace(segment, start=start, end=stop, words=own))
    return tuple(kept)


def put_in_order(words: Sequence[Word], *, begin: float, end: float) -> list[Word]:
    """Return words in order; each has a length, and none ends after the start of the next."""
    if not words:
        return []
    first, limit = round(1000 * begin), round(1000 * end)
    shortest = min(SHORTEST_WORD_MS, max(0, limit - first) // len(words))
    starts: list[int] = []
    for number, word in enumerate(words):
        earliest = starts[-1] + shortest if starts else first
        latest = limit - shortest * (len(words) - number)
        starts.append(max(min(max(round(1000 * word.start), earliest), latest), 0))
    placed = []
    for word, start, next_start in zip(words, starts, [*starts[1:], limit], strict=True):
        stop = min(max(round(1000 * word.end), start + shortest), max(start, next_start))
        placed.append(dataclasses.replace(word, start=start / 1000, end=stop / 1000))
    return placed

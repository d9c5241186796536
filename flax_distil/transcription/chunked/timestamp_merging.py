"""Chunks that overlap, transcribed apart with timestamps, become one transcript.

What two neighbours hear alike is found in the words of their overlap, by text and time together, and the
transcript changes over from one to the other there, as near to the middle of the overlap as can be: a chunk
hears best what is far from its ends.
"""

import dataclasses
import itertools
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

from flax_distil.text.special_tokens import SpecialTokens
from flax_distil.text.tokenizer import WhisperTokenizer
from flax_distil.text.words import split_words
from flax_distil.transcription.results import TranscribedSegment, Word
from flax_distil.transcription.sequential.decoded_window import KeptSegment

SEGMENT_TOLERANCE_SECONDS = 5.0
"""Times of words are taken from those of their segments, which may open in the pause before them."""

WORD_TOLERANCE_SECONDS = 1.0
"""Where the times of words are known, the same word is not found further apart."""

IN_A_ROW = 0.5
"""What it counts that the next words are alike too: as much as times can, which repetitions mislead."""


class _Unit(NamedTuple):
    """A word of a segment, which is kept whole.

    Attributes:
        segment: number of its segment.
        key: what it is compared by; "" of punctuation.
        tokens: ids.
        logprobs: of the ids.
        time: seconds from the beginning of the recording to its middle.
        word: with its times, where they are known.
    """

    segment: int
    key: str
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    time: float
    word: Word | None


class TimestampMerger:
    """Merges the chunks of one recording, in order."""

    def __init__(self, tokenizer: WhisperTokenizer, *, language: str):
        """Begin without text.

        Args:
            tokenizer: of the checkpoint.
            language: code.
        """
        self._tokenizer, self._language = tokenizer, language
        self._kept: list[KeptSegment] = []

    def fixed(self, next_start: float | None) -> list[KeptSegment]:
        """Return the segments that end before the next chunk begins, all of them if there is none.

        Args:
            next_start: seconds from the beginning of the recording to the next chunk.
        """
        if next_start is None:
            return self._kept
        return list(itertools.takewhile(lambda kept: _end(kept.segment) <= next_start, self._kept))

    def add(self, chunk: Sequence[KeptSegment], *, start: float, middle: float) -> None:
        """Merge the next chunk.

        Args:
            chunk: its segments, with times in the recording.
            start: seconds from the beginning of the recording to the chunk.
            middle: where its share of the overlap begins, in the same seconds.
        """
        right = [_text_only(kept, self._tokenizer.special) for kept in chunk]
        stop = max([start, *(_end(kept.segment) for kept in self._kept)])
        before = list(itertools.takewhile(lambda kept: _end(kept.segment) <= start, self._kept))
        early = list(itertools.takewhile(lambda kept: kept.segment.start < stop, right))
        overlap = self._changed_over(self._kept[len(before) :], early, middle)
        self._kept = [*before, *overlap, *right[len(early) :]]

    def _changed_over(
        self, left: list[KeptSegment], right: list[KeptSegment], middle: float
    ) -> list[KeptSegment]:
        """Return the segments of an overlap: those of the left chunk first, then those of the right one."""
        lefts, rights = self._units(left), self._units(right)
        found = _alike(lefts, rights)
        if not found:
            return _by_time(left, right, middle)
        last, first = min(found, key=lambda pair: abs(_mean_time(lefts, rights, pair) - middle))
        ours, theirs = lefts[: last + 1], rights[first + 1 :]
        one, other = left[lefts[last].segment], right[rights[first].segment]
        rest = [unit for unit in theirs if unit.segment == rights[first].segment]
        is_whole = lefts[last + 1 :][:1] == [] or lefts[last + 1].segment != lefts[last].segment
        joined = self._joined(
            one, [unit for unit in ours if unit.segment == lefts[last].segment],
            other, rest, keeps_end=is_whole and not rest,
        )  # fmt: skip
        return [*left[: lefts[last].segment], joined, *right[rights[first].segment + 1 :]]

    def _joined(
        self,
        one: KeptSegment,
        ours: Sequence[_Unit],
        other: KeptSegment,
        theirs: Sequence[_Unit],
        *,
        keeps_end: bool,
    ) -> KeptSegment:
        """Return a segment of the first words of one and the last words of another."""
        units = [*ours, *theirs]
        tokens = tuple(token for unit in units for token in unit.tokens)
        logprobs = tuple(logprob for unit in units for logprob in unit.logprobs)
        a, b = one.segment, other.segment
        words = tuple(unit.word for unit in units if unit.word is not None)
        segment = dataclasses.replace(
            a,
            end=a.end if keeps_end else max(a.start, _end(b)),
            text=self._tokenizer.decode(tokens),
            tokens=tokens,
            avg_logprob=(a.avg_logprob * len(ours) + b.avg_logprob * len(theirs)) / len(units),
            no_speech_prob=min(a.no_speech_prob, b.no_speech_prob) if theirs else a.no_speech_prob,
            temperature=max(a.temperature, b.temperature) if theirs else a.temperature,
            words=None if a.words is None else words,
        )
        return KeptSegment(segment=segment, tokens=tokens, token_logprobs=logprobs)

    def _units(self, kept: Sequence[KeptSegment]) -> list[_Unit]:
        return [unit for number, one in enumerate(kept) for unit in self._units_of(number, one)]

    def _units_of(self, number: int, kept: KeptSegment) -> list[_Unit]:
        """Cut a segment into words; without times of its own one lies where its characters do."""
        segment = kept.segment
        parts = split_words(segment.tokens, self._tokenizer, language=self._language)
        grouped = _grouped([part.text for part in parts], segment.words)
        length = sum(len(part.text) for part in parts) or 1
        rest, done = iter(zip(parts, itertools.count(), strict=False)), 0
        units, taken = [], 0
        for size, word in grouped:
            own = [part for part, _ in itertools.islice(rest, size)]
            text = "".join(part.text for part in own)
            tokens = tuple(token for part in own for token in part.tokens)
            place = (done + len(text) / 2) / length
            time = segment.start + place * (_end(segment) - segment.start)
            if word is not None:
                time = (word.start + word.end) / 2
            logprobs = kept.token_logprobs[taken : taken + len(tokens)]
            units.append(_Unit(number, _key(text), tokens, logprobs, time, word))
            done, taken = done + len(text), taken + len(tokens)
        return units


def _by_time(left: list[KeptSegment], right: list[KeptSegment], middle: float) -> list[KeptSegment]:
    """Return segments of chunks that share no word: up to the middle of the overlap those of the left one.

    What only one of them heard, while the other heard nothing, is kept too.
    """

    def is_alone(one: KeptSegment, others: Sequence[KeptSegment]) -> bool:
        return all(
            one.segment.start >= _end(other.segment) or _end(one.segment) <= other.segment.start
            for other in others
        )

    kept = [
        *(one for one in left if _middle(one.segment) <= middle or is_alone(one, right)),
        *(one for one in right if _middle(one.segment) > middle or is_alone(one, left)),
    ]
    return sorted(kept, key=lambda one: one.segment.start)


def _text_only(kept: KeptSegment, special: SpecialTokens) -> KeptSegment:
    """Return a segment without the timestamps among what was emitted."""
    pairs = [
        (token, logprob)
        for token, logprob in zip(kept.tokens, kept.token_logprobs, strict=True)
        if special.is_text(token)
    ]  # fmt: skip
    return dataclasses.replace(
        kept,
        tokens=tuple(token for token, _ in pairs),
        token_logprobs=tuple(logprob for _, logprob in pairs),
    )


def _grouped(texts: Sequence[str], words: Sequence[Word] | None) -> list[tuple[int, Word | None]]:
    """Say how many pieces of text each word is made of, in order; punctuation is part of a word."""
    if words is None or "".join(texts) != "".join(word.text for word in words):
        return [(1, None)] * len(texts)
    ends = set(itertools.accumulate(len(word.text) for word in words))
    grouped: list[tuple[int, Word | None]] = []
    rest, size, length = iter(words), 0, 0
    for text in texts:
        size, length = size + 1, length + len(text)
        if length in ends:
            grouped.append((size, next(rest)))
            size = 0
    return grouped


def _alike(lefts: Sequence[_Unit], rights: Sequence[_Unit]) -> list[tuple[int, int]]:
    """Return pairs of words that are the same, in order in both: as many, and as near in time, as can be."""
    # Of the words from (i, j) on: the best score, and the best that begins with this pair.
    best = [[0.0] * (len(rights) + 1) for _ in range(len(lefts) + 1)]
    begun = [[0.0] * (len(rights) + 1) for _ in range(len(lefts) + 1)]
    for i, left in reversed(list(enumerate(lefts))):
        for j, right in reversed(list(enumerate(rights))):
            likeness = _likeness(left, right)
            if likeness:
                following = begun[i + 1][j + 1]
                begun[i][j] = likeness + max(best[i + 1][j + 1], following and following + IN_A_ROW)
            best[i][j] = max(best[i + 1][j], best[i][j + 1], begun[i][j])
    pairs: list[tuple[int, int]] = []
    i = j = 0
    in_a_row = False
    while i < len(lefts) and j < len(rights):
        if begun[i][j] and (in_a_row or begun[i][j] == best[i][j]):
            pairs.append((i, j))
            in_a_row = 0 < begun[i + 1][j + 1] >= best[i + 1][j + 1] - IN_A_ROW
            i, j = i + 1, j + 1
        elif best[i][j] == best[i + 1][j]:
            i += 1
        else:
            j += 1
    return pairs


def _likeness(left: _Unit, right: _Unit) -> float:
    """Return how sure it is that two words are one: 0, or from a half to 1, as near as their times are."""
    known = left.word is not None and right.word is not None
    tolerance = WORD_TOLERANCE_SECONDS if known else SEGMENT_TOLERANCE_SECONDS
    apart = abs(left.time - right.time)
    if not left.key or left.key != right.key or apart > tolerance:
        return 0.0
    return 1 - apart / (2 * tolerance)


def _key(text: str) -> str:
    """Return the letters, digits and marks of a word, without case."""
    return "".join(char for char in text.casefold() if unicodedata.category(char)[0] in "LNM")


def _mean_time(lefts: Sequence[_Unit], rights: Sequence[_Unit], pair: tuple[int, int]) -> float:
    return (lefts[pair[0]].time + rights[pair[1]].time) / 2


def _middle(segment: TranscribedSegment) -> float:
    return (segment.start + _end(segment)) / 2


def _end(segment: TranscribedSegment) -> float:
    assert segment.end is not None
    return segment.end

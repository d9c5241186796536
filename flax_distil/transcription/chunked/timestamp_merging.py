"""Chunks that overlap, each transcribed with timestamps, become one transcript.

Words that two neighbors have in common are found in their overlap, by text and time together. There the
transcript changes over from one to the other, as near to the middle of the overlap as possible, because a
chunk is transcribed best far from its ends.
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

SEGMENT_TOLERANCE_SECONDS = 5.0
"""Tolerance where times of words come from those of their segments, which may open in the pause before."""

WORD_TOLERANCE_SECONDS = 1.0
"""Tolerance where the times of words are known."""

IN_A_ROW = 0.5
"""How much it counts that the next words are alike too: as much as times can, which repetitions mislead."""


class _MergeWord(NamedTuple):
    """A word of a segment, which is kept as a whole.

    Attributes:
        segment: Number of its segment.
        key: The text that it is compared by; "" for punctuation.
        tokens: Its ids.
        logprobs: Log-probabilities of the ids.
        time: Seconds from the beginning of the recording to its middle.
        word: The word with its times, where they are known.
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
            tokenizer: Tokenizer of the checkpoint.
            language: Code of the language.
        """
        self._tokenizer, self._language = tokenizer, language
        self._kept: list[TranscribedSegment] = []

    def fixed(self, next_start: float | None) -> list[TranscribedSegment]:
        """Return the segments that end before the next chunk begins; all of them if there is no next chunk.

        Args:
            next_start: Seconds from the beginning of the recording to the next chunk.
        """
        if next_start is None:
            return self._kept
        return list(itertools.takewhile(lambda kept: _end(kept) <= next_start, self._kept))

    def add(self, chunk: Sequence[TranscribedSegment], *, start: float, middle: float) -> None:
        """Merge the next chunk.

        Args:
            chunk: Its segments, with times in the recording.
            start: Seconds from the beginning of the recording to the chunk.
            middle: Where its share of the overlap begins, in the same seconds.
        """
        right = [_drop_timestamps(kept, self._tokenizer.special) for kept in chunk]
        stop = max([start, *(_end(kept) for kept in self._kept)])
        before = list(itertools.takewhile(lambda kept: _end(kept) <= start, self._kept))
        early = list(itertools.takewhile(lambda kept: kept.start < stop, right))
        overlap = self._change_over(self._kept[len(before) :], early, middle)
        self._kept = [*before, *overlap, *right[len(early) :]]

    def _change_over(
        self, left: list[TranscribedSegment], right: list[TranscribedSegment], middle: float
    ) -> list[TranscribedSegment]:
        """Return the segments of an overlap: those of the left chunk first, then those of the right one."""
        lefts, rights = self._words_of(left), self._words_of(right)
        found = _match_words(lefts, rights)
        if not found:
            return _split_by_time(left, right, middle)
        last, first = min(found, key=lambda pair: abs(_mean_time(lefts, rights, pair) - middle))
        ours, theirs = lefts[: last + 1], rights[first + 1 :]
        one, other = left[lefts[last].segment], right[rights[first].segment]
        rest = [unit for unit in theirs if unit.segment == rights[first].segment]
        is_whole = lefts[last + 1 :][:1] == [] or lefts[last + 1].segment != lefts[last].segment
        joined = self._join(
            one, [unit for unit in ours if unit.segment == lefts[last].segment],
            other, rest, keeps_end=is_whole and not rest,
        )  # fmt: skip
        return [*left[: lefts[last].segment], joined, *right[rights[first].segment + 1 :]]

    def _join(
        self,
        one: TranscribedSegment,
        ours: Sequence[_MergeWord],
        other: TranscribedSegment,
        theirs: Sequence[_MergeWord],
        *,
        keeps_end: bool,
    ) -> TranscribedSegment:
        """Return a segment of the first words of one and the last words of another."""
        units = [*ours, *theirs]
        tokens = tuple(token for unit in units for token in unit.tokens)
        logprobs = tuple(logprob for unit in units for logprob in unit.logprobs)
        words = tuple(unit.word for unit in units if unit.word is not None)
        sources = (one, other) if theirs else (one,)
        return dataclasses.replace(
            one,
            end=one.end if keeps_end else max(one.start, _end(other)),
            text=self._tokenizer.decode(tokens),
            tokens=tokens,
            kept_tokens=tokens,
            kept_logprobs=logprobs,
            avg_logprob=(one.avg_logprob * len(ours) + other.avg_logprob * len(theirs)) / len(units),
            no_speech_prob=min(source.no_speech_prob for source in sources),
            temperature=max(source.temperature for source in sources),
            words=None if one.words is None else words,
        )

    def _words_of(self, kept: Sequence[TranscribedSegment]) -> list[_MergeWord]:
        return [unit for number, one in enumerate(kept) for unit in self._words_of_segment(number, one)]

    def _words_of_segment(self, number: int, segment: TranscribedSegment) -> list[_MergeWord]:
        """Cut a segment into words; a word without times of its own lies where its characters do."""
        parts = split_words(segment.tokens, self._tokenizer, language=self._language)
        grouped = _group_by_words([part.text for part in parts], segment.words)
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
            logprobs = segment.kept_logprobs[taken : taken + len(tokens)]
            units.append(_MergeWord(number, _key(text), tokens, logprobs, time, word))
            done, taken = done + len(text), taken + len(tokens)
        return units


def _split_by_time(
    left: list[TranscribedSegment], right: list[TranscribedSegment], middle: float
) -> list[TranscribedSegment]:
    """Return segments of chunks that share no word: those of the left chunk up to the middle of the overlap.

    Segments of one chunk where the other one has none are kept too.
    """

    def is_alone(one: TranscribedSegment, others: Sequence[TranscribedSegment]) -> bool:
        return all(one.start >= _end(other) or _end(one) <= other.start for other in others)

    kept = [
        *(one for one in left if _middle(one) <= middle or is_alone(one, right)),
        *(one for one in right if _middle(one) > middle or is_alone(one, left)),
    ]
    return sorted(kept, key=lambda one: one.start)


def _drop_timestamps(segment: TranscribedSegment, special: SpecialTokens) -> TranscribedSegment:
    """Return a segment that keeps no timestamps."""
    is_text = [special.is_text(token) for token in segment.kept_tokens]
    return dataclasses.replace(
        segment,
        kept_tokens=tuple(itertools.compress(segment.kept_tokens, is_text)),
        kept_logprobs=tuple(itertools.compress(segment.kept_logprobs, is_text)),
    )


def _group_by_words(texts: Sequence[str], words: Sequence[Word] | None) -> list[tuple[int, Word | None]]:
    """Return how many pieces of text each word consists of, in order; punctuation is part of a word."""
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


def _match_words(lefts: Sequence[_MergeWord], rights: Sequence[_MergeWord]) -> list[tuple[int, int]]:
    """Return pairs of equal words, in order in both: as many, and as near in time, as possible."""
    # Of the words from (i, j) on: the best score, and the best that begins with this pair.
    best = [[0.0] * (len(rights) + 1) for _ in range(len(lefts) + 1)]
    begun = [[0.0] * (len(rights) + 1) for _ in range(len(lefts) + 1)]
    for i, left in reversed(list(enumerate(lefts))):
        for j, right in reversed(list(enumerate(rights))):
            likeness = _similarity(left, right)
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


def _similarity(left: _MergeWord, right: _MergeWord) -> float:
    """Return how likely two words are the same: 0, or from 0.5 to 1 by how near their times are."""
    known = left.word is not None and right.word is not None
    tolerance = WORD_TOLERANCE_SECONDS if known else SEGMENT_TOLERANCE_SECONDS
    apart = abs(left.time - right.time)
    if not left.key or left.key != right.key or apart > tolerance:
        return 0.0
    return 1 - apart / (2 * tolerance)


def _key(text: str) -> str:
    """Return the letters, digits and marks of a word, casefolded."""
    return "".join(char for char in text.casefold() if unicodedata.category(char)[0] in "LNM")


def _mean_time(lefts: Sequence[_MergeWord], rights: Sequence[_MergeWord], pair: tuple[int, int]) -> float:
    return (lefts[pair[0]].time + rights[pair[1]].time) / 2


def _middle(segment: TranscribedSegment) -> float:
    return (segment.start + _end(segment)) / 2


def _end(segment: TranscribedSegment) -> float:
    assert segment.end is not None
    return segment.end

"""Chunks that overlap and were decoded separately become one transcript."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from flax_distil.core.arrays import Bool, Int
from flax_distil.text.special_tokens import SpecialTokens
from flax_distil.text.timestamps import TIMESTAMP_STEP_SECONDS, timestamp_seconds

EXTRA_PER_TOKEN = 1e-4
"""Bonus per token of an overlap: of two overlaps that match equally well, the longer one is taken."""


class DecodedToken(NamedTuple):
    """A decoded token.

    Attributes:
        id: Id of text or of a timestamp.
        logprob: Natural logarithm of its probability.
        chunk: Number of the chunk it was emitted for.
        span: (start, end) in seconds from the beginning of the chunk, later of the recording; None where
            times of words are not asked for.
    """

    id: int
    logprob: float = 0.0
    chunk: int = 0
    span: tuple[float, float] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecodedChunk:
    """The decoded tokens of a chunk.

    Attributes:
        tokens: Without prompt and end-of-text; timestamps included.
        seconds: Its length, without padding.
        stride_left: Seconds it shares with the chunk before it; 0 for the first.
        stride_right: Seconds it shares with the next one; 0 for the last.
    """

    tokens: Sequence[DecodedToken]
    seconds: float
    stride_left: float
    stride_right: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class MergedSegment:
    """A stretch of a recording between two timestamps.

    Attributes:
        start: Seconds from the beginning of the recording; None if no timestamp precedes the text.
        end: Seconds from the beginning of the recording; None if no timestamp follows the text.
        tokens: Tokens of text.
    """

    start: float | None
    end: float | None
    tokens: list[DecodedToken]


def join_overlapping(sequences: Sequence[Sequence[DecodedToken]]) -> list[DecodedToken]:
    """Join sequences, each of which begins with roughly what the one before it ends with.

    Of all ways to lay the beginning of one over the end of the other, the one with most equal tokens for
    its length is taken, if at least two are equal; its first half is taken from the left sequence, its second
    from the right one. Without such a way the sequences follow each other.

    Source: gives the same result as ``_find_longest_common_sequence`` of transformers.
    """
    joined: list[DecodedToken] = []
    left = list(sequences[0])
    for right in sequences[1:]:
        left_stop, right_start = _meeting_point(left, right)
        joined += left[:left_stop]
        left = list(right[right_start:])
    return joined + left


def merge_chunks(chunks: Iterable[DecodedChunk], special: SpecialTokens) -> list[MergedSegment]:
    """Merge the chunks of a recording, in order, into segments.

    A segment ends at a timestamp outside of all strides; what lies before and after a timestamp within one is
    joined by ``join_overlapping``. Without timestamps there is one segment at most.

    Source: gives the same result as ``_decode_asr`` of transformers.
    """
    merger = _Merger(special)
    for chunk in chunks:
        merger.add(chunk)
    return merger.finish()


class _Merger:
    """The chunks of one recording so far.

    A segment may be open: it has begun, and its text is the sequences of ``_open``, one per chunk.
    """

    def __init__(self, special: SpecialTokens):
        self._special = special
        self._segments: list[MergedSegment] = []
        self._chunk_start = 0.0
        self._start: float | None = None
        self._open: list[list[DecodedToken]] = []
        self._skip_next = False

    def add(self, chunk: DecodedChunk) -> None:
        self._chunk_start -= chunk.stride_left
        first = self._special.timestamp_begin + chunk.stride_left / TIMESTAMP_STEP_SECONDS
        last = self._first_of_right_stride(chunk)
        current: list[DecodedToken] = []
        for token in chunk.tokens:
            if not self._special.is_timestamp(token.id):
                current.append(self._place(token))
            elif last is not None and token.id >= last:
                # The next chunk says the same; timestamps come in pairs, and the other is skipped too.
                self._skip_next = True
            elif self._skip_next or (self._open and token.id < first):
                self._skip_next = False
            elif self._ends_segment(token):
                self._close(current, self._seconds(token))
                current = []
        self._chunk_start += chunk.seconds - chunk.stride_right
        if current:
            self._open.append(current)
        elif not any(self._open):
            self._start, self._open = None, []

    def finish(self) -> list[MergedSegment]:
        if self._open:
            self._segments.append(
                MergedSegment(start=self._start, end=None, tokens=join_overlapping(self._open))
            )
        return self._segments

    def _ends_segment(self, token: DecodedToken) -> bool:
        """Say whether this timestamp ends a segment; begin one if none is open."""
        if self._start is None:
            self._start = self._seconds(token)
            return False
        return self._seconds(token) != self._start

    def _close(self, current: list[DecodedToken], end: float) -> None:
        tokens = join_overlapping([*self._open, current])
        self._segments.append(MergedSegment(start=self._start, end=end, tokens=tokens))
        self._start, self._open = None, []

    def _seconds(self, token: DecodedToken) -> float:
        return round(timestamp_seconds(token.id, self._special) + self._chunk_start, 2)

    def _place(self, token: DecodedToken) -> DecodedToken:
        if token.span is None:
            return token
        start, end = token.span
        return token._replace(span=(round(start + self._chunk_start, 2), round(end + self._chunk_start, 2)))

    def _first_of_right_stride(self, chunk: DecodedChunk) -> int | None:
        """Return the first timestamp within the right stride, or else the last one before it."""
        if not chunk.stride_right:
            return None
        first = None
        for token in reversed(chunk.tokens):
            if self._special.is_timestamp(token.id):
                seconds = timestamp_seconds(token.id, self._special)
                if first is not None and seconds < chunk.seconds - chunk.stride_right:
                    break
                first = token.id
        return first


def _meeting_point(left: Sequence[DecodedToken], right: Sequence[DecodedToken]) -> tuple[int, int]:
    """Return where the left sequence ends, and where the right one begins."""
    if not left or not right:
        return len(left), 0
    equal_LR = _equal(left, right)
    lefts, rights = np.nonzero(equal_LR)
    # Offset i lays the first token of the right sequence over the i-th last of the left one.
    matches_O = np.bincount(rights - lefts + len(left), minlength=len(left) + len(right))[1:]
    offsets_O = np.arange(1, len(left) + len(right))
    scores_O = np.where(matches_O > 1, matches_O / offsets_O + offsets_O * EXTRA_PER_TOKEN, 0.0)
    if not scores_O.any():
        return len(left), 0
    offset = int(scores_O.argmax()) + 1
    left_span = max(0, len(left) - offset), min(len(left), len(left) + len(right) - offset)
    right_span = max(0, offset - len(left)), min(len(right), offset)
    return sum(left_span) // 2, sum(right_span) // 2


def _equal(left: Sequence[DecodedToken], right: Sequence[DecodedToken]) -> Bool[np.ndarray, "L R"]:
    """Say which tokens are equal and, where times are known, in order."""
    equal_LR: Bool[np.ndarray, "L R"] = _ids(left)[:, None] == _ids(right)
    if left[0].span is None or right[0].span is None:
        return equal_LR
    left_L2 = np.array([token.span for token in left])
    right_R2 = np.array([token.span for token in right])
    earlier_LR = left_L2[:, None, 0] < right_R2[:, 0]
    together_LR = left_L2[:, None, 0] == right_R2[:, 0]
    no_later_LR = left_L2[:, None, 1] <= right_R2[:, 1]
    return equal_LR & (earlier_LR | (together_LR & no_later_LR))


def _ids(tokens: Sequence[DecodedToken]) -> Int[np.ndarray, " T"]:
    return np.array([token.id for token in tokens], np.int64)

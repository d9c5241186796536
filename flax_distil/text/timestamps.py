"""Convert timestamps between seconds, ids and strings, and split transcripts into segments.

A transcript with timestamps is a sequence of segments. Each one begins and ends with a timestamp; two
neighbors may share the time, but not the token::

    <|0.00|> Hello there.<|1.80|><|1.80|> How are you?<|3.00|>
    '---- segment 0 ------------''---- segment 1 ------------'

Times are relative to the window of 30 s that the ids belong to.
"""

import operator
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import SupportsIndex

from flax_distil.text.special_tokens import TIMESTAMP_COUNT, SpecialTokens

TIMESTAMP_STEP_SECONDS = 0.02
LAST_TIMESTAMP_SECONDS = 30.0

TIMESTAMP_TEXT = re.compile(r"<\|\d+\.\d+\|>")
"""Pattern of a timestamp as text, whether or not it is a multiple of 0.02 s."""

_TIMESTAMP_TOKENS = {f"<|{step / 50:.2f}|>": step for step in range(TIMESTAMP_COUNT)}


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A sequence of text ids between two timestamps.

    Attributes:
        start: Start in seconds from the beginning of the window; None if no timestamp precedes the text.
        end: End in seconds; None if no timestamp follows the text.
        tokens: Text ids, without timestamps.
    """

    start: float | None
    end: float | None
    tokens: tuple[int, ...]


def timestamp_token(seconds: float, special: SpecialTokens) -> int:
    """Return the id of the timestamp nearest to a time.

    Args:
        seconds: Time between 0 and 30.
        special: The vocabulary.

    Raises:
        ValueError: If the time lies outside of the window.
    """
    if not 0.0 <= seconds <= LAST_TIMESTAMP_SECONDS:
        raise ValueError(f"expected a time between 0 and {LAST_TIMESTAMP_SECONDS:g} s, got {seconds} s")
    return special.timestamp_begin + round(seconds / TIMESTAMP_STEP_SECONDS)


def timestamp_seconds(token: SupportsIndex, special: SpecialTokens) -> float:
    """Return the time of a timestamp id, in seconds.

    Raises:
        ValueError: If the id is not a timestamp.
    """
    index = operator.index(token)
    if not special.is_timestamp(index):
        raise ValueError(
            f"expected a timestamp id in [{special.timestamp_begin}, {special.timestamp_end}), got {index}"
        )
    # A division gives two exact decimals; a product with 0.02 does not (57 * 0.02 = 1.1400000000000001).
    return (index - special.timestamp_begin) / 50


def timestamp_text(token: SupportsIndex, special: SpecialTokens) -> str:
    """Return the text of a timestamp id, such as ``<|1.80|>``."""
    return f"<|{timestamp_seconds(token, special):.2f}|>"


def timestamp_from_text(text: str, special: SpecialTokens) -> int | None:
    """Return the id of a text such as ``<|1.80|>``; None if the text is not exactly a valid timestamp."""
    step = _TIMESTAMP_TOKENS.get(text)
    return None if step is None else special.timestamp_begin + step


def strip_timestamps(ids: Iterable[SupportsIndex], special: SpecialTokens) -> list[int]:
    """Return the ids without timestamps; all others keep their order."""
    return [token for token in map(operator.index, ids) if not special.is_timestamp(token)]


def strip_timestamp_text(text: str) -> str:
    """Return a transcript as text without its timestamps; nothing else changes."""
    return TIMESTAMP_TEXT.sub("", text)


def round_timestamps(
    ids: Iterable[SupportsIndex], special: SpecialTokens, *, step_seconds: float = 0.1
) -> list[int]:
    """Return the ids with timestamps rounded to a coarser grid.

    Labels made by people are rarely exact to 20 ms; after rounding, the student does not learn the errors.

    Args:
        ids: Any ids, of which only timestamps change.
        special: The vocabulary.
        step_seconds: Step of the coarser grid, a multiple of 0.02.

    Raises:
        ValueError: If ``step_seconds`` is not a positive multiple of 0.02.
    """
    steps = round(step_seconds / TIMESTAMP_STEP_SECONDS)
    if steps < 1 or abs(steps * TIMESTAMP_STEP_SECONDS - step_seconds) > 1e-9:
        raise ValueError(f"expected a multiple of {TIMESTAMP_STEP_SECONDS} s, got {step_seconds} s")

    def round_token(token: int) -> int:
        if not special.is_timestamp(token):
            return token
        # Halves are rounded up, in integers, because Python's round() rounds them to the even neighbor.
        coarse = (token - special.timestamp_begin + steps // 2) // steps * steps
        return special.timestamp_begin + min(coarse, TIMESTAMP_COUNT - 1)

    return [round_token(token) for token in map(operator.index, ids)]


def split_segments(ids: Iterable[SupportsIndex], special: SpecialTokens) -> list[Segment]:
    """Split ids into segments at their timestamps.

    Special tokens (prompt, end) are left out, as are pairs of timestamps without text.
    A single timestamp between two texts ends the first segment and begins the second.

    Args:
        ids: Generated ids, or those of a label.
        special: The vocabulary.

    Returns:
        Segments in order. Text before the first timestamp has ``start=None``, and text after the last one has
        ``end=None``; ids without timestamps give one segment with neither.
    """
    segments: list[Segment] = []
    start: float | None = None
    tokens: list[int] = []
    for token in map(operator.index, ids):
        if special.is_timestamp(token):
            seconds = timestamp_seconds(token, special)
            if tokens:
                segments.append(Segment(start=start, end=seconds, tokens=tuple(tokens)))
                tokens = []
            start = seconds
        elif not special.is_special(token):
            tokens.append(token)
    if tokens:
        segments.append(Segment(start=start, end=None, tokens=tuple(tokens)))
    return segments

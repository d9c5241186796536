"""Several streams in one file: MP3, FLAC or Ogg files that were concatenated.

Decoders stop where the first one ends, since its header tells its length; so the file is cut there.
"""

import itertools
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from flax_distil.audio.reading.encoded import HEAD_BYTES, Encoded, id3_size, is_mpeg_audio, without_id3
from flax_distil.audio.reading.ogg_pages import OggPages

BLOCK_BYTES = 1 << 20
OVERLAP_BYTES = 64
"""Longer than every pattern."""

_FLAC = re.compile(rb"fLaC[\x00\x80]\x00\x00\x22")
"""The marker and the header of the first block, which describes the stream (RFC 9639, section 8)."""

_MPEG = re.compile(
    rb"ID3[\x02-\x04][\x00-\x0f].[\x00-\x7f]{4}"
    rb"|\xff[\xe2-\xff]..(?:\x00{9}|\x00{11}|\x00{17}|\x00{19}|\x00{32}|\x00{34})(?:Xing|Info)"
    rb"|\xff[\xe2-\xff]..\x00{32}VBRI",
    re.DOTALL,
)
"""An ID3 tag, or the frame without sound in which encoders write the length."""


def stream_parts(encoded: Encoded, pages: OggPages | None) -> list[Encoded]:
    """Return the streams of a file, in order; most files hold one.

    Args:
        encoded: The file.
        pages: What its pages tell if it is an Ogg file.
    """
    head = encoded.head()
    begin, slack = without_id3(head), 0
    if pages is not None:
        starts = pages.starts
    elif is_mpeg_audio(encoded):
        starts, slack = _mpeg_starts(encoded, begin), HEAD_BYTES
    elif head[begin : begin + 4] == b"fLaC" or begin > HEAD_BYTES:
        starts = [match.start for match in _matches(encoded, _FLAC)]
    else:
        return [encoded]
    bounds = [0, *(start for start in starts if start > begin + slack), encoded.size]
    if len(bounds) == 2:
        return [encoded]
    return [replace(encoded, start=start, stop=stop) for start, stop in itertools.pairwise(bounds)]


def _mpeg_starts(encoded: Encoded, begin: int) -> list[int]:
    """Yield the beginnings of streams: a tag, or a frame with the length that has no tag before it."""
    starts, behind = [], 0
    for match in _matches(encoded, _MPEG):
        if match.start < max(begin, behind):
            continue
        if match.text.startswith(b"ID3"):
            end = match.start + id3_size(match.text)
            if not _frame_at(encoded, end):
                continue
            # The frame of the length right after the tag is the same stream's.
            behind = end + OVERLAP_BYTES
        starts.append(match.start)
    return starts


def _frame_at(encoded: Encoded, position: int) -> bool:
    return is_mpeg_audio(replace(encoded, start=position)) if position < encoded.size else False


class _Match(NamedTuple):
    """What was found in a file, and where."""

    start: int
    text: bytes


def _matches(encoded: Encoded, pattern: re.Pattern[bytes]) -> Iterator[_Match]:
    """Find a pattern in a file of any length, from front to back."""
    with encoded.open() as file:
        position, kept = 0, b""
        while block := file.read(BLOCK_BYTES):
            text = kept + block
            last = len(text) - OVERLAP_BYTES if len(block) == BLOCK_BYTES else len(text)
            for match in pattern.finditer(text):
                if match.start() < last:
                    yield _Match(position + match.start(), match.group())
            kept = text[max(0, last) :]
            position += len(text) - len(kept)

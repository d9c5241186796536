"""The pages of an Ogg file: where its streams begin, and whether the file is complete.

Decoders leave a damaged page out without a word, and what comes after it is then too early.
"""

import io
import struct
import zlib
from typing import NamedTuple

from flax_distil.audio.reading.encoded import Encoded

HEADER_BYTES = 27
FIRST_PAGE = 0x02
"""Flag of the page that begins a stream."""

_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


class OggPages(NamedTuple):
    """What the pages of a file tell.

    Attributes:
        starts: First bytes of the streams that are played one after the other.
        damaged: First byte that belongs to no whole page, though others follow; None if there is none.
    """

    starts: list[int]
    damaged: int | None


def walk_pages(encoded: Encoded) -> OggPages:
    """Read all pages of an Ogg file and check their checksums; a truncated end does not count as damage.

    Source: RFC 3533, section 6.
    """
    starts: list[int] = []
    suspect = damaged = None
    first_pages_end = -1
    position = 0
    with encoded.open() as file:
        while True:
            file.seek(position)
            page = _page(file)
            if page is None:
                suspect = position if suspect is None else suspect
                following = _next_page(encoded, position + 1)
                if following is None:
                    return OggPages(starts, damaged)
                position = following
                continue
            damaged = suspect if damaged is None else damaged
            if page[5] & FIRST_PAGE:
                # Streams that play together begin with pages that follow each other.
                if position != first_pages_end:
                    starts.append(position)
                first_pages_end = position + len(page)
            position += len(page)


def _page(file: io.BufferedIOBase) -> bytes | None:
    """Return the page that begins here, or None if it is not complete."""
    header = file.read(HEADER_BYTES)
    if len(header) < HEADER_BYTES or not header.startswith(b"OggS"):
        return None
    sizes = file.read(header[26])
    body = file.read(sum(sizes))
    if len(sizes) < header[26] or len(body) < sum(sizes):
        return None
    (stated,) = struct.unpack_from("<I", header, 22)
    found = _checksum(header[:22] + bytes(4) + header[26:] + sizes + body)
    return header + sizes + body if found == stated else None


def _checksum(data: bytes) -> int:
    """Return the checksum of Ogg, which is that of zlib with reversed bits and without inversion."""
    reflected = zlib.crc32(data.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{reflected:032b}"[::-1], 2)


def _next_page(encoded: Encoded, position: int) -> int | None:
    """Return the position of the next bytes that may begin a page."""
    with encoded.open() as file:
        file.seek(position)
        while block := file.read(1 << 20):
            found = block.find(b"OggS")
            if found >= 0:
                return position + found
            if len(block) < 4:
                return None
            position += len(block) - 3
            file.seek(position)
    return None

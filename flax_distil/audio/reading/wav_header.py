"""Repair WAV files whose header was never completed, because the recorder was killed or wrote to a pipe."""

import struct

from flax_distil.audio.reading.encoded import Encoded

HEADER_BYTES = 1 << 16
"""Number of bytes in which the chunks before the samples must lie."""

UNKNOWN_SIZE = 0xFFFFFFFF
"""What a header says where the length was not known; libsndfile then reads to the end of the file."""


def complete_wav(encoded: Encoded) -> Encoded:
    """Return a WAV file with a complete header; other files, and files with good headers, are unchanged.

    A size of 0 is taken for unknown where samples follow; in RF64 files so is one beyond the end.

    Source: Microsoft and IBM, "Multimedia Programming Interface and Data Specifications 1.0" (RIFF);
        EBU Tech 3306 (RF64).
    """
    head = encoded.head(HEADER_BYTES)
    if head[:4] not in (b"RIFF", b"RIFX", b"RF64", b"BW64") or head[8:12] != b"WAVE":
        return encoded
    order = ">" if head[:4] == b"RIFX" else "<"
    size = encoded.size
    sizes_64: int | None = None
    position = 12
    while position + 8 <= len(head):
        name, length = head[position : position + 4], struct.unpack_from(f"{order}I", head, position + 4)[0]
        samples = position + 8
        if name == b"ds64" and length >= 24 and samples + 24 <= len(head):
            sizes_64 = samples
        if name == b"data":
            patches: list[tuple[int, bytes]] = []
            if sizes_64 is not None:
                patches = _ds64_patch(head, sizes_64, size - samples, size)
            elif length == 0 and size > samples and not _chunks_follow(head, samples, size, order):
                patches = [(position + 4, struct.pack("<I", UNKNOWN_SIZE))]
            return Encoded(source=encoded.source, patches=tuple(patches)) if patches else encoded
        position = samples + length + length % 2
    return encoded


def _ds64_patch(head: bytes, position: int, remaining: int, size: int) -> list[tuple[int, bytes]]:
    stated = struct.unpack_from("<Q", head, position + 8)[0]
    if remaining > 0 and not 0 < stated <= remaining:
        return [(position, struct.pack("<QQQ", size - 8, remaining, 0))]
    return []


def _chunks_follow(head: bytes, position: int, size: int, order: str) -> bool:
    """Return whether chunks follow the samples up to the end of the file."""
    while position + 8 <= len(head):
        name, length = head[position : position + 4], struct.unpack_from(f"{order}I", head, position + 4)[0]
        if not name.isascii() or not name.decode("ascii").isprintable():
            return False
        position += 8 + length + length % 2
        if position >= size:
            return position - size <= 1
    return False

"""Encoded audio as a file object: all of it or a stretch of it, with a repaired header."""

import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HEAD_BYTES = 4096
"""Number of bytes that are read to see whether a file is text, and which kind of audio it holds."""

_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f\x7f]")
"""Bytes that no text holds, in UTF-8 or in any encoding of one byte per character."""

_TEXT_HEADER = b"NIST_1A"
"""NIST SPHERE is the one kind of audio file that begins with a page of text."""


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """A file of audio, or a stretch of it that is read as if it were a file of its own.

    Attributes:
        source: A file, or the contents of one.
        start: First byte.
        stop: Byte after the last; None for the end of the file.
        patches: Bytes that are read in place of those at an offset within the stretch.
    """

    source: Path | bytes
    start: int = 0
    stop: int | None = None
    patches: tuple[tuple[int, bytes], ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether it is the unchanged file."""
        return not self.start and self.stop is None and not self.patches

    @property
    def size(self) -> int:
        """Number of bytes."""
        whole = len(self.source) if isinstance(self.source, bytes) else self.source.stat().st_size
        return (whole if self.stop is None else min(self.stop, whole)) - self.start

    def open(self) -> io.BufferedIOBase:
        """Open it for reading; offsets begin with 0 at ``start``."""
        file: io.BufferedIOBase
        file = io.BytesIO(self.source) if isinstance(self.source, bytes) else self.source.open("rb")
        return file if self.is_whole else io.BufferedReader(_Stretch(file, self))

    def head(self, size: int = HEAD_BYTES) -> bytes:
        """Return its first bytes."""
        with self.open() as file:
            return file.read(size)


class _Stretch(io.RawIOBase):
    """A stretch of an open file, as a file."""

    def __init__(self, file: io.BufferedIOBase, encoded: Encoded):
        self._file, self._encoded, self._size = file, encoded, encoded.size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        wanted = max(0, min(len(buffer), self._size - self._at))
        self._file.seek(self._encoded.start + self._at)
        read = bytearray(self._file.read(wanted))
        for offset, patch in self._encoded.patches:
            for position, byte in enumerate(patch, offset - self._at):
                if 0 <= position < len(read):
                    read[position] = byte
        buffer[: len(read)] = read
        self._at += len(read)
        return len(read)

    def close(self) -> None:
        self._file.close()
        super().close()


def is_text(head: bytes) -> bool:
    """Return whether the first bytes of a file are text: a playlist, a list of addresses, a web page.

    Args:
        head: At most ``HEAD_BYTES`` from its beginning.
    """
    if head.startswith(_TEXT_HEADER):
        return False
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):  # as MPEG audio, layer I, may begin too
        text = head[: len(head) // 2 * 2].decode("utf-16", errors="replace")
        return all(character.isprintable() or character.isspace() for character in text[1:-1])
    return _CONTROL.search(head) is None


def without_id3(head: bytes) -> int:
    """Return where ID3 tags at the beginning of a file end; beyond ``head`` if one is longer."""
    start = 0
    while len(head) >= start + 10 and head[start : start + 3] == b"ID3":
        start += id3_size(head[start : start + 10])
    return start


def id3_size(header: bytes) -> int:
    """Return the size of an ID3v2 tag in bytes, from its first ten bytes.

    Source: ID3 tag version 2.4.0, main structure, section 3.1.
    """
    size = 0
    for byte in header[6:10]:
        size = size << 7 | byte & 0x7F
    return 10 + size + (10 if header[5] & 0x10 else 0)


def is_mpeg_audio(encoded: Encoded) -> bool:
    """Return whether a file is MPEG audio (MP3 and its older layers), by its first frame."""
    header = _behind_id3(encoded)
    # A frame begins with eleven set bits; the layer (two bits) is never 0, which is AAC's.
    return len(header) > 2 and header[0] == 0xFF and header[1] & 0xE0 == 0xE0 and header[1] & 0x06 != 0


def mpeg_tells_length(encoded: Encoded) -> bool:
    """Return whether the first frame of MPEG audio holds the length of the recording."""
    return any(name in _behind_id3(encoded) for name in (b"Xing", b"Info", b"VBRI"))


def _behind_id3(encoded: Encoded) -> bytes:
    """Return the first bytes of a file after its tags."""
    with encoded.open() as file:
        while True:
            position = file.tell()
            header = file.read(64)
            if not (len(header) >= 10 and header.startswith(b"ID3")):
                return header
            file.seek(position + id3_size(header))

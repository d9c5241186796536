"""Put decoded frames where they belong in time, so that a lost frame does not shift later ones."""

import io
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from flax_distil.audio.reading.readers import Damage, UnreadableError

TIMED = frozenset({"mov", "matroska", "webm", "ogg", "asf", "avi", "mpegts", "nut"})
"""Containers that keep the time of each packet, or of each page of them."""

BARE = frozenset({"mp3", "aac", "ac3", "eac3"})
"""Formats that consist of frames alone: bytes between frames, which FFmpeg skips silently, are damage."""

SEARCH_BYTES = 1 << 20
"""Number of bytes after a packet in which the next one is searched."""

COMPARED_BYTES = 64
"""Number of first bytes of a packet that are compared to find it in the file."""

TOLERANCE_SECONDS = 0.1
"""Time stamps of live recordings are off by some tens of milliseconds without anything being lost."""

LONGEST_GAP_SECONDS = 600.0
"""Where the length of a recording is not stated, a longer gap is taken for a wrong time stamp."""

JOIN_SECONDS = 0.5
"""Damaged parts that lie closer to each other are reported as one."""


class Silence(NamedTuple):
    """Silence that replaces lost samples."""

    samples: int


class Timeline:
    """Decodes packets and keeps track of the time.

    Containers store the time of their packets, and FLAC frames have numbers, so the length of what
    is lost is known to the sample. In bare streams of MP3 or AAC it follows from the number of bytes.

    Attributes:
        damage: What was lost so far.
    """

    def __init__(self, names: Sequence[str], stated: float | None, *, replace_damage: bool):
        """Begin.

        Args:
            names: FFmpeg's names of the container.
            stated: Seconds that the header states, if it does.
            replace_damage: Go on after what cannot be decoded.
        """
        self.damage: list[Damage] = []
        self._timed = bool(TIMED.intersection(names))
        self._bare = bool(BARE.intersection(names))
        self._mpeg = "mp3" in names
        self._stated, self._replace = stated, replace_damage
        self._samples = 0
        self._origin: int | None = None
        self._rate = 0
        self._failed: list[tuple[int, Exception]] = []
        self._bytes = self._packets = self._failures = 0
        self._block = 0

    def frames(self, container: Any, stream: Any, file: io.BufferedIOBase) -> Iterator[Any]:
        """Yield frames and silences; the first is a frame.

        Args:
            container: Open, of PyAV.
            stream: Which of its streams.
            file: What it is read from, opened once more.

        Raises:
            UnreadableError: If it is damaged and that is not to be replaced, or most of it is damaged.
            av.FFmpegError: As PyAV raises it, in the same cases.
        """
        flac = stream.codec_context.name == "flac" and not self._timed
        finder = _PacketFinder(file if self._bare else None)
        for packet in self._packets_of(container, stream):
            skipped = finder.skipped(packet)
            if skipped:
                self._fail(skipped, UnreadableError(f"{skipped} bytes of it are damaged"))
            decoded = self._decode(packet)
            for frame in decoded:
                number = _flac_sample(bytes(packet)[:16], self._block or frame.samples) if flac else None
                yield from self._place(frame, number)
            if decoded:
                self._bytes += packet.size
                self._packets += 1
        self._end()

    def _packets_of(self, container: Any, stream: Any) -> Iterator[Any]:
        import av

        try:
            yield from container.demux(stream)
        except av.InvalidDataError as error:  # there is no going on after it
            self._fail(0, error)

    def _decode(self, packet: Any) -> list[Any]:
        import av

        try:
            return list(packet.decode())
        except av.EOFError:
            return []
        except (av.InvalidDataError, av.PatchWelcomeError) as error:
            self._fail(packet.size, error)
            return []

    def _fail(self, size: int, error: Exception) -> None:
        self._failed.append((size, error))
        self._failures += 1
        # Bytes around the frames of MP3 are no damage: tags, pictures, and what a cut file ends with.
        if not (self._replace or self._mpeg):
            raise error

    def _place(self, frame: Any, number: int | None) -> Iterator[Any]:
        first = not self._samples
        self._rate, self._block = frame.sample_rate, self._block or frame.samples
        if self._failed and not first and not self._replace:
            raise self._failed[0][1]
        lost = 0 if first else self._lost(frame, number)
        if first:
            start = number if number is not None else self._time(frame)
            self._origin = 0 if number is not None else start
        if lost:
            if number is not None and not self._replace:
                raise UnreadableError(f"{lost / self._rate:.2f} s of it are damaged")
            yield Silence(lost)
        if (self._failed and not first) or lost:
            self._note(self._samples / self._rate, lost / self._rate)
        self._samples += lost + frame.samples
        self._failed = []
        yield frame

    def _time(self, frame: Any) -> int | None:
        if not self._timed or frame.pts is None or frame.time_base is None:
            return None
        return round(frame.pts * frame.time_base * frame.sample_rate)

    def _lost(self, frame: Any, number: int | None) -> int:
        """Return how many samples are missing before a frame."""
        start = number if number is not None else self._time(frame)
        if start is None or self._origin is None:
            mean = self._bytes / max(1, self._packets)
            return sum(max(1, round(size / mean)) for size, _ in self._failed if size) * frame.samples
        gap = start - self._origin - self._samples
        certain = self._failed or number is not None
        least = frame.samples / 2 if certain else TOLERANCE_SECONDS * self._rate
        most = LONGEST_GAP_SECONDS * self._rate
        if self._stated is not None:
            most = (self._stated + 1) * self._rate - self._samples
        return gap if least < gap < most else 0

    def _note(self, start: float, seconds: float) -> None:
        last = self.damage[-1] if self.damage else None
        if last is not None and start - (last.start + last.seconds) < JOIN_SECONDS:
            start, seconds = last.start, start + seconds - last.start
            self.damage.pop()
        self.damage.append(Damage(start, seconds))

    def _end(self) -> None:
        if self._failures > self._packets:
            raise self._failed[0][1] if self._failed else UnreadableError("most of it is damaged")
        if self._failed and self._replace and not self._mpeg:
            self._note(self._samples / self._rate, 0.0)


class _PacketFinder:
    """Finds the packets of a file in its bytes, since FFmpeg skips damaged bytes silently."""

    def __init__(self, file: io.BufferedIOBase | None):
        self._file = file
        self._at = 0

    def skipped(self, packet: Any) -> int:
        """Return how many bytes lie between the packet before and this one; 0 before the first."""
        if self._file is None or not packet.size:
            return 0
        begin = bytes(packet)[:COMPARED_BYTES]
        self._file.seek(self._at)
        if self._at and self._file.read(len(begin)) == begin:
            self._at += packet.size
            return 0
        self._file.seek(self._at)
        gap = self._file.read(SEARCH_BYTES).find(begin)
        if gap < 0:  # packets are not as they lie in the file
            self._file = None
            return 0
        first = not self._at
        self._at += gap + packet.size
        return 0 if first else gap


def _flac_sample(header: bytes, samples: int) -> int | None:
    """Return the number of the first sample of a FLAC frame, by its header.

    Args:
        header: First bytes of the frame.
        samples: Samples of a frame, of which all but the last are of one size where frames are numbered.

    Source: RFC 9639, section 9.1.
    """
    if len(header) < 12 or header[0] != 0xFF or header[1] & 0xFC != 0xF8:
        return None
    lead = header[4]
    length = 1 if lead < 0x80 else 8 - (lead ^ 0xFF).bit_length()
    number = lead if length == 1 else lead & (0x7F >> length)
    for byte in header[5 : 4 + length]:
        number = number << 6 | byte & 0x3F
    return number if header[1] & 1 else number * samples

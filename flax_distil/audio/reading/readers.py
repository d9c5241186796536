"""Two ways to read encoded audio: libsndfile, and FFmpeg's libraries through PyAV.

libsndfile is the first choice: it is quick and exact for WAV, FLAC and Ogg. PyAV reads the rest: MP3,
M4A and other containers of video, AAC, headerless bitstreams such as G.722. Both come inside their
wheels, so no system FFmpeg is needed.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
import soxr

from flax_distil.audio.reading.encoded import Encoded
from flax_distil.core.arrays import Float

BLOCK_SAMPLES = 1 << 18
"""Samples of all channels together that are read at a time, so that memory is bounded."""

UNKNOWN_FRAMES = 1 << 62
"""libsndfile reports 2^63 - 1 frames when the header leaves the length open."""

RATES = range(1_000, 2_000_000)
"""Samples per second that a recording of speech may have; others stand in damaged headers."""


class Damage(NamedTuple):
    """A stretch of a recording that cannot be decoded.

    Attributes:
        start: Where it begins, in seconds.
        seconds: How much is lost and was replaced by silence; 0 where that is not known.
    """

    start: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class AudioStream:
    """An open recording, read from front to back.

    Attributes:
        encoding: How it is encoded, such as ``FLAC PCM_16``, in the words of its reader.
        rate: Samples per second.
        channels: Number of channels.
        seconds: Length according to the header; None where it does not tell.
        blocks: float32 samples ``[W, C]``, some at a time; read once.
        damage: What was replaced by silence in the blocks so far.
    """

    encoding: str
    rate: int
    channels: int
    seconds: float | None
    blocks: Iterator[Float[np.ndarray, "_ _"]]
    damage: list[Damage] = field(default_factory=list)


class UnreadableError(Exception):
    """A reader cannot decode a recording; the message is the reason, as a part of a sentence."""


Opener = Callable[[Encoded], AbstractContextManager[AudioStream]]


@contextlib.contextmanager
def open_with_soundfile(encoded: Encoded) -> Iterator[AudioStream]:
    """Open WAV, FLAC, Ogg Vorbis, Ogg Opus, AIFF and the like.

    Raises:
        UnreadableError: If libsndfile does not know the format, cannot tell the end of it, or,
            while blocks are read, it is damaged.
    """
    with sound_file(encoded) as sound:
        if sound.frames > UNKNOWN_FRAMES:  # it would stumble over the end
            raise UnreadableError("its header does not tell its length")
        if sound.format == "MP3" or sound.subtype.startswith("MPEG"):  # libmpg123 writes to the terminal
            raise UnreadableError("it is MPEG audio")
        yield AudioStream(
            encoding=f"{sound.format} {sound.subtype}",
            rate=check_rate(sound.samplerate),
            channels=sound.channels,
            seconds=sound.frames / sound.samplerate if sound.frames else None,
            blocks=_soundfile_blocks(sound),
        )


@contextlib.contextmanager
def open_joined(parts: Sequence[Encoded], open_one: Opener) -> Iterator[AudioStream]:
    """Open the concatenated streams of a file as one stream, at the rate of the first.

    Args:
        parts: At least one.
        open_one: Opens one of them.

    Raises:
        UnreadableError: As ``open_one``, when it is opened or while blocks are read.
    """
    if len(parts) == 1:
        with open_one(parts[0]) as stream:
            yield stream
        return
    known: list[float | None] = []
    for part in parts:
        with open_one(part) as stream:
            known.append(stream.seconds)
    with open_one(parts[0]) as first:
        damage: list[Damage] = []
        yield AudioStream(
            encoding=first.encoding,
            rate=first.rate,
            channels=first.channels,
            seconds=None if None in known else sum(seconds or 0.0 for seconds in known),
            blocks=_concatenate_blocks(first, parts[1:], open_one, damage),
            damage=damage,
        )


def check_rate(rate: int) -> int:
    """Return a sampling rate, or raise ``UnreadableError`` if no recording has it."""
    if rate not in RATES:
        raise UnreadableError(f"its header says {rate} samples per second")
    return rate


def _concatenate_blocks(
    first: AudioStream, others: Sequence[Encoded], open_one: Opener, damage: list[Damage]
) -> Iterator[Float[np.ndarray, "_ _"]]:
    frames = 0
    with contextlib.ExitStack() as stack:
        for part in [None, *others]:
            stream, begin = first, frames / first.rate
            if part is not None:
                stack.close()
                stream = stack.enter_context(open_one(part))
            for block_WC in _resample(stream, first.rate):
                frames += len(block_WC)
                yield block_WC
            damage += [Damage(begin + place.start, place.seconds) for place in stream.damage]


def _resample(stream: AudioStream, rate: int) -> Iterator[Float[np.ndarray, "_ _"]]:
    if stream.rate == rate:
        yield from stream.blocks
        return
    resampler = soxr.ResampleStream(stream.rate, rate, stream.channels, dtype="float32", quality="HQ")
    for block_WC in stream.blocks:
        yield resampler.resample_chunk(block_WC).reshape(-1, stream.channels)
    rest = np.zeros((0, stream.channels), np.float32)
    yield resampler.resample_chunk(rest, last=True).reshape(-1, stream.channels)


def _soundfile_blocks(sound: soundfile.SoundFile) -> Iterator[Float[np.ndarray, "_ _"]]:
    frames = max(1, BLOCK_SAMPLES // sound.channels)
    while len(block_WC := sound.read(frames, dtype="float32", always_2d=True)):
        yield block_WC


def _is_plain(path: Path) -> bool:
    """Return whether libsndfile may see a name: it takes every name in .mp3 for MP3, and reads only UTF-8."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return path.suffix.lower() != ".mp3"


@contextlib.contextmanager
def sound_file(encoded: Encoded) -> Iterator[soundfile.SoundFile]:
    """Open a file with libsndfile; its errors become ``UnreadableError``."""
    with contextlib.ExitStack() as stack:
        file: Any = encoded.source
        if isinstance(file, bytes) or not encoded.is_whole or not _is_plain(file):
            file = stack.enter_context(encoded.open())
        try:
            yield stack.enter_context(soundfile.SoundFile(file))
        except soundfile.LibsndfileError as error:
            raise UnreadableError(error.error_string.rstrip(".").lower()) from error
        except TypeError as error:  # what soundfile raises for a name that ends in ".raw"
            raise UnreadableError(str(error)) from error

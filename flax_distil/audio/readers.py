"""Two ways to read encoded audio: libsndfile, and FFmpeg's libraries through PyAV.

libsndfile is the first choice: it is quick and exact for WAV, FLAC, MP3 and Ogg. PyAV reads
the rest: M4A and other containers of video, AAC, headerless bitstreams such as G.722. Both
come inside their wheels, so no system FFmpeg is needed.
"""

import contextlib
import io
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from flax_distil.core import Float, InputError

Encoded = Path | bytes
"""A file, or the contents of one."""

BLOCK_SAMPLES = 1 << 18
"""Samples of all channels together that are mixed to mono at a time: wide recordings never lie in memory."""

UNKNOWN_FRAMES = 1 << 62
"""libsndfile reports 2^63 - 1 frames when the header leaves the length open."""

TIMED_CONTAINERS = frozenset({"mov", "matroska", "g722"})
"""Containers whose stated duration is exact; FFmpeg guesses the others' from their bit rate."""


@dataclass(frozen=True, kw_only=True)
class MonoStream:
    """An open recording, read from front to back.

    Attributes:
        encoding: How it is encoded, such as ``FLAC PCM_16``, in the words of its reader.
        rate: Samples per second.
        channels: Number of channels.
        seconds: Length according to the header; None where it does not tell.
        blocks: Mono float32 samples (mean of the channels), some at a time; read once.
    """

    encoding: str
    rate: int
    channels: int
    seconds: float | None
    blocks: Iterator[Float[np.ndarray, " _"]]


class UnreadableError(Exception):
    """A reader cannot make samples of this; the message is the reason, as half a sentence."""


@contextlib.contextmanager
def open_with_soundfile(source: Encoded) -> Iterator[MonoStream]:
    """Open WAV, FLAC, MP3, Ogg Vorbis, Ogg Opus, AIFF and the like.

    Raises:
        UnreadableError: if libsndfile does not know the format, cannot tell the end of it, or,
            while blocks are read, it is damaged.
    """
    with _soundfile(source) as sound:
        if sound.frames > UNKNOWN_FRAMES:  # it would stumble over the end
            raise UnreadableError("its header does not tell its length")
        yield MonoStream(
            encoding=f"{sound.format} {sound.subtype}",
            rate=sound.samplerate,
            channels=sound.channels,
            seconds=sound.frames / sound.samplerate if sound.frames else None,
            blocks=_soundfile_blocks(sound),
        )


@contextlib.contextmanager
def open_with_pyav(source: Encoded, *, format: str | None = None) -> Iterator[MonoStream]:
    """Open the first audio stream of anything that FFmpeg's libraries know.

    Args:
        source: a file, or its contents.
        format: FFmpeg's name of the format; needed where nothing in the bytes tells it.

    Raises:
        UnreadableError: if there is no audio in it, or it is damaged; also while blocks are read.
    """
    with _pyav_container(source, format) as (container, stream):
        exact = TIMED_CONTAINERS.intersection(container.format.name.split(","))
        frames = container.decode(stream)
        first = next(frames, None)
        if first is None:
            raise UnreadableError("it holds no samples")
        yield MonoStream(
            encoding=f"{container.format.name} {stream.codec_context.name}",
            channels=first.layout.nb_channels,
            rate=first.sample_rate,  # not the container's: a decoder may double that (HE-AAC)
            seconds=float(stream.duration * stream.time_base) if exact and stream.duration else None,
            blocks=_pyav_blocks(first, frames),
        )


def _soundfile_blocks(sound: soundfile.SoundFile) -> Iterator[Float[np.ndarray, " _"]]:
    frames = max(1, BLOCK_SAMPLES // sound.channels)
    while len(block_WC := sound.read(frames, dtype="float32", always_2d=True)):
        yield block_WC.mean(axis=1)


def _pyav_blocks(first: Any, others: Iterator[Any]) -> Iterator[Float[np.ndarray, " _"]]:
    import av

    resampler = av.AudioResampler("fltp", first.layout, first.sample_rate)
    # The last, None, has the resampler hand out what it still holds; PyAV does so with the decoder.
    gathered, size = [], 0
    for frame in itertools.chain([first], others, [None]):
        for part in resampler.resample(frame):
            gathered.append(part.to_ndarray().mean(axis=0))
            size += len(gathered[-1])
        if size >= BLOCK_SAMPLES or (frame is None and gathered):
            yield np.concatenate(gathered)
            gathered, size = [], 0


@contextlib.contextmanager
def _soundfile(source: Encoded) -> Iterator[soundfile.SoundFile]:
    try:
        with soundfile.SoundFile(io.BytesIO(source) if isinstance(source, bytes) else source) as sound:
            yield sound
    except soundfile.LibsndfileError as error:
        raise UnreadableError(error.error_string.rstrip(".").lower()) from error
    except TypeError as error:  # what soundfile raises for a name that ends in ".raw"
        raise UnreadableError(str(error)) from error


@contextlib.contextmanager
def _pyav_container(source: Encoded, format: str | None) -> Iterator[tuple[Any, Any]]:
    """Open a container and its first audio stream; failures, reading included, become one error."""
    import av

    # An absolute path cannot be taken for one of FFmpeg's protocols ("concat:…").
    file = io.BytesIO(source) if isinstance(source, bytes) else str(source.absolute())
    try:
        with av.open(file, format=format) as container:
            if not container.streams.audio:
                raise UnreadableError("it holds no audio stream")
            yield container, container.streams.audio[0]
    except InputError:  # a ValueError too: the caller's own verdict on what was read
        raise
    except av.FFmpegError as error:
        raise UnreadableError((error.strerror or str(error)).lower()) from error
    except ValueError as error:  # an unknown format name, or channels that change half-way
        raise UnreadableError(str(error)) from error

"""Two ways to read encoded audio: libsndfile, and FFmpeg's libraries through PyAV.

libsndfile is the first choice: it is quick and exact for WAV, FLAC, MP3 and Ogg. PyAV reads
the rest: M4A and other containers of video, AAC, headerless bitstreams such as G.722. Both
come inside their wheels, so no system FFmpeg is needed.
"""

import contextlib
import io
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from flax_distil.core import Float

Encoded = Path | bytes
"""A file, or the contents of one."""

BLOCK_FRAMES = 1 << 18
"""Sample frames mixed to mono at a time: long stereo recordings never lie in memory as stereo."""

UNKNOWN_FRAMES = 1 << 62
"""libsndfile reports 2^63 - 1 frames when the header leaves the length open."""

TIMED_CONTAINERS = frozenset({"mov", "matroska", "g722"})
"""Containers whose stated duration is exact; FFmpeg guesses the others' from their bit rate."""


class UnreadableError(Exception):
    """A reader cannot make samples of this; the message is the reason, as half a sentence."""


def read_with_soundfile(source: Encoded) -> tuple[Float[np.ndarray, " W"], int]:
    """Read WAV, FLAC, MP3, Ogg Vorbis, Ogg Opus, AIFF and the like.

    Returns:
        Mono float32 samples (mean of the channels), and their rate in Hz.

    Raises:
        UnreadableError: if libsndfile does not know the format.
    """
    with _soundfile(source) as sound:
        blocks = []
        while len(block_WC := sound.read(BLOCK_FRAMES, dtype="float32", always_2d=True)):
            blocks.append(block_WC.mean(axis=1))
        return _joined(blocks), sound.samplerate


def read_with_pyav(source: Encoded, *, format: str | None = None) -> tuple[Float[np.ndarray, " W"], int]:
    """Read the first audio stream of anything that FFmpeg's libraries know.

    Args:
        source: a file, or its contents.
        format: FFmpeg's name of the format; needed where nothing in the bytes tells it.

    Returns:
        Mono float32 samples (mean of the channels), and their rate in Hz.

    Raises:
        UnreadableError: if there is no audio in it, or it is damaged.
    """
    import av

    with _pyav_container(source, format) as (container, stream):
        resampler: Any = None
        blocks = []
        # The last, None, has the resampler hand out what it still holds; PyAV does so with the decoder.
        for frame in itertools.chain(container.decode(stream), [None]):
            if resampler is None:
                if frame is None:
                    break
                resampler = av.AudioResampler("fltp", frame.layout, frame.sample_rate)
            blocks += [part.to_ndarray().mean(axis=0) for part in resampler.resample(frame)]
        return _joined(blocks), resampler.rate if resampler else stream.rate


def duration_with_soundfile(source: Encoded) -> float | None:
    """Seconds according to the header, or None where it does not tell.

    Raises:
        UnreadableError: if libsndfile does not know the format.
    """
    with _soundfile(source) as sound:
        return sound.frames / sound.samplerate if 0 < sound.frames < UNKNOWN_FRAMES else None


def duration_with_pyav(source: Encoded, *, format: str | None = None) -> float | None:
    """Seconds according to the container, or None where it does not tell or FFmpeg would guess.

    Raises:
        UnreadableError: if there is no audio in it.
    """
    with _pyav_container(source, format) as (container, stream):
        exact = TIMED_CONTAINERS.intersection(container.format.name.split(","))
        if not exact or not stream.duration:
            return None
        return float(stream.duration * stream.time_base)


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
    except av.FFmpegError as error:
        raise UnreadableError((error.strerror or str(error)).lower()) from error
    except ValueError as error:  # an unknown format name, or channels that change half-way
        raise UnreadableError(str(error)) from error


def _joined(blocks: list[np.ndarray]) -> Float[np.ndarray, " W"]:
    return np.concatenate(blocks) if blocks else np.zeros(0, np.float32)

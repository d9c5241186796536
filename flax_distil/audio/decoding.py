"""Encoded audio of any kind becomes 16 kHz mono samples, or an error that says why not."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import soxr

from flax_distil.audio.constants import SAMPLING_RATE
from flax_distil.audio.readers import (
    Encoded,
    UnreadableError,
    duration_with_pyav,
    duration_with_soundfile,
    read_with_pyav,
    read_with_soundfile,
)
from flax_distil.core import Float, InputError

T = TypeVar("T")

RAW_FORMATS = {".g722": "g722"}
"""Headerless bitstreams: only the name tells what they are."""

LOUDEST = 16.0
"""Floating-point files may exceed full scale (1.0) a little; far beyond it they hold unscaled integers."""


class AudioError(InputError):
    """A recording that gives no usable samples; the message names it and the reason."""


def raw_format(name: str | Path) -> str | None:
    """Name the headerless format that a file name stands for, or None if the file tells itself.

    Args:
        name: a file name or path; it need not exist. Use it where only the bytes are at
            hand and their origin is known: ``decode_audio(data, format=raw_format(path))``.

    Returns:
        ``"g722"`` for names ending in ``.g722``, else None.
    """
    return RAW_FORMATS.get(Path(name).suffix.lower())


def decode_audio(source: str | Path | bytes, *, format: str | None = None) -> Float[np.ndarray, " W"]:
    """Decode a recording to 16 kHz mono.

    WAV, FLAC, MP3, Ogg Vorbis, Ogg Opus, M4A, G.722 and whatever else libsndfile or
    FFmpeg's libraries read; any rate, any number of channels (their mean is taken).
    Resampling is soxr's HQ. Of files that were cut short, WAV, MP3 and Ogg give what is
    left; those whose reader notices (FLAC, M4A, bare AAC) are refused.

    Args:
        source: a path, or the contents of a file.
        format: FFmpeg's name of the format, for bytes without a header
            (``"g722"``: 64 kbit/s, 16 kHz). A path that ends in ``.g722`` needs none.

    Returns:
        float32 ``[W]``, 16 kHz, in [-1, 1] (what overshoots is clipped); at least one sample.

    Raises:
        AudioError: if it is missing, empty, unreadable, holds no samples,
            or holds NaN, infinite or unscaled integer samples.
    """
    encoded, name, format = _prepared(source, format)
    samples_W, rate = _read(encoded, name, format)
    if not np.isfinite(samples_W).all():
        raise AudioError(
            f"cannot use {name}: it holds NaN or infinite samples; make it again from its source"
        )
    peak = float(np.abs(samples_W).max())
    if peak > LOUDEST:
        raise AudioError(
            f"cannot use {name}: its floating-point samples reach {peak:g} where full scale is 1;"
            " divide them by the range of the integers they came from"
        )
    if rate != SAMPLING_RATE:
        samples_W = soxr.resample(samples_W, rate, SAMPLING_RATE, quality="HQ")
    if not len(samples_W):
        raise AudioError(_no_samples(name))
    return np.clip(samples_W, -1.0, 1.0, dtype=np.float32)


def audio_duration(source: str | Path | bytes, *, format: str | None = None) -> float:
    """Measure a recording, from its header where that can be trusted, else by decoding it.

    Args:
        source: a path, or the contents of a file.
        format: as for :func:`decode_audio`.

    Returns:
        Seconds. Of an M4A file it is the container's figure, which may differ from the
        decoded samples by some frames of the codec (tens of milliseconds).

    Raises:
        AudioError: if it is missing, empty or unreadable.
    """
    encoded, name, format = _prepared(source, format)
    try:
        seconds = duration_with_pyav(encoded, format=format) if format else _stated_duration(encoded)
    except UnreadableError as error:
        raise AudioError(_unreadable(name, str(error))) from error
    if seconds is None:
        samples_W, rate = _read(encoded, name, format)
        seconds = len(samples_W) / rate
    return seconds


def _stated_duration(encoded: Encoded) -> float | None:
    try:
        return duration_with_soundfile(encoded)
    except UnreadableError as error:
        return _pyav_after(error, lambda: duration_with_pyav(encoded))


def _pyav_after(first: UnreadableError, read: Callable[[], T]) -> T:
    """Try FFmpeg after libsndfile; where both fail, either may hold the reason the user needs."""
    try:
        return read()
    except UnreadableError as second:
        raise UnreadableError(f"libsndfile says '{first}', FFmpeg says '{second}'") from second


def _prepared(source: str | Path | bytes, format: str | None) -> tuple[Encoded, str, str | None]:
    """Check what can be checked without a decoder; give the source a name for error messages."""
    if isinstance(source, bytes):
        if not source:
            raise AudioError("cannot read audio given as bytes: it has 0 bytes; check where it came from")
        return source, f"audio given as {len(source)} bytes", format
    path = Path(source)
    if path.is_dir():
        raise AudioError(f"cannot read audio file '{path}': it is a folder; name the files in it")
    if not path.exists():
        raise AudioError(f"cannot read audio file '{path}': it does not exist; check the path")
    if path.stat().st_size == 0:
        raise AudioError(f"cannot read audio file '{path}': it is empty (0 bytes); fetch or write it again")
    return path, f"audio file '{path}'", format or raw_format(path)


def _read(encoded: Encoded, name: str, format: str | None) -> tuple[Float[np.ndarray, " W"], int]:
    """Let libsndfile try first, unless the format was named; FFmpeg has the last word."""
    try:
        samples_W, rate = _first_that_reads(encoded, format)
    except UnreadableError as error:
        raise AudioError(_unreadable(name, str(error))) from error
    if not len(samples_W):
        raise AudioError(_no_samples(name))
    return samples_W, rate


def _first_that_reads(encoded: Encoded, format: str | None) -> tuple[Float[np.ndarray, " W"], int]:
    if format:
        return read_with_pyav(encoded, format=format)
    try:
        return read_with_soundfile(encoded)
    except UnreadableError as error:
        return _pyav_after(error, lambda: read_with_pyav(encoded))


def _unreadable(name: str, reason: str) -> str:
    return f"cannot read {name}: {reason}; convert it to WAV or FLAC, or leave it out"


def _no_samples(name: str) -> str:
    return f"cannot use {name}: it holds no samples; leave it out"

"""Encoded audio of any kind becomes 16 kHz mono samples, or an error that says why not."""

import contextlib
import math
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
import soxr

from flax_distil.audio.constants import SAMPLING_RATE
from flax_distil.audio.readers import (
    Encoded,
    MonoStream,
    UnreadableError,
    open_with_pyav,
    open_with_soundfile,
)
from flax_distil.core import Float, InputError

T = TypeVar("T")

RAW_FORMATS = {".g722": "g722"}
"""Headerless bitstreams: only the name tells what they are."""

LOUDEST = 16.0
"""Floating-point files may exceed full scale (1.0) a little; far beyond it they hold unscaled integers."""

HEADER_SLACK_SECONDS = 1.0
"""A codec pads its last frame, so a header may state a little more than is decoded."""

NO_FILE = "whose audio file cannot be opened"
EMPTY = "with empty audio"
UNREADABLE = "with unreadable audio"
BAD_VALUES = "with impossible sample values"
TOO_LONG = "too long"


class AudioError(InputError):
    """A recording that gives no usable samples; the message names it and the reason.

    Args:
        kind: A few words to count by, one of the constants of this file.
        message: One sentence.
    """

    def __init__(self, kind: str, message: str):
        super().__init__(message)
        self.kind = kind


class LongAudioError(AudioError):
    """A recording that was refused for its length.

    Args:
        name: What to call the recording.
        length: Its length as far as it is known, such as ``"10800.00 s"`` or ``"more than 31.07 s"``.
        max_seconds: Longest allowed.
    """

    def __init__(self, name: str, length: str, max_seconds: float):
        super().__init__(
            TOO_LONG, f"cannot use {name}: it lasts {length}, and at most {max_seconds:g} s are taken; cut it"
        )
        self.length = length


def raw_format(name: str | Path) -> str | None:
    """Name the headerless format that a file name stands for, or None if the file tells itself.

    Args:
        name: a file name or path; it need not exist. Use it where only the bytes are at
            hand and their origin is known: ``decode_audio(data, format=raw_format(path))``.

    Returns:
        ``"g722"`` for names ending in ``.g722``, else None.
    """
    return RAW_FORMATS.get(Path(name).suffix.lower())


def decode_audio(
    source: str | Path | bytes, *, format: str | None = None, max_seconds: float | None = None
) -> Float[np.ndarray, " W"]:
    """Decode a recording to 16 kHz mono.

    WAV, FLAC, MP3, Ogg Vorbis, Ogg Opus, M4A, G.722 and whatever else libsndfile or
    FFmpeg's libraries read; any rate, any number of channels (their mean is taken).
    Resampling is soxr's HQ. Of files that were cut short, WAV, MP3 and Ogg give what is
    left; those whose reader notices (FLAC, M4A, bare AAC) are refused.

    Args:
        source: a path, or the contents of a file.
        format: FFmpeg's name of the format, for bytes without a header
            (``"g722"``: 64 kbit/s, 16 kHz). A path that ends in ``.g722`` needs none.
        max_seconds: a recording that is clearly longer (by more than a second) is refused: by its
            header before anything is decoded, or else as soon as so much was decoded.

    Returns:
        float32 ``[W]``, 16 kHz, in [-1, 1] (what overshoots is clipped); at least one sample.

    Raises:
        AudioError: if it is missing, empty, unreadable, too long, holds no samples,
            or holds NaN, infinite or unscaled integer samples.
    """
    encoded, name, format = _prepared(source, format)
    samples_W, rate = _with_any_reader(encoded, name, format, lambda stream: _read(stream, name, max_seconds))
    if rate != SAMPLING_RATE:
        samples_W = soxr.resample(samples_W, rate, SAMPLING_RATE, quality="HQ")
    if not len(samples_W):
        raise _no_samples(name)
    return np.clip(samples_W, -1.0, 1.0, dtype=np.float32)


@contextlib.contextmanager
def open_audio(
    source: str | Path | bytes, *, format: str | None = None
) -> Iterator[Iterator[Float[np.ndarray, " _"]]]:
    """Open a recording of any length, to be read in blocks: memory does not grow with it.

    Args:
        source: a path, or the contents of a file.
        format: as for :func:`decode_audio`.

    Yields:
        An iterator over float32 blocks of some seconds; joined they are what :func:`decode_audio`
        gives, but for rounding where the rate is not 16 kHz.

    Raises:
        AudioError: as :func:`decode_audio`, when it is opened or while blocks are read.
    """
    encoded, name, format = _prepared(source, format)
    try:
        with _opened(encoded, format) as stream:
            yield _at_sampling_rate(stream, name)
    except UnreadableError as error:
        raise _unreadable(name, str(error)) from error


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
    seconds = _with_any_reader(encoded, name, format, _measured)
    if not seconds:
        raise _no_samples(name)
    return seconds


def audio_encoding(source: str | Path | bytes, *, format: str | None = None) -> str:
    """Describe how a recording is encoded, by its header.

    Args:
        source: a path, or the contents of a file.
        format: as for :func:`decode_audio`.

    Returns:
        Such as ``FLAC PCM_16, 16000 Hz, 1 channel``.

    Raises:
        AudioError: if it is missing, empty or unreadable.
    """

    def described(stream: MonoStream) -> str:
        channels = "1 channel" if stream.channels == 1 else f"{stream.channels} channels"
        return f"{stream.encoding}, {stream.rate} Hz, {channels}"

    return _with_any_reader(*_prepared(source, format), described)


def lasts_longer_than(seconds: float, source: str | Path | bytes, *, format: str | None = None) -> bool:
    """Tell whether a recording is longer, from its header, or else by decoding no more than is needed.

    Args:
        seconds: The length to compare with.
        source: a path, or the contents of a file.
        format: as for :func:`decode_audio`.

    Raises:
        AudioError: if it is missing, empty or unreadable.
    """
    encoded, name, format = _prepared(source, format)
    return _with_any_reader(encoded, name, format, lambda stream: _measured(stream, enough=seconds) > seconds)


def _prepared(source: str | Path | bytes, format: str | None) -> tuple[Encoded, str, str | None]:
    """Check what can be checked without a decoder; give the source a name for error messages."""
    if isinstance(source, bytes):
        if not source:
            raise AudioError(
                EMPTY, "cannot read audio given as bytes: it has 0 bytes; check where it came from"
            )
        return source, f"audio given as {len(source)} bytes", format
    path = Path(source)
    _check_file(path)
    return path, f"audio file '{path}'", format or raw_format(path)


def _check_file(path: Path) -> None:
    def refused(reason: str) -> AudioError:
        return AudioError(NO_FILE, f"cannot read audio file '{path}': {reason}")

    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise refused("it is a folder; name the files in it")
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
            raise refused("it is no regular file; copy its contents to one")
        path.open("rb").close()
    except FileNotFoundError as error:
        raise refused("it does not exist; check the path") from error
    except PermissionError as error:
        raise refused("there is no permission to read it; change its mode, or that of its folder") from error
    except OSError as error:
        raise refused(f"{(error.strerror or str(error)).lower()}; check the path") from error
    if status.st_size == 0:
        raise AudioError(
            EMPTY, f"cannot read audio file '{path}': it is empty (0 bytes); fetch or write it again"
        )


def _with_any_reader(encoded: Encoded, name: str, format: str | None, use: Callable[[MonoStream], T]) -> T:
    """Let libsndfile try first, unless the format was named; FFmpeg has the last word."""

    def with_pyav() -> T:
        with open_with_pyav(encoded, format=format) as stream:
            return use(stream)

    try:
        if format:
            return with_pyav()
        try:
            with open_with_soundfile(encoded) as stream:
                return use(stream)
        except UnreadableError as error:
            return _pyav_after(error, with_pyav)
    except UnreadableError as error:
        raise _unreadable(name, str(error)) from error


@contextlib.contextmanager
def _opened(encoded: Encoded, format: str | None) -> Iterator[MonoStream]:
    """Open with the first reader that can; once blocks were read it is too late for the other."""
    with contextlib.ExitStack() as stack:

        def with_pyav() -> MonoStream:
            return stack.enter_context(open_with_pyav(encoded, format=format))

        if format:
            stream = with_pyav()
        else:
            try:
                stream = stack.enter_context(open_with_soundfile(encoded))
            except UnreadableError as error:
                stream = _pyav_after(error, with_pyav)
        yield stream


def _pyav_after(first: UnreadableError, read: Callable[[], T]) -> T:
    """Try FFmpeg after libsndfile; where both fail, either may hold the reason the user needs."""
    try:
        return read()
    except UnreadableError as second:
        raise UnreadableError(f"libsndfile says '{first}', FFmpeg says '{second}'") from second


def _read(stream: MonoStream, name: str, max_seconds: float | None) -> tuple[Float[np.ndarray, " W"], int]:
    """Return all samples and their rate, unless they are known to be too many."""
    allowed = math.inf if max_seconds is None else max_seconds
    limit = allowed + HEADER_SLACK_SECONDS
    if stream.seconds is not None and stream.seconds > limit:
        raise LongAudioError(name, f"{stream.seconds:.2f} s", allowed)
    blocks, frames = [], 0
    for block in stream.blocks:
        _check_values(block, name)
        blocks.append(block)
        frames += len(block)
        if frames > limit * stream.rate:
            raise LongAudioError(name, f"more than {limit:.2f} s", allowed)
    if not frames:
        raise _no_samples(name)
    return np.concatenate(blocks), stream.rate


def _measured(stream: MonoStream, *, enough: float = math.inf) -> float:
    """Return seconds, by the header or by decoding; in that case no further than to ``enough``."""
    if stream.seconds is not None:
        return stream.seconds
    frames = 0
    for block in stream.blocks:
        frames += len(block)
        if frames > enough * stream.rate:
            break
    return frames / stream.rate


def _at_sampling_rate(stream: MonoStream, name: str) -> Iterator[Float[np.ndarray, " _"]]:
    resampler = (
        None
        if stream.rate == SAMPLING_RATE
        else soxr.ResampleStream(stream.rate, SAMPLING_RATE, 1, dtype="float32", quality="HQ")
    )
    for block in stream.blocks:
        _check_values(block, name)
        if resampler is not None:
            block = resampler.resample_chunk(block)
        yield np.clip(block, -1.0, 1.0, dtype=np.float32)
    if resampler is not None:
        rest = resampler.resample_chunk(np.zeros(0, np.float32), last=True)
        yield np.clip(rest, -1.0, 1.0, dtype=np.float32)


def _check_values(block: Float[np.ndarray, " _"], name: str) -> None:
    if not np.isfinite(block).all():
        raise AudioError(
            BAD_VALUES, f"cannot use {name}: it holds NaN or infinite samples; make it again from its source"
        )
    peak = float(np.abs(block).max(initial=0.0))
    if peak > LOUDEST:
        raise AudioError(
            BAD_VALUES,
            f"cannot use {name}: its floating-point samples reach {peak:g} where full scale is 1;"
            " divide them by the range of the integers they came from",
        )


def _unreadable(name: str, reason: str) -> AudioError:
    return AudioError(UNREADABLE, f"cannot read {name}: {reason}; convert it to WAV or FLAC, or leave it out")


def _no_samples(name: str) -> AudioError:
    return AudioError(EMPTY, f"cannot use {name}: it holds no samples; leave it out")

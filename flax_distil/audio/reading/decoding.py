"""Decode encoded audio of any kind to mono samples at 16 kHz, or raise an error that names the cause."""

import contextlib
import functools
import itertools
import logging
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import soxr

from flax_distil.audio.constants import SAMPLING_RATE
from flax_distil.audio.reading.channels import Downmix
from flax_distil.audio.reading.errors import LongAudioError, check_values, no_channel, no_samples
from flax_distil.audio.reading.readers import AudioStream, Damage
from flax_distil.audio.reading.sources import AudioSource
from flax_distil.core.arrays import Float

log = logging.getLogger(__name__)

HEADER_SLACK_SECONDS = 1.0
"""A codec pads its last frame, so a header may state a little more than is decoded."""

MOST_NAMED = 10
"""Number of warnings about recordings whose channels cancel each other out."""

MOST_PLACES = 5
"""Number of damaged parts of a recording that a warning names."""

_cancelled = itertools.count(1)


def decode_audio(
    source: str | Path | bytes,
    *,
    format: str | None = None,
    max_seconds: float | None = None,
    channel: int | None = None,
    replace_damage: bool = False,
) -> Float[np.ndarray, " W"]:
    """Decode a recording to 16 kHz mono.

    WAV, FLAC, MP3, Ogg Vorbis, Ogg Opus, M4A, G.722 and whatever else libsndfile or
    FFmpeg's libraries read; any rate, any number of channels. Their mean is taken; where that would be
    next to silence, since they cancel each other out, the louder one, with a warning. Resampling is
    soxr's HQ. Files that were concatenated (MP3, FLAC, Ogg) are all read, and a
    WAV file whose header tells no length is read to its end. Of files that were cut short, WAV, MP3 and
    Ogg give what is left; those whose reader notices (FLAC, M4A, bare AAC) are refused.

    Playlists are refused: nothing that a file names is ever opened.

    Args:
        source: A path, or the contents of a file.
        format: FFmpeg's name of the format, for bytes without a header
            (``"g722"``: 64 kbit/s, 16 kHz). A path that ends in ``.g722`` needs none.
        max_seconds: A recording that is clearly longer (by more than a second) is refused: by its
            header before anything is decoded, or else as soon as so much was decoded.
        channel: Take this channel alone, counted from 0.
        replace_damage: Put silence in the place of what cannot be decoded, so that later times stay
            right, and warn; by default a damaged recording is refused.

    Returns:
        float32 ``[W]``, 16 kHz, in [-1, 1] (what overshoots is clipped); at least one sample.

    Raises:
        AudioError: If it is missing, empty, unreadable, too long, holds no samples, has no such channel,
            or holds NaN, infinite or unscaled integer samples.
    """
    found = AudioSource.find(source, format, replace_damage=replace_damage)

    def mono(stream: AudioStream) -> tuple[Float[np.ndarray, " W"], int]:
        mix = Downmix(channel)
        blocks = [mix(block_WC) for block_WC in _check_blocks(stream, found.name, max_seconds, channel)]
        _warn(found.name, stream.damage, mix)
        return np.concatenate(blocks), stream.rate

    return _resample(*found.use(mono), found.name)


def decode_channels(
    source: str | Path | bytes, *, format: str | None = None, replace_damage: bool = False
) -> Float[np.ndarray, "C W"]:
    """Decode every channel of a recording to 16 kHz.

    Args:
        source: A path, or the contents of a file.
        format: As for :func:`decode_audio`.
        replace_damage: As for :func:`decode_audio`.

    Returns:
        float32 ``[C, W]``, in [-1, 1].

    Raises:
        AudioError: As :func:`decode_audio`.
    """
    found = AudioSource.find(source, format, replace_damage=replace_damage)

    def apart(stream: AudioStream) -> tuple[Float[np.ndarray, "W C"], int]:
        blocks = list(_check_blocks(stream, found.name, None, None))
        if len({block_WC.shape[1] for block_WC in blocks}) > 1:
            raise no_channel(found.name, stream.channels - 1, min(b.shape[1] for b in blocks))
        _warn(found.name, stream.damage, None)
        return np.concatenate(blocks), stream.rate

    samples_WC, rate = found.use(apart)
    return np.stack([_resample(samples_W, rate, found.name) for samples_W in samples_WC.T])


@contextlib.contextmanager
def open_audio(
    source: str | Path | bytes, *, format: str | None = None, channel: int | None = None
) -> Iterator[Iterator[Float[np.ndarray, " _"]]]:
    """Open a recording of any length to read it in blocks, in bounded memory.

    Args:
        source: A path, or the contents of a file.
        format: As for :func:`decode_audio`.
        channel: As for :func:`decode_audio`.

    Yields:
        An iterator over float32 blocks of some seconds; joined they are what :func:`decode_audio`
        gives, but for rounding where the rate is not 16 kHz.

    Raises:
        AudioError: As :func:`decode_audio`, when it is opened or while blocks are read.
    """
    found = AudioSource.find(source, format)
    with found.open() as stream:
        yield _at_sampling_rate(stream, found.name, channel)


def audio_duration(source: str | Path | bytes, *, format: str | None = None) -> float:
    """Return the duration of a recording, from its header if that is reliable, or else by decoding it.

    Args:
        source: A path, or the contents of a file.
        format: As for :func:`decode_audio`.

    Returns:
        Seconds. Of an M4A file it is the container's figure, which may differ from the
        decoded samples by some frames of the codec (tens of milliseconds).

    Raises:
        AudioError: If it is missing, empty or unreadable.
    """
    found = AudioSource.find(source, format)
    seconds = found.use(_measure)
    if not seconds:
        raise no_samples(found.name)
    return seconds


def audio_encoding(source: str | Path | bytes, *, format: str | None = None) -> str:
    """Describe how a recording is encoded, by its header.

    Args:
        source: A path, or the contents of a file.
        format: As for :func:`decode_audio`.

    Returns:
        Such as ``FLAC PCM_16, 16000 Hz, 1 channel``.

    Raises:
        AudioError: If it is missing, empty or unreadable.
    """

    def describe(stream: AudioStream) -> str:
        channels = "1 channel" if stream.channels == 1 else f"{stream.channels} channels"
        return f"{stream.encoding}, {stream.rate} Hz, {channels}"

    return AudioSource.find(source, format).use(describe)


def lasts_longer_than(seconds: float, source: str | Path | bytes, *, format: str | None = None) -> bool:
    """Return whether a recording is longer, from its header, or else by decoding no more than is needed.

    Args:
        seconds: The length to compare with.
        source: A path, or the contents of a file.
        format: As for :func:`decode_audio`.

    Raises:
        AudioError: If it is missing, empty or unreadable.
    """
    measured = functools.partial(_measure, enough=seconds)
    return AudioSource.find(source, format).use(measured) > seconds


def _check_blocks(
    stream: AudioStream, name: str, max_seconds: float | None, channel: int | None
) -> Iterator[Float[np.ndarray, "_ _"]]:
    """Yield all blocks, at least one; raise if there are too many samples, or samples are impossible."""
    allowed = math.inf if max_seconds is None else max_seconds
    limit = allowed + HEADER_SLACK_SECONDS
    if stream.seconds is not None and stream.seconds > limit:
        raise LongAudioError(name, f"{stream.seconds:.2f} s", allowed)
    frames = 0
    for block_WC in stream.blocks:
        check_values(block_WC, name)
        if channel is not None and not 0 <= channel < block_WC.shape[1]:
            raise no_channel(name, channel, block_WC.shape[1])
        yield block_WC
        frames += len(block_WC)
        if frames > limit * stream.rate:
            raise LongAudioError(name, f"more than {limit:.2f} s", allowed)
    if not frames:
        raise no_samples(name)


def _resample(samples_W: Float[np.ndarray, " W"], rate: int, name: str) -> Float[np.ndarray, " _"]:
    if rate != SAMPLING_RATE:
        samples_W = soxr.resample(samples_W, rate, SAMPLING_RATE, quality="HQ")
    if not len(samples_W):
        raise no_samples(name)
    return np.clip(samples_W, -1.0, 1.0, dtype=np.float32)


def _measure(stream: AudioStream, *, enough: float = math.inf) -> float:
    """Return seconds, by the header or by decoding; in that case no further than to ``enough``."""
    if stream.seconds is not None:
        return stream.seconds
    frames = 0
    for block_WC in stream.blocks:
        frames += len(block_WC)
        if frames > enough * stream.rate:
            break
    return frames / stream.rate


def _at_sampling_rate(
    stream: AudioStream, name: str, channel: int | None
) -> Iterator[Float[np.ndarray, " _"]]:
    resampler = (
        None
        if stream.rate == SAMPLING_RATE
        else soxr.ResampleStream(stream.rate, SAMPLING_RATE, 1, dtype="float32", quality="HQ")
    )
    mix = Downmix(channel)
    for block_WC in stream.blocks:
        check_values(block_WC, name)
        if channel is not None and not 0 <= channel < block_WC.shape[1]:
            raise no_channel(name, channel, block_WC.shape[1])
        block = mix(block_WC)
        if resampler is not None:
            block = resampler.resample_chunk(block)
        yield np.clip(block, -1.0, 1.0, dtype=np.float32)
    if resampler is not None:
        rest = resampler.resample_chunk(np.zeros(0, np.float32), last=True)
        yield np.clip(rest, -1.0, 1.0, dtype=np.float32)
    _warn(name, stream.damage, mix)


def _warn(name: str, damage: Sequence[Damage], mix: Downmix | None) -> None:
    if damage:
        places = [
            f"at {place.start:.2f} s" + (f" ({place.seconds:.2f} s)" if place.seconds else " (its end)")
            for place in damage[:MOST_PLACES]
        ]
        if len(damage) > MOST_PLACES:
            places.append(f"at {len(damage) - MOST_PLACES} other places")
        log.warning("%s is damaged %s: what is lost is silence here", name, ", ".join(places))
    if mix is not None and mix.cancelled:
        number = next(_cancelled)
        if number <= MOST_NAMED:
            rest = "; further ones are not named" if number == MOST_NAMED else ""
            log.warning("the channels of %s cancel each other out: the louder is taken%s", name, rest)

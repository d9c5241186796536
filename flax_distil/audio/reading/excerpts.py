"""Decode a part of a long recording, without the rest where the format allows seeking."""

import io
from pathlib import Path

import numpy as np
import soundfile

from flax_distil.audio.constants import SAMPLING_RATE
from flax_distil.audio.reading.decoding import audio_duration, decode_audio, open_audio
from flax_distil.audio.reading.errors import AudioError
from flax_distil.audio.reading.readers import UnreadableError, sound_file
from flax_distil.audio.reading.sources import AudioSource
from flax_distil.core.arrays import Float

BAD_EXCERPT = "that lie beyond the end of their file"

END_SLACK_SECONDS = 0.5
"""An excerpt may end this much later than its recording, since times in manifests are rounded."""

SEEKABLE = frozenset({"WAV", "WAVEX", "W64", "RF64", "AIFF", "FLAC", "OGG"})
"""Formats in which libsndfile finds a sample exactly."""


def decode_excerpt(
    source: str | Path | bytes,
    *,
    start: float,
    end: float | None = None,
    format: str | None = None,
    channel: int | None = None,
) -> Float[np.ndarray, " W"]:
    """Decode a part of a recording to 16 kHz mono.

    Args:
        source: A path, or the contents of a file.
        start: Where it begins, in seconds.
        end: Where it ends, in seconds; None for the end of the recording.
        format: As for :func:`decode_audio`.
        channel: As for :func:`decode_audio`.

    Returns:
        float32 ``[W]``, 16 kHz, in [-1, 1]: what :func:`decode_audio` gives there, but for rounding where the
        rate is not 16 kHz.

    Raises:
        AudioError: As :func:`decode_audio`, and if the recording ends before ``start``, or more than half a
            second before ``end``.
    """
    samples_W = None if format else _decode_from(source, start, end, channel)
    return _decode_all(source, start, end, format, channel) if samples_W is None else samples_W


def excerpt_duration(
    source: str | Path | bytes, *, start: float, end: float | None = None, format: str | None = None
) -> float:
    """Return the seconds of a part of a recording, which is opened only where ``end`` is None.

    Raises:
        AudioError: As :func:`audio_duration`, and if the recording ends before ``start``.
    """
    if end is not None:
        return end - start
    whole = audio_duration(source, format=format)
    if whole <= start:
        raise _beyond(source, start, end, whole)
    return whole - start


def _decode_from(
    source: str | Path | bytes, start: float, end: float | None, channel: int | None
) -> Float[np.ndarray, " W"] | None:
    """Read only the samples of the part; None where libsndfile may not find them exactly."""
    part = AudioSource.find(source).exact
    if part is None:
        return None
    try:
        with sound_file(part) as sound:
            if sound.format not in SEEKABLE or not 0 < sound.frames < 1 << 62:
                return None
            rate, frames = sound.samplerate, sound.frames
            first = round(start * rate)
            last = frames if end is None else round(end * rate)
            _check_end(source, start, end, frames / rate)
            sound.seek(first)
            found = sound.read(min(last, frames) - first, dtype="float32", always_2d=True)
    except (UnreadableError, OSError):
        return None
    if not len(found):
        return None
    # Decoded as a file of its own: mixing, checks and resampling are those of every recording.
    contents = io.BytesIO()
    soundfile.write(contents, found, rate, format="WAV", subtype="FLOAT")
    return decode_audio(contents.getvalue(), channel=channel)


def _decode_all(
    source: str | Path | bytes, start: float, end: float | None, format: str | None, channel: int | None
) -> Float[np.ndarray, " W"]:
    """Decode from the beginning and keep the part."""
    first = round(start * SAMPLING_RATE)
    last = None if end is None else round(end * SAMPLING_RATE)
    kept, position = [], 0
    with open_audio(source, format=format, channel=channel) as blocks:
        for block in blocks:
            kept.append(block[max(0, first - position) : None if last is None else max(0, last - position)])
            position += len(block)
            if last is not None and position >= last:
                break
    if last is None or position < last:
        _check_end(source, start, end, position / SAMPLING_RATE)
    samples_W = np.concatenate(kept)
    if not len(samples_W):
        raise _beyond(source, start, end, position / SAMPLING_RATE)
    return samples_W


def _check_end(source: str | Path | bytes, start: float, end: float | None, whole: float) -> None:
    if start >= whole or (end is not None and end > whole + END_SLACK_SECONDS):
        raise _beyond(source, start, end, whole)


def _beyond(source: str | Path | bytes, start: float, end: float | None, whole: float) -> AudioError:
    name = "audio given as bytes" if isinstance(source, bytes) else f"audio file '{source}'"
    until = "its end" if end is None else f"{end:.2f} s"
    return AudioError(
        BAD_EXCERPT,
        f"cannot use {start:.2f} s to {until} of {name}: it lasts {whole:.2f} s; correct the times, or take "
        "their columns out if the files are cut already",
    )

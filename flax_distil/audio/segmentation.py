"""Cut long recordings where nobody speaks, into segments that one window of the encoder holds.

Runs of speech are joined to segments as long as they fit, and cut in the longest pause of the last third
of a segment. Only speech that continues for 30 s without a pause is cut where it is quietest.
"""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile

from flax_distil.audio.clip import to_int16
from flax_distil.audio.constants import CHUNK_SAMPLES, SAMPLING_RATE
from flax_distil.audio.reading.decoding import open_audio
from flax_distil.audio.speech_runs import (
    FRAMES_PER_SECOND,
    Run,
    Segment,
    find_runs,
    find_segments,
    pad_runs,
    smooth_levels,
)
from flax_distil.audio.voice_activity import FRAME_SAMPLES, VoiceActivity
from flax_distil.core.arrays import Bool, Float

LONGEST = CHUNK_SAMPLES // FRAME_SAMPLES
"""Frames of the longest segment: 29.98 s."""

AIM = round(20 * FRAMES_PER_SECOND)
"""A segment shorter than these 20 s is not ended while speech goes on after a short pause."""

LONG_SILENCE = round(2 * FRAMES_PER_SECOND)
"""A silence of more than 2 s always ends a segment."""

PADDING = round(0.4 * FRAMES_PER_SECOND)
"""Frames kept before and after speech: Silero was seen to notice a loud beginning 0.24 s late."""

SHORTEST = 3
"""A run of fewer frames (0.1 s) is a click, not speech."""


def speech_segments(
    source: str | Path | bytes,
    detector: VoiceActivity,
    *,
    format: str | None = None,
    channel: int | None = None,
) -> list[Segment]:
    """Find the segments of a recording of any length: all speech, without long silences.

    Args:
        source: A path, or the contents of a file.
        detector: Tells speech from silence.
        format: As for :func:`flax_distil.audio.reading.decoding.decode_audio`.
        channel: As for :func:`flax_distil.audio.reading.decoding.decode_audio`.

    Returns:
        Segments of at most 30 s, in order, without overlap; none where nobody speaks.

    Raises:
        AudioError: If any part of it cannot be read.
    """
    with open_audio(source, format=format, channel=channel) as blocks:
        return find_segments(blocks, detector, segment_frames)


def segment_frames(
    speech_F: Bool[np.ndarray, " frames"], levels_F: Float[np.ndarray, " frames"]
) -> list[Run]:
    """Join frames of speech to segments.

    Args:
        speech_F: Which frames hold speech.
        levels_F: How loud they are, in dB.

    Returns:
        First frame of each segment and the frame after its last.
    """
    smooth_F = smooth_levels(levels_F)
    runs = [
        part
        for start, stop in find_runs(speech_F)
        if stop - start >= SHORTEST
        for part in _cut_where_quietest(start, stop, smooth_F)
    ]
    padded = pad_runs(runs, smooth_F, frames=len(speech_F), padding=PADDING)
    segments, first = [], 0
    while first < len(runs):
        last = _last_run(runs, padded, first)
        segments.append((padded[first][0], padded[last][1]))
        first = last + 1
    return segments


def _last_run(runs: list[Run], padded: list[Run], first: int) -> int:
    """Choose the run of speech that a segment ends with."""
    best, best_pause = first, -1
    for last in range(first, len(runs)):
        length = padded[last][1] - padded[first][0]
        if length > LONGEST:
            break
        pause = runs[last + 1][0] - runs[last][1] if last + 1 < len(runs) else LONG_SILENCE + 1
        if pause > LONG_SILENCE:
            return last
        # Of short segments the longest; of those that are long enough, the one before the longest pause.
        if length < AIM:
            best = last
        elif pause >= best_pause:
            best, best_pause = last, pause
    return best


def _cut_where_quietest(start: int, stop: int, smooth_F: Float[np.ndarray, " frames"]) -> Iterator[Run]:
    """Cut a run of speech that is too long, after the length that is aimed at."""
    longest = LONGEST - 2 * PADDING
    begin = start
    while stop - begin > longest:
        cut = begin + AIM + int(np.argmin(smooth_F[begin + AIM : begin + longest]))
        yield begin, cut
        begin = cut
    yield begin, stop


def cut_segments(
    source: str | Path | bytes,
    segments: list[Segment],
    *,
    format: str | None = None,
    channel: int | None = None,
) -> Iterator[tuple[Segment, bytes]]:
    """Cut a recording, reading it once from front to back.

    Args:
        source: A path, or the contents of a file.
        segments: What :func:`speech_segments` found in it.
        format: As for :func:`flax_distil.audio.reading.decoding.decode_audio`.
        channel: As for :func:`flax_distil.audio.reading.decoding.decode_audio`.

    Yields:
        Each segment and its FLAC file: mono, 16 kHz, 16 bit.

    Raises:
        AudioError: If it cannot be read.
    """
    with open_audio(source, format=format, channel=channel) as blocks:
        held, reached = np.zeros(0, np.float32), 0  # the samples read last, and how many were read in all
        for segment in segments:
            while reached < segment.stop:
                block = next(blocks)
                reached += len(block)
                # What lies before the segment goes at once: a silence may last for hours.
                held = _last(np.concatenate([held, block]), reached - segment.start)
            held = _last(held, reached - segment.start)
            length = segment.stop - segment.start
            yield segment, flac_bytes(held[:length])
            held = held[length:]


def _last(samples_W: Float[np.ndarray, " W"], count: int) -> Float[np.ndarray, " _"]:
    return samples_W[max(0, len(samples_W) - max(0, count)) :]


def flac_bytes(samples_W: Float[np.ndarray, " W"]) -> bytes:
    """Encode mono samples at 16 kHz as FLAC of 16 bit.

    Args:
        samples_W: Samples in [-1, 1]; samples of a 16-bit recording are kept exactly.
    """
    buffer = io.BytesIO()
    integers = to_int16(samples_W)
    soundfile.write(buffer, integers, SAMPLING_RATE, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()

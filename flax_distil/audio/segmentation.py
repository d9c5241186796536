"""Long recordings are cut where nobody speaks, into pieces that the encoder takes.

Runs of speech are joined to segments as long as they fit, cut in the longest pause of a segment's
last third. Only speech that goes on for 30 s without a pause is cut where it is faintest.
"""

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from flax_distil.audio.clip import to_int16
from flax_distil.audio.constants import CHUNK_SAMPLES, SAMPLING_RATE
from flax_distil.audio.reading.decoding import open_audio
from flax_distil.audio.voice_activity import FRAME_SAMPLES, VoiceActivity
from flax_distil.core.arrays import Bool, Float

FRAMES_PER_SECOND = SAMPLING_RATE / FRAME_SAMPLES
LONGEST = CHUNK_SAMPLES // FRAME_SAMPLES
"""Frames of the longest segment: 29.98 s."""

AIM = round(20 * FRAMES_PER_SECOND)
"""A segment shorter than these 20 s is not ended while speech goes on after a short pause."""

LONG_SILENCE = round(2 * FRAMES_PER_SECOND)
"""A silence of more than 2 s always ends a segment."""

PADDING = round(0.4 * FRAMES_PER_SECOND)
"""Frames kept before and behind speech: Silero was seen to notice a loud beginning 0.24 s late."""

SHORTEST = 3
"""Fewer frames of speech (0.1 s) are a click."""

SMOOTH = 5
"""Frames (160 ms) whose mean tells how faint a place is."""

ALIKE_DB = 3.0
"""Places this close to the faintest one are as good."""

Run = tuple[int, int]
"""First frame, and the frame behind the last."""


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A part of a recording.

    Attributes:
        start: Its first sample, at 16 kHz.
        stop: The sample behind its last.
    """

    start: int
    stop: int

    @property
    def offset_seconds(self) -> float:
        """Where it begins in the recording."""
        return self.start / SAMPLING_RATE

    @property
    def duration_seconds(self) -> float:
        """Its length."""
        return (self.stop - self.start) / SAMPLING_RATE


def speech_segments(
    source: str | Path | bytes,
    detector: VoiceActivity,
    *,
    format: str | None = None,
    channel: int | None = None,
) -> list[Segment]:
    """Find the segments of a recording of any length: all of its speech, no long silence.

    Args:
        source: A path, or the contents of a file.
        detector: Tells speech from silence.
        format: As for :func:`flax_distil.audio.reading.decoding.decode_audio`.
        channel: As for :func:`flax_distil.audio.reading.decoding.decode_audio`.

    Returns:
        Segments of at most 30 s, in order, without overlap; none where nobody speaks.

    Raises:
        AudioError: if any part of it cannot be read.
    """
    with open_audio(source, format=format, channel=channel) as blocks:
        runs, samples = _speech_runs(blocks, detector)
    return _segments(runs, samples)


def _speech_runs(blocks: Iterable[Float[np.ndarray, " _"]], detector: VoiceActivity) -> tuple[list[Run], int]:
    """Return the frames of segments, and how many samples there are."""
    samples = 0

    def counted() -> Iterator[Float[np.ndarray, " _"]]:
        nonlocal samples
        for block in blocks:
            samples += len(block)
            yield block

    return segment_frames(*detector(counted())), samples


def _segments(runs: list[Run], samples: int) -> list[Segment]:
    return [
        Segment(start=start * FRAME_SAMPLES, stop=min(stop * FRAME_SAMPLES, samples)) for start, stop in runs
    ]


def segment_frames(
    speech_F: Bool[np.ndarray, " frames"], levels_F: Float[np.ndarray, " frames"]
) -> list[Run]:
    """Join frames of speech to segments.

    Args:
        speech_F: Which frames hold speech.
        levels_F: How loud they are, in dB.

    Returns:
        First frame of each segment and the frame behind its last.
    """
    smooth_F = smoothed(levels_F)
    runs = [
        piece
        for start, stop in runs_of(speech_F)
        if stop - start >= SHORTEST
        for piece in _cut_where_faintest(start, stop, smooth_F)
    ]
    if not runs:
        return []
    starts, stops = zip(*runs, strict=True)
    # Between neighbours, where padding would overlap, one ends and the other begins at one place.
    bounds = [quietest(stop, start, smooth_F) for stop, start in zip(stops, starts[1:], strict=False)]
    begins = [max(start - PADDING, low) for start, low in zip(starts, [0, *bounds], strict=True)]
    ends = [min(stop + PADDING, high) for stop, high in zip(stops, [*bounds, len(speech_F)], strict=True)]
    segments, first = [], 0
    while first < len(runs):
        last = _last_run(runs, begins, ends, first)
        segments.append((begins[first], ends[last]))
        first = last + 1
    return segments


def smoothed(levels_F: Float[np.ndarray, " frames"]) -> Float[np.ndarray, " _"]:
    """Return the mean level of the frames around each; a few more follow at the end."""
    return np.convolve(levels_F, np.ones(SMOOTH) / SMOOTH)[SMOOTH // 2 :] if len(levels_F) else levels_F


def _last_run(runs: list[Run], begins: list[int], ends: list[int], first: int) -> int:
    """Choose the run of speech that a segment ends with."""
    best, best_pause = first, -1
    for last in range(first, len(runs)):
        length = ends[last] - begins[first]
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


def runs_of(speech_F: Bool[np.ndarray, " frames"]) -> Iterator[Run]:
    """Yield the runs of frames that hold speech."""
    edges = np.flatnonzero(np.diff(speech_F.astype(np.int8), prepend=0, append=0))
    return ((int(start), int(stop)) for start, stop in edges.reshape(-1, 2))


def _cut_where_faintest(start: int, stop: int, smooth_F: Float[np.ndarray, " frames"]) -> Iterator[Run]:
    """Cut a run of speech that is too long, not before the length aimed at."""
    longest = LONGEST - 2 * PADDING
    begin = start
    while stop - begin > longest:
        cut = begin + AIM + int(np.argmin(smooth_F[begin + AIM : begin + longest]))
        yield begin, cut
        begin = cut
    yield begin, stop


def quietest(start: int, stop: int, smooth_F: Float[np.ndarray, " frames"]) -> int:
    """Return the middle of a pause, or what is nearest to it and about as faint as any place in it.

    A detector may hear the next words too late: then the middle would be theirs.
    """
    if start == stop:  # a cut in speech
        return start
    pause = smooth_F[start:stop]
    quiet = start + np.flatnonzero(pause <= pause.min() + ALIKE_DB)
    return int(quiet[np.argmin(np.abs(2 * quiet - start - stop))])


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
        AudioError: if it cannot be read.
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
        samples_W: In [-1, 1]; those of a 16-bit recording are kept exactly.
    """
    buffer = io.BytesIO()
    integers = to_int16(samples_W)
    soundfile.write(buffer, integers, SAMPLING_RATE, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()

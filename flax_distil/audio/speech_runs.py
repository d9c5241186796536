"""Runs of speech frames, and the segments of a recording that are made of them."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from flax_distil.audio.constants import SAMPLING_RATE
from flax_distil.audio.voice_activity import FRAME_SAMPLES, VoiceActivity
from flax_distil.core.arrays import Bool, Float

FRAMES_PER_SECOND = SAMPLING_RATE / FRAME_SAMPLES

SMOOTH = 5
"""Number of frames (160 ms) whose mean level tells how quiet a frame is."""

ALIKE_DB = 3.0
"""Frames this close to the quietest one count as equally quiet."""

Run = tuple[int, int]
"""The first frame of a run, and the frame after its last."""


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A part of a recording.

    Attributes:
        start: Its first sample, at 16 kHz.
        stop: The sample after its last.
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


def find_segments(
    blocks: Iterable[Float[np.ndarray, " _"]],
    detector: VoiceActivity,
    choose: Callable[[Bool[np.ndarray, " frames"], Float[np.ndarray, " frames"]], list[Run]],
) -> list[Segment]:
    """Find the segments of a recording in one pass over its samples.

    Args:
        blocks: Mono samples at 16 kHz, in blocks of any size.
        detector: Tells speech from silence.
        choose: Makes runs of frames from the speech flag and the level (in dB) of every frame.

    Returns:
        Segments in order, without overlap.
    """
    [segments] = find_windows(blocks, detector, lambda speech_F, levels_F: [choose(speech_F, levels_F)])
    return segments


def find_windows(
    blocks: Iterable[Float[np.ndarray, " _"]],
    detector: VoiceActivity,
    choose: Callable[[Bool[np.ndarray, " frames"], Float[np.ndarray, " frames"]], list[list[Run]]],
) -> list[list[Segment]]:
    """Do the same where runs are chosen in groups, each of which becomes a list of segments."""
    samples = 0

    def counted() -> Iterator[Float[np.ndarray, " _"]]:
        nonlocal samples
        for block in blocks:
            samples += len(block)
            yield block

    groups = choose(*detector(counted()))
    return [
        [
            Segment(start=start * FRAME_SAMPLES, stop=min(stop * FRAME_SAMPLES, samples))
            for start, stop in runs
        ]
        for runs in groups
    ]


def find_runs(speech_F: Bool[np.ndarray, " frames"]) -> Iterator[Run]:
    """Yield the runs of frames that hold speech."""
    edges = np.flatnonzero(np.diff(speech_F.astype(np.int8), prepend=0, append=0))
    return ((int(start), int(stop)) for start, stop in edges.reshape(-1, 2))


def smooth_levels(levels_F: Float[np.ndarray, " frames"]) -> Float[np.ndarray, " _"]:
    """Return the mean level of the frames around each frame; a few more follow at the end."""
    return np.convolve(levels_F, np.ones(SMOOTH) / SMOOTH)[SMOOTH // 2 :] if len(levels_F) else levels_F


def pad_runs(
    runs: Sequence[Run], smooth_F: Float[np.ndarray, " frames"], *, frames: int, padding: int
) -> list[Run]:
    """Extend runs at both ends; neighbors that would overlap meet at the quietest frame between them.

    Args:
        runs: In order, without overlap.
        smooth_F: Levels of :func:`smooth_levels`.
        frames: Number of frames of the recording.
        padding: Number of frames to add at each end.
    """
    if not runs:
        return []
    bounds = [_quietest_frame(before[1], after[0], smooth_F) for before, after in itertools.pairwise(runs)]
    return [
        (max(start - padding, low), min(stop + padding, high))
        for (start, stop), low, high in zip(runs, [0, *bounds], [*bounds, frames], strict=True)
    ]


def _quietest_frame(start: int, stop: int, smooth_F: Float[np.ndarray, " frames"]) -> int:
    """Return the middle of a pause, or the frame nearest to it that is about as quiet as the quietest.

    A detector may notice the next words too late: the middle would then lie within them.
    """
    if start == stop:  # a cut within speech
        return start
    pause = smooth_F[start:stop]
    quiet = start + np.flatnonzero(pause <= pause.min() + ALIKE_DB)
    return int(quiet[np.argmin(np.abs(2 * quiet - start - stop))])

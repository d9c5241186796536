"""Find where somebody speaks, in regions of any length: the parts that a voice activity filter keeps."""

import itertools
from collections.abc import Iterable, Iterator
from functools import partial

import numpy as np

from flax_distil.audio.speech_runs import (
    FRAMES_PER_SECOND,
    Run,
    Segment,
    find_runs,
    find_segments,
    pad_runs,
    smooth_levels,
)
from flax_distil.audio.vad_config import VadOptions
from flax_distil.audio.voice_activity import VoiceActivity
from flax_distil.core.arrays import Bool, Float


def speech_regions(blocks: Iterable[Float[np.ndarray, " _"]], detector: VoiceActivity) -> list[Segment]:
    """Find where somebody speaks.

    Args:
        blocks: Mono samples at 16 kHz, in pieces of any size.
        detector: Tells speech from silence; its options say what counts as either.

    Returns:
        Parts of the recording, in order, without overlap.
    """
    return find_segments(blocks, detector, partial(region_frames, options=detector.options))


def region_frames(
    speech_F: Bool[np.ndarray, " frames"], levels_F: Float[np.ndarray, " frames"], options: VadOptions
) -> list[Run]:
    """Return the first frame of each region and the frame after its last.

    Args:
        speech_F: Which frames hold speech.
        levels_F: How loud they are, in dB.
        options: What counts as speech, and how much around it is kept.
    """
    smooth_F = smooth_levels(levels_F)
    runs = [run for run in find_runs(speech_F) if run[1] - run[0] >= _frames(options.min_speech_duration_ms)]
    groups: list[list[Run]] = []
    for run in runs:
        if groups and run[0] - groups[-1][-1][1] <= _frames(options.min_silence_duration_ms):
            groups[-1].append(run)
        else:
            groups.append([run])
    regions = [piece for group in groups for piece in _cut(group, smooth_F, options.max_speech_duration_s)]
    return pad_runs(regions, smooth_F, frames=len(speech_F), padding=_frames(options.speech_pad_ms))


def _frames(milliseconds: int | float) -> int:
    return round(milliseconds * FRAMES_PER_SECOND / 1000)


def _cut(
    runs: list[Run], smooth_F: Float[np.ndarray, " frames"], max_seconds: int | float | None
) -> Iterator[Run]:
    """Cut a region that is too long in the longest pause of its last third, or else at its quietest frame."""
    begin, stop = runs[0][0], runs[-1][1]
    longest = stop - begin if max_seconds is None else int(max_seconds * FRAMES_PER_SECOND)
    pauses = [(before[1], after[0]) for before, after in itertools.pairwise(runs)]
    while stop - begin > longest:
        earliest, latest = begin + max(1, 2 * longest // 3), begin + longest
        within = [pause for pause in pauses if earliest <= pause[0] <= latest]
        if within:
            end, following = max(within, key=lambda pause: pause[1] - pause[0])
        else:
            end = following = earliest + int(np.argmin(smooth_F[earliest:latest]))
        yield begin, end
        begin = following
    yield begin, stop
